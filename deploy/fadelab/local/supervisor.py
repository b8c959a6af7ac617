"""Inside the sandbox: start server, emulator and nursery, bring them together, see the run through."""

import asyncio
import logging
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from fadelab.conduct import all_joined, failures_told, give_start, local_channel, over
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.children import Channel, Child, Family, Message, fork_child
from fadelab.local.nursery import grace_s, nursery, send_descriptors
from fadelab.local.plan import LocalPlan, ModelFacts
from fadelab_emulation.emulator import emulate
from fadelab_emulation.namespaces import NetworkNamespace
from fadelab_proto import collector
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog
from fadelab_server.config import ServerConfig

_GRACE_S = 5.0
_EMULATOR_GRACE_S = 30.0
_VALIDATOR_GRACE_S = 40.0


@dataclass(frozen=True, slots=True)
class _Crew:
    server: Child
    emulator: Child
    nursery: Child


def supervise(plan: LocalPlan, outside: Channel) -> None:
    """See one run through; messages to ``outside`` say which phase it is in.

    Must be called in a sandbox, in a process with one thread: everything is forked before gRPC
    starts its own.

    Raises:
        FadelabError: if a component failed or not every device joined.

    """
    # What libraries have to say goes to a file: the terminal shows the run.
    logging.basicConfig(
        filename=plan.run_dir / "log.txt",
        level=logging.WARNING,
        format="%(asctime)s process %(process)d %(name)s: %(message)s",
    )
    for_nursery, for_emulator = Channel.pair()

    def nursery_body(channel: Channel) -> None:
        for_emulator.close()
        nursery(plan, for_nursery, channel)

    def emulator_body(channel: Channel) -> None:
        for_nursery.close()
        _emulator(plan, for_emulator, channel)

    crew = _Crew(
        nursery=fork_child("nursery", nursery_body),
        emulator=fork_child("emulator", emulator_body),
        server=fork_child("server", _server),
    )
    for_nursery.close()
    for_emulator.close()
    asyncio.run(_Run(plan, crew, outside).see_through())


def _emulator(plan: LocalPlan, namespaces: Channel, channel: Channel) -> None:
    async def main() -> None:
        def links_ready(made: Sequence[NetworkNamespace]) -> None:
            send_descriptors(namespaces, [namespace.descriptor for namespace in made])
            namespaces.close()
            channel.send(links=len(made))

        await emulate(plan.emulator(), links_ready)

    asyncio.run(main())


def _models(warm: Message) -> list[ModelFacts]:
    dimensions, hashes, layers = warm["dimensions"], warm["layout_hashes"], warm["layers"]
    assert isinstance(dimensions, list)
    assert isinstance(hashes, list)
    assert isinstance(layers, list)
    return [
        ModelFacts(dimension, layout_hash, tuple(own))
        for dimension, layout_hash, own in zip(dimensions, hashes, layers, strict=True)
    ]


def _server(channel: Channel) -> None:
    with collector.importing():
        # Only this process needs it, and meanwhile the nursery imports torch.
        from fadelab_server.app import serve  # noqa: PLC0415

    message = channel.receive()
    if message is None:
        return
    config = ServerConfig.model_validate_json(str(message["config"]))
    serve(config, listening=lambda port: channel.send(listening=port))


