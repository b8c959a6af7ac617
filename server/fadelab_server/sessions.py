"""Who is in the run: one live session for each device."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.wire import PROTOCOL_VERSION
from fadelab_server.config import ServerConfig, TaskSpec

# A device that joined but has not opened its directive stream holds its number for this long. The
# stream follows the join at once, so only an agent that died in between takes this time.
JOIN_GRACE_S = 30.0


class JoinRefusedError(Exception):
    """A device may not join; ``status`` and the message say why."""

    def __init__(self, status: pb.JoinStatus.ValueType, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class Session:
    """One agent process's membership."""

    device: int
    token: int
    incarnation: int
    samples: dict[int, int]
    """Local training samples by task index."""
    joined_s: float
    key: int = 0
    """Secret that the device keeps across restarts of its agent; 0 if it keeps none."""
    ousted: int | None = None
    """Incarnation of the agent whose place this one took although it seemed to live."""
    streams: int = 0
    """Directive streams that are open now."""
    ever_streamed: bool = False

    def alive(self, now_s: float) -> bool:
        """Whether the agent is connected, or has only just joined."""
        if self.ever_streamed:
            return self.streams > 0
        return now_s < self.joined_s + JOIN_GRACE_S


class SessionTable:
    """Admit devices and look sessions up."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._tasks = {task.name: (index, task) for index, task in enumerate(config.tasks)}
        self._by_device: dict[int, Session] = {}
        self._by_token: dict[int, Session] = {}

    def join(self, request: pb.JoinRequest, now_s: float) -> Session:
        """Create the session of a device, replacing the one that it had.

        That one is dead, or of the same agent, or of an agent that has the same key: one that was
        killed without its connection telling so, in a closed contact window or by a change of its
        address.

        Raises:
            JoinRefusedError: with the status and the reason to send back.

        """
        self._check_identity(request)
        samples = self._match_tasks(request.tasks)
        earlier = self._by_device.get(request.device)
        ousted = None
        if earlier is not None:
            if earlier.alive(now_s):
                ousted = _ousted(earlier, request)
            del self._by_token[earlier.token]
        session = Session(
            device=request.device,
            token=secrets.randbits(63) + 1,
            incarnation=request.incarnation,
            samples=samples,
            joined_s=now_s,
            key=request.device_key,
            ousted=ousted,
        )
        self._by_device[session.device] = session
        self._by_token[session.token] = session
        return session

    def find(self, token: int) -> Session | None:
        """Return the session with this token."""
        return self._by_token.get(token)

    def held_by(self, device: int) -> Session | None:
        """Return the last session of a device."""
        return self._by_device.get(device)

    def alive(self, now_s: float) -> list[Session]:
        """Return the live sessions in order of device number."""
        return [s for _, s in sorted(self._by_device.items()) if s.alive(now_s)]

    def _check_identity(self, request: pb.JoinRequest) -> None:
        if request.protocol_version != PROTOCOL_VERSION:
            raise JoinRefusedError(
                pb.JOIN_STATUS_WRONG_PROTOCOL,
                f"the agent speaks protocol {request.protocol_version}, "
                f"this server {PROTOCOL_VERSION}",
            )
        if request.run_id != self._config.run_id:
            raise JoinRefusedError(
                pb.JOIN_STATUS_WRONG_RUN,
                f"the agent belongs to run {request.run_id:08x}, "
                f"this is run {self._config.run_id:08x}",
            )
        if request.device >= self._config.devices:
            raise JoinRefusedError(
                pb.JOIN_STATUS_UNKNOWN_DEVICE,
                f"device {request.device} is not one of 0..{self._config.devices - 1}",
            )

    def _match_tasks(self, offers: Sequence[pb.TaskOffer]) -> dict[int, int]:
        if not offers:
            raise JoinRefusedError(pb.JOIN_STATUS_UNKNOWN_TASK, "the agent offers no task")
        samples = {}
        for offer in offers:
            if offer.name not in self._tasks:
                raise JoinRefusedError(
                    pb.JOIN_STATUS_UNKNOWN_TASK,
                    f"task '{offer.name}' is not trained here; "
                    f"known: {', '.join(sorted(self._tasks))}",
                )
            index, task = self._tasks[offer.name]
            _check_model(offer, task)
            samples[index] = offer.samples
        return samples


def _ousted(earlier: Session, request: pb.JoinRequest) -> int | None:
    """Return whose place an agent takes, its own predecessor's included; refuse it if nobody's."""
    if request.incarnation == earlier.incarnation:
        return earlier.ousted
    if request.incarnation == earlier.ousted:
        # Two processes with one key would otherwise oust each other for ever.
        raise JoinRefusedError(
            pb.JOIN_STATUS_DUPLICATE_DEVICE,
            f"a newer agent of device {request.device} has taken the place of this one",
        )
    if request.device_key == 0 or request.device_key != earlier.key:
        raise JoinRefusedError(
            pb.JOIN_STATUS_DUPLICATE_DEVICE,
            f"device {request.device} is already in the run, held by another live agent",
        )
    return earlier.incarnation


def _check_model(offer: pb.TaskOffer, task: TaskSpec) -> None:
    if offer.dimension != task.dimension:
        raise JoinRefusedError(
            pb.JOIN_STATUS_MODEL_MISMATCH,
            f"the agent's model for '{task.name}' has {offer.dimension} parameters, "
            f"the server's has {task.dimension}",
        )
    if offer.layout_hash != task.layout_hash:
        raise JoinRefusedError(
            pb.JOIN_STATUS_MODEL_MISMATCH,
            f"the agent's model for '{task.name}' has as many parameters as the server's "
            "but another layout",
        )
    if offer.samples == 0:
        raise JoinRefusedError(
            pb.JOIN_STATUS_MODEL_MISMATCH, f"the agent has no training sample for '{task.name}'"
        )
