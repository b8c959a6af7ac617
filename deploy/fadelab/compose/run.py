"""One run in containers from the outside: launch, show, wait, take down, sum up, report."""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from fadelab.compose.command import ComposeCommand
from fadelab.compose.crew import Crew
from fadelab.compose.leftovers import owner_labels, remove_leftovers
from fadelab.compose.services import EMULATOR, SERVER, VALIDATOR, Testbed, agent_name
from fadelab.compose.write import Shared, give_away, write_testbed
from fadelab.conduct import all_joined, failures_told, give_start, local_channel, over
from fadelab.emulate.engine import DockerEngine
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import Experiment
from fadelab.follow import Finished, Observer, finish, watch_emulator, watch_server
from fadelab.local.children import exit_code_of
from fadelab.local.launch import sockets_dir, write_json
from fadelab.local.nursery import grace_s
from fadelab.local.plan import RunPlan, draw_run_id
from fadelab.manifest import Deployment, build_manifest
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog, read_events

_LINKS_S = 120.0
"""From the containers' start to the emulator's first answer."""
_JOIN_S, _JOIN_S_PER_AGENT = 120.0, 5.0
"""Every agent has to import torch, all at once."""
_SERVER_GRACE_S = 45.0
_EMULATOR_GRACE_S = 30.0
_REMEDY = "start one, or set DOCKER_HOST"


class Docker:
    """What containers need of a machine; looked for before a run directory is made.

    Raises:
        FadelabError: ENVIRONMENT, if there is no engine, it is on another machine, or there is no
            compose command.

    """

    def __init__(self) -> None:
        host = os.environ.get("DOCKER_HOST", "")
        if host and not host.startswith("unix://"):
            raise FadelabError(
                ExitCode.ENVIRONMENT,
                f"DOCKER_HOST is {host}, but links are made beside the containers: name an engine "
                "of this machine, such as unix:///var/run/docker.sock",
            )
        self.engine = DockerEngine(_REMEDY)
        self.compose = ComposeCommand()

    def remove_leftovers(self) -> list[str]:
        """Remove containers of killed launchers; return what that was."""
        return remove_leftovers(self.engine)


def run_in_containers(
    experiment: Experiment,
    docker: Docker,
    run_dir: Path,
    observer: Observer,
    *,
    tag: str,
    command_mono_s: float,
) -> Finished:
    """Run an experiment in containers of this machine and leave everything in ``run_dir``.

    Args:
        experiment: what to run.
        docker: the engine and the compose command.
        run_dir: an empty folder.
        observer: sees the run while it goes on.
        tag: of the images, which must be there.
        command_mono_s: when the command was given.

    """
    with sockets_dir() as folder:
        # The folder itself stays the user's own: whoever removes what is left looks at that.
        sockets = folder / "shared"
        plan = RunPlan(
            experiment=experiment,
            run_dir=run_dir,
            sockets_dir=sockets,
            data_dir=experiment.first.task.data_dir.absolute(),
            run_id=draw_run_id(),
        )
        manifest = build_manifest(
            plan,
            Deployment.COMPOSE,
            command_mono_s=command_mono_s,
            backend=experiment.radio.backend,
        )
        write_json(run_dir / "manifest.json", manifest)
        failure = None
        with _shared(run_dir, sockets):
            try:
                labels = owner_labels(folder)
                shared = Shared(run_id=plan.run_id, out=run_dir, sockets=sockets, labels=labels)
                testbed = write_testbed(experiment, run_dir / "compose", tag, shared)
                run = _Run(plan, testbed, docker, observer, command_mono_s)
                asyncio.run(run.see_through())
            except Exception as error:
                code = exit_code_of(error)
                if code is None:
                    raise
                failure = FadelabError(code, str(error))
                write_json(run_dir / "manifest.json", {**manifest, "failure": str(failure)})
        shutil.rmtree(plan.state_dir, ignore_errors=True)
    return Finished(run_dir, finish(run_dir), failure)


@contextlib.contextmanager
def _shared(run_dir: Path, sockets: Path) -> Iterator[None]:
    """Let containers write to these folders; afterwards the record is the user's own."""
    own = (os.geteuid(), os.getegid())
    mode = run_dir.stat().st_mode
    for folder in (run_dir, sockets, run_dir / "state"):
        give_away(folder)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            for path in (run_dir, *run_dir.rglob("*")):
                os.chown(path, *own, follow_symlinks=False)
        run_dir.chmod(mode)