class _Run:
    def __init__(self, plan: LocalPlan, crew: _Crew, outside: Channel) -> None:
        self._plan = plan
        self._crew = crew
        self._outside = outside
        self._family = Family()
        self._clock = SystemClock(plan.time_scale)
        self._log = EventLog(plan.events_dir, "launcher", "0", self._clock)
        self._troubles: list[str] = []

    async def see_through(self) -> None:
        for child in (self._crew.server, self._crew.emulator, self._crew.nursery):
            self._family.adopt(child)
        run = asyncio.create_task(self._start_and_wait())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, run.cancel)
        try:
            with failures_told(self._log_failure):
                await run
        finally:
            await self._clean_up()

    async def _start_and_wait(self) -> None:
        plan, family, crew = self._plan, self._family, self._crew
        warm = await self._message(crew.nursery, "warm")
        config = plan.server_of(_models(warm))
        # Its address is there when the links are.
        await self._message(crew.emulator, "links")
        self._phase("links_ready")
        crew.server.channel.send(config=config.model_dump_json())
        await self._message(crew.server, "listening")
        crew.nursery.channel.send(fork=True)
        await self._message(crew.nursery, "forked")
        self._phase("agents_forked")
        async with (
            local_channel(plan.operator_socket) as operator,
            local_channel(plan.radio_socket) as radio,
        ):
            stub = pb_grpc.OperatorStub(operator)
            troubles = asyncio.create_task(self._listen_to_nursery())
            try:
                await family.unless_one_dies(self._all_joined(stub))
                self._phase("all_joined")
                await family.unless_one_dies(self._begin(stub, radio))
                # Agents hear from the server itself that the run is over; the nursery ends with
                # the last of them, which may be before this process has heard.
                await family.unless_one_dies(self._over(stub), may_end=("server", "nursery"))
                crew.nursery.channel.send(end=True)
                await family.unless_one_dies(self._server_leaves(), may_end=("server", "nursery"))
            finally:
                troubles.cancel()

    async def _message(self, child: Child, key: str) -> Message:
        message = await self._family.unless_one_dies(child.channel.receive_async())
        if message is not None and "failed" in message:
            raise FadelabError(ExitCode(int(str(message["code"]))), str(message["failed"]))
        if message is None or key not in message:
            # It is ending without a word: its exit code is on its way.
            await self._family.unless_one_dies(self._family.ended(child))
        assert message is not None
        return message

    async def _all_joined(self, stub: "pb_grpc.OperatorAsyncStub") -> None:
        count = self._plan.experiment.devices.count
        await all_joined(stub, count, 30.0 + 0.05 * count, lambda: bool(self._troubles))
        if self._troubles:
            raise FadelabError(ExitCode.COMPONENT_FAILED, self._troubles[0])

    async def _begin(self, stub: "pb_grpc.OperatorAsyncStub", radio: grpc.aio.Channel) -> None:
        start_mono_s = await give_start(stub, radio, self._plan.time_scale)
        self._log.set_start(start_mono_s)
        self._phase("started")

    async def _over(self, stub: "pb_grpc.OperatorAsyncStub") -> None:
        if await over(stub):
            self._phase("over")

    async def _server_leaves(self) -> None:
        """Wait for the server's end, which comes when the validator has caught up."""
        try:
            await asyncio.wait_for(self._family.ended(self._crew.server), _VALIDATOR_GRACE_S)
        except TimeoutError:
            raise FadelabError(
                ExitCode.COMPONENT_FAILED,
                f"the server was still there {_VALIDATOR_GRACE_S:.0f} s after the end of the run",
            ) from None

    async def _listen_to_nursery(self) -> None:
        while (message := await self._crew.nursery.channel.receive_async()) is not None:
            if "agent_ended" in message:
                trouble = f"{message['agent_ended']} ended early: {message['how']}"
                self._troubles.append(trouble)
                self._log.write("agent_ended_early", who=str(message["agent_ended"]), how=trouble)

    def _log_failure(self, error: FadelabError) -> None:
        self._log.write("run_failed", reason=str(error), code=int(error.code))

    def _phase(self, name: str) -> None:
        since_s = time.monotonic() - self._plan.command_mono_s
        self._log.write("phase", name=name, since_command_s=round(since_s, 4))
        self._outside.send(phase=name, since_command_s=since_s)

    async def _clean_up(self) -> None:
        """End what still runs; the emulator last, so that it counts every byte."""
        crew, family = self._crew, self._family
        for_agents_s = _GRACE_S + grace_s(self._plan.experiment.devices.count)
        await asyncio.gather(
            family.end(crew.server, grace_s=_GRACE_S),
            family.end(crew.nursery, grace_s=for_agents_s),
        )
        await family.end(crew.emulator, grace_s=_EMULATOR_GRACE_S)
        self._log.close()
