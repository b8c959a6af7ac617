"""Getting a model as the server's directive says, with everything that became of it in the log."""

import grpc

from fadelab_agent.compute import transmission_energy_j
from fadelab_agent.delivery import RETRY_PAUSE_S
from fadelab_agent.downlink import Model
from fadelab_agent.terms import DeviceTerms, TaskParts
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.wire import NEWEST_VERSION

_LONGEST_LEAD_S = 2.0


class ModelSource:
    """Where one task's models come from."""

    def __init__(self, terms: DeviceTerms, parts: TaskParts) -> None:
        self._terms = terms
        self._work = parts.work
        self._membership = parts.membership
        self._radio = parts.radio
        self._downlink = parts.downlink
        self._clock = parts.clock
        self._log = parts.log

    async def time_zero(self, directive: pb.Directive) -> None:
        """Wait for emulated time to begin: until then links have no programmed rate yet.

        The start lies moments ahead on the server's clock; a device on another machine, whose
        clock counts from elsewhere, does not wait for it.
        """
        now_s = self._clock.now_s()
        if now_s < directive.start_mono_s < now_s + _LONGEST_LEAD_S:
            await self._clock.sleep_until(directive.start_mono_s)

    async def fetch(self, directive: pb.Directive) -> Model | None:
        """Return the model to train from; None after a pause if it cannot be had now."""
        wanted = (
            directive.version if directive.kind == pb.DIRECTIVE_KIND_TRAIN_ROUND else NEWEST_VERSION
        )
        assignment = self._membership.assignment(self._work.name)
        before_open_s = self._radio.open_s()
        try:
            model = await self._downlink.fetch(
                session=assignment.session,
                task_index=assignment.task_index,
                dimension=self._work.dimension,
                version=wanted,
            )
        except grpc.aio.AioRpcError as error:
            # The round's version is gone or the session is: look at the directives again.
            self._log.write(
                "download_failed",
                task=self._work.name,
                cause=f"{error.code().name}: {error.details()}",
            )
            await self._clock.sleep_until(self._clock.now_s() + RETRY_PAUSE_S)
            return None
        finally:
            if (left := self._downlink.unfinished) is not None:
                self._log.write("model_partial", task=self._work.name, **left._asdict())
        open_s = self._radio.open_s() - before_open_s
        self._log.write(
            "model_received",
            task=self._work.name,
            version=model.version,
            kind=model.kind,
            base_version=model.base_version,
            full_bytes=model.vector.nbytes,
            packets=model.packets,
            payload_bytes=model.payload_bytes,
            mark_mono_s=model.timer.mark_s,
            last_mono_s=model.timer.last_s,
            bytes_after_mark=model.timer.bytes_after_mark,
            open_s=round(open_s, 6),
            downlink_j=transmission_energy_j(self._terms.downlink_power_w, open_s),
        )
        return model