class _Run:
    def __init__(
        self,
        plan: RunPlan,
        testbed: Testbed,
        docker: Docker,
        observer: Observer,
        command_mono_s: float,
    ) -> None:
        self._plan = plan
        self._testbed = testbed
        self._docker = docker
        self._observer = observer
        self._command_mono_s = command_mono_s
        self._agents = [agent_name(device) for device in range(testbed.agents)]
        self._log = EventLog(plan.events_dir, "launcher", "0", SystemClock(plan.time_scale))
        self._impatient = asyncio.Event()

    async def see_through(self) -> None:
        """Start the containers, see the run to its end, leave none of them.

        Raises:
            FadelabError: if a container failed, not every device joined, or somebody interrupted.

        """
        crew = Crew(self._docker.engine, f"{self._plan.run_id:08x}", self._note_restart)
        work = asyncio.create_task(self._work(crew))
        loop = asyncio.get_running_loop()

        def stop() -> None:
            if work.done() or work.cancelling():
                self._impatient.set()
            work.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        try:
            with failures_told(self._log_failure):
                await work
        finally:
            await self._clean_up(crew)

    async def _work(self, crew: Crew) -> None:
        await self._docker.compose.up(
            self._plan.run_dir / "compose" / "compose.yaml", self._testbed.project
        )
        self._phase("agents_forked")
        async with (
            local_channel(self._plan.operator_socket) as operator,
            local_channel(self._plan.radio_socket) as radio,
        ):
            stub = pb_grpc.OperatorStub(operator)
            await crew.unless_one_dies(_answers(radio))
            self._links_ready()
            count = self._testbed.agents
            patience_s = _JOIN_S + _JOIN_S_PER_AGENT * count
            await crew.unless_one_dies(all_joined(stub, count, patience_s))
            self._phase("all_joined")
            start_mono_s = await crew.unless_one_dies(
                give_start(stub, radio, self._plan.time_scale)
            )
            self._log.set_start(start_mono_s)
            crew.assembling = False
            self._phase("started")
            watching = asyncio.create_task(watch_emulator(self._plan, self._observer))
            try:
                await crew.unless_one_dies(self._over(crew, stub), may_end=(SERVER,))
                self._phase("over")
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        await crew.unless_one_dies(self._all_leave(crew), may_end=(SERVER,))

    async def _over(self, crew: Crew, stub: "pb_grpc.OperatorAsyncStub") -> None:
        """Wait for the end of the run, under whichever server that is."""
        while True:
            watching = asyncio.create_task(watch_server(self._plan, self._observer))
            try:
                await over(stub)
            except grpc.aio.AioRpcError:
                if not await crew.server_is_back():
                    return
            else:
                return
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def _all_leave(self, crew: Crew) -> None:
        """Wait until the validator has caught up, the server has ended, and agents have left."""
        if not await crew.until(lambda: SERVER in crew.ended, _SERVER_GRACE_S):
            raise FadelabError(
                ExitCode.COMPONENT_FAILED,
                f"the server was still there {_SERVER_GRACE_S:.0f} s after the end of the run",
            )
        others = {*self._agents, VALIDATOR}
        await crew.until(lambda: others <= crew.ended.keys(), grace_s(len(others)))

    async def _clean_up(self, crew: Crew) -> None:
        """End what still runs; the emulator last, so that it counts every byte."""
        cleaning = asyncio.create_task(self._end_in_order(crew))
        hurrying = asyncio.create_task(self._impatient.wait())
        await asyncio.wait((cleaning, hurrying), return_when=asyncio.FIRST_COMPLETED)
        cleaning.cancel()
        hurrying.cancel()
        await asyncio.gather(cleaning, hurrying, return_exceptions=True)
        await crew.remove(self._plan.run_dir / "compose" / "logs")
        crew.close()
        self._log.close()

    async def _end_in_order(self, crew: Crew) -> None:
        others = [SERVER, VALIDATOR, *self._agents]
        if not crew.assembling:
            # Before they are asked to: after that, ends say nothing about the run.
            for who, how in crew.troubles([VALIDATOR, *self._agents]).items():
                self._log.write("agent_ended_early", who=who, how=how)
        await crew.end(others, grace_s=grace_s(len(others)))
        await crew.end([EMULATOR], grace_s=_EMULATOR_GRACE_S)

    def _links_ready(self) -> None:
        ready = [
            event
            for event in read_events(self._plan.events_dir / "emulator-0.jsonl")
            if event["event"] == "links_ready"
        ]
        self._observer.links(str(ready[-1]["variant"]), str(ready[-1]["why"]))
        self._phase("links_ready")

    def _note_restart(self, service: str) -> None:
        self._log.write("container_restarted", who=service)

    def _log_failure(self, error: FadelabError) -> None:
        self._log.write("run_failed", reason=str(error), code=int(error.code))

    def _phase(self, name: str) -> None:
        since_s = time.monotonic() - self._command_mono_s
        self._log.write("phase", name=name, since_command_s=round(since_s, 4))
        self._observer.phase(name, since_s)


async def _answers(radio: grpc.aio.Channel) -> None:
    """Wait for the emulator, which answers when its links are made and measured."""
    try:
        await asyncio.wait_for(radio.channel_ready(), _LINKS_S)
    except TimeoutError:
        raise FadelabError(
            ExitCode.COMPONENT_FAILED, f"the emulator did not answer within {_LINKS_S:.0f} s"
        ) from None
