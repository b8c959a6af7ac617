"""One run on boards from its beginning to its report: server here, agents and link helpers there."""

import asyncio
import contextlib
import shlex
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fadelab.boards.clock_offset import ClockOffset, measure_offset
from fadelab.boards.collect import Collected, collect_board, merge
from fadelab.boards.facts import BoardFacts, ask_facts, problems
from fadelab.boards.files import Spot, board_files, check_fit, server_file
from fadelab.boards.inventory import EmulatedLink, Inventory
from fadelab.boards.processes import BoardProcess
from fadelab.boards.push import send_files
from fadelab.boards.ssh import Board, BoardError, Fleet
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import Experiment
from fadelab.local.launch import sockets_dir, write_json
from fadelab.local.plan import LinksOfRun, LocalPlan, draw_run_id
from fadelab.local.run import Finished, Observer, finish
from fadelab.manifest import build_manifest
from fadelab_agent.workbench import Workbench
from fadelab_emulation.backends.choice import Choice, Variant
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto import radio_pb2, radio_pb2_grpc
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog
from fadelab_proto.wire import channel_options

# Between the last join and time zero: the announcement crosses SSH to every board.
_LEAD_S = 1.5
_READY_S = 60.0
_JOIN_S = 300.0
"""Boards take their time to import torch."""
_FAREWELL_S = 30.0


def run_on_boards(
    experiment: Experiment,
    inventory: Inventory,
    run_dir: Path,
    observer: Observer,
    tell: Callable[[str], None],
) -> Finished:
    """Run an experiment on the boards of an inventory and leave everything in ``run_dir``.

    Raises:
        FadelabError: USAGE, if the experiment does not fit the boards; nothing was begun.

    """
    command_mono_s = time.monotonic()
    check_fit(experiment, inventory)
    with sockets_dir() as sockets:
        plan = _plan(experiment, run_dir, sockets, command_mono_s)
        manifest = {
            **build_manifest(plan),
            "deployment": "boards",
            "boards": [board.name for board in inventory.boards],
            "real_links": [
                device
                for device, board in enumerate(inventory.boards)
                if not isinstance(inventory.profile(board).link, EmulatedLink)
            ],
        }
        write_json(run_dir / "manifest.json", manifest)
        failure = asyncio.run(_Run(plan, inventory, sockets, observer, tell).see_through())
        if failure is not None:
            write_json(run_dir / "manifest.json", {**manifest, "failure": str(failure)})
    return Finished(finish(run_dir), failure)


def _plan(experiment: Experiment, run_dir: Path, sockets: Path, command_mono_s: float) -> LocalPlan:
    choice = Choice(Variant.LITE_CBPF, "boards' interfaces are shaped by HTB and an IFB")
    return LocalPlan(
        experiment=experiment,
        run_dir=run_dir,
        sockets_dir=sockets,
        data_dir=experiment.task.data_dir.absolute(),
        run_id=draw_run_id(),
        command_mono_s=command_mono_s,
        links=LinksOfRun(command_mono_s, frozenset(), choice),
    )


@dataclass(slots=True)
class _Seat:
    """A board that takes part."""

    board: Board
    facts: BoardFacts
    spot: Spot
    offsets: list[ClockOffset]
    link: BoardProcess | None = None
    agent: BoardProcess | None = None
    radio: grpc.aio.Channel | None = None
    trouble: str = ""
    """Why it is not to be reckoned with any more."""

    @property
    def emulated(self) -> bool:
        """Whether a link helper shapes its interface."""
        return isinstance(self.board.profile.link, EmulatedLink)


class _Run:
    def __init__(
        self,
        plan: LocalPlan,
        inventory: Inventory,
        sockets: Path,
        observer: Observer,
        tell: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._inventory = inventory
        self._fleet = Fleet(inventory, sockets)
        self._observer = observer
        self._tell = tell
        self._seats: list[_Seat] = []
        self._begun = False
        self._clock = SystemClock(plan.time_scale)
        self._log = EventLog(plan.events_dir, "launcher", "0", self._clock)

    async def see_through(self) -> FadelabError | None:
        """Return what ended the run before its time, if anything did."""
        task = asyncio.create_task(self._everything())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        failure: FadelabError | None = None
        try:
            await task
        except asyncio.CancelledError:
            failure = FadelabError(ExitCode.INTERRUPTED, "interrupted before the run was over")
        except BoardError as error:
            failure = FadelabError(ExitCode.COMPONENT_FAILED, str(error))
        except FadelabError as error:
            failure = error
        except grpc.aio.AioRpcError as error:
            failure = FadelabError(
                ExitCode.COMPONENT_FAILED, f"a component stopped answering: {error.details()}"
            )
        if failure is not None:
            self._log.write("run_failed", reason=str(failure), code=int(failure.code))
        # A second Ctrl-C must not leave half of a board's link behind.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: self._tell("cleaning up, a moment"))
        try:
            await self._end_and_collect()
        except FadelabError as error:
            failure = failure or error
        self._log.close()
        return failure

    async def _everything(self) -> None:
        await self._take_seats()
        async with contextlib.AsyncExitStack() as stack:
            server = await self._start_server(stack)
            options = channel_options()
            operator = await stack.enter_async_context(
                grpc.aio.insecure_channel(f"unix:{self._plan.operator_socket}", options=options)
            )
            stub = pb_grpc.OperatorStub(operator)
            watching = [asyncio.create_task(self._watch_server(server))]
            try:
                await self._unless_ended(watching, _serving(operator, "the server"))
                await self._each(self._begin_link)
                self._phase("links_ready")
                await self._each(self._begin_agent)
                self._phase("agents_forked")
                # Until now a board that fails ends the run; from the start on the others go on.
                watching += [
                    asyncio.create_task(self._watch_seat(seat, process))
                    for seat in self._seats
                    for process in (seat.link, seat.agent)
                    if process is not None
                ]
                await self._unless_ended(watching, self._all_joined(stub))
                self._phase("all_joined")
                await self._begin(stub)
                views = [asyncio.create_task(self._show_links(s)) for s in self._seats if s.radio]
                watching += views
                await self._until_over(stub, watching[0])
                self._phase("over")
                await self._farewell(server)
            finally:
                for task in watching:
                    task.cancel()
                await asyncio.gather(*watching, return_exceptions=True)

    # -- before the start ------------------------------------------------------------------------

    async def _take_seats(self) -> None:
        failures = await self._fleet.connect()
        found = [str(failure) for failure in failures if failure is not None]
        if found:
            raise BoardError("; ".join(found))
        self._seats = list(await asyncio.gather(*map(self._take_seat, self._fleet.boards)))
        for seat in self._seats:
            self._note_offset(seat, seat.offsets[-1])

    async def _take_seat(self, board: Board) -> _Seat:
        facts = await ask_facts(board)
        found = problems(board, facts)
        if not facts.installed:
            found.append("Fadelab is not installed there: `fadelab boards push`")
        if found:
            raise BoardError(f"the board {board.name} is not fit: {'; '.join(found)}")
        spot = Spot.of(facts, self._plan.run_id)
        run, current = shlex.quote(str(spot.run)), shlex.quote(f"{spot.installed}/current")
        await board.must(f"umask 077; mkdir -p {run} && ln -sfn {run} {current}")
        files = board_files(self._plan, self._inventory, board, spot)
        await send_files(board, str(spot.run), files)
        return _Seat(board, facts, spot, [await measure_offset(board)])

    def _note_offset(self, seat: _Seat, offset: ClockOffset) -> None:
        self._log.write(
            "clock_offset", device=seat.board.device, board=seat.board.name, **offset.as_event()
        )

    async def _start_server(self, stack: contextlib.AsyncExitStack) -> Process:
        plan = self._plan
        bench = await asyncio.to_thread(Workbench, plan.workbench(), plan.data_dir)
        plan.initial_path.parent.mkdir(parents=True, exist_ok=True)
        np.save(plan.initial_path, bench.initial, allow_pickle=False)
        config = plan.server(
            dimension=bench.model.dimension, layout_hash=bench.layout_hash, layers=bench.layers
        )
        config = server_file(plan, self._inventory, config)
        path = plan.run_dir / "config" / "server.json"
        path.parent.mkdir()
        path.write_text(config.model_dump_json(indent=2) + "\n")
        validator = path.with_name("validator.json")
        write_json(
            validator,
            {
                "operator_socket": str(plan.operator_socket),
                "events_dir": str(plan.events_dir),
                "time_scale": plan.time_scale,
                "work": plan.workbench().model_dump(mode="json"),
            },
        )
        server = await self._start_here(stack, "server", path)
        await self._start_here(stack, "validator", validator)
        return server

    async def _start_here(
        self, stack: contextlib.AsyncExitStack, verb: str, config: Path
    ) -> Process:
        # What libraries have to say goes to a file: the terminal shows the run.
        log = stack.enter_context((self._plan.run_dir / f"{verb}.log").open("wb"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fadelab", verb, str(config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        stack.push_async_callback(_end_here, process)
        return process

    async def _each(self, work: Callable[[_Seat], Coroutine[None, None, None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for seat in self._seats:
                group.create_task(work(seat))

    async def _begin_link(self, seat: _Seat) -> None:
        if not seat.emulated:
            return
        fadelab = shlex.quote(f"{seat.spot.installed}/venv/bin/fadelab")
        config = shlex.quote(f"{seat.spot.run}/link.yaml")
        seat.link = await BoardProcess.begin(
            seat.board,
            seat.facts,
            unit="fadelab-link.service",
            command=f"umask 0; exec {fadelab} emulate {config}",
            root=True,
        )
        local = await seat.board.forward(str(seat.spot.radio_socket))
        seat.radio = grpc.aio.insecure_channel(f"unix:{local}", options=channel_options())
        what = f"the link helper of the board {seat.board.name}"
        await _unless_over(seat.link, _serving(seat.radio, what))

    async def _begin_agent(self, seat: _Seat) -> None:
        fadelab = shlex.quote(f"{seat.spot.installed}/venv/bin/fadelab")
        config = shlex.quote(f"{seat.spot.run}/agent.json")
        seat.agent = await BoardProcess.begin(
            seat.board,
            seat.facts,
            unit="fadelab-agent.service",
            command=f"exec {fadelab} agent {config}",
            root=False,
        )

    async def _all_joined(self, stub: "pb_grpc.OperatorAsyncStub") -> None:
        count, joined = len(self._seats), 0

        async def wait() -> None:
            nonlocal joined
            async for status in stub.WatchStatus(pb.WatchStatusRequest(), wait_for_ready=True):
                joined = status.joined
                if joined == count:
                    return

        try:
            await asyncio.wait_for(wait(), _JOIN_S)
        except TimeoutError:
            raise FadelabError(
                ExitCode.COMPONENT_FAILED,
                f"only {joined} of {count} boards joined within {_JOIN_S:g} s: can they reach "
                f"{self._inventory.server.address}:{self._inventory.server.port}?",
            ) from None

    async def _begin(self, stub: "pb_grpc.OperatorAsyncStub") -> None:
        begin_mono_s = time.monotonic() + _LEAD_S
        for seat in self._seats:
            if seat.radio is not None:
                # The same instant, by the board's own clock.
                there = begin_mono_s + seat.offsets[-1].offset_s
                request = radio_pb2.BeginRequest(start_mono_s=there)
                await radio_pb2_grpc.EmulatorStub(seat.radio).Begin(request)
        start_mono_s = begin_mono_s * self._plan.time_scale
        await stub.Start(pb.StartRequest(start_mono_s=start_mono_s))
        self._begun = True
        self._log.set_start(start_mono_s)
        self._phase("started")

    # -- while it goes on ------------------------------------------------------------------------

    async def _until_over(
        self, stub: "pb_grpc.OperatorAsyncStub", server: "asyncio.Task[None]"
    ) -> None:
        async def over() -> None:
            async for status in stub.WatchStatus(pb.WatchStatusRequest()):
                self._observer.status(status)
                if status.stopped:
                    return

        await self._unless_ended([server], over())

    async def _show_links(self, seat: _Seat) -> None:
        assert seat.radio is not None
        stub = radio_pb2_grpc.EmulatorStub(seat.radio)
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for report in stub.WatchFidelity(radio_pb2.WatchFidelityRequest()):
                self._observer.fidelity(report)

    async def _watch_server(self, server: Process) -> None:
        code = await server.wait()
        if code != 0:
            words = " ".join((self._plan.run_dir / "server.log").read_text().split())[-400:]
            raise FadelabError(
                ExitCode.COMPONENT_FAILED, f"the server ended with exit code {code}: {words}"
            )

    async def _watch_seat(self, seat: _Seat, process: BoardProcess) -> None:
        """Hear of a process's end: before the start it ends the run, afterwards the others go on."""
        how = await process.ended()
        if not how or seat.trouble:
            return
        seat.trouble = how
        if not self._begun:
            raise BoardError(how)
        self._log.write("agent_ended_early", who=f"agent {seat.board.device}", how=how)
        self._tell(f"{how}; the others go on")

    async def _unless_ended(
        self, watching: "list[asyncio.Task[None]]", work: Coroutine[None, None, None]
    ) -> None:
        """Wait for ``work``; what one of the watched raises is raised at once."""
        task = asyncio.create_task(work)
        waiting = set(watching)
        try:
            while not task.done():
                done, _ = await asyncio.wait({task, *waiting}, return_when=asyncio.FIRST_COMPLETED)
                for one in done & waiting:
                    one.result()
                waiting -= done
            task.result()
        finally:
            task.cancel()

    def _phase(self, name: str) -> None:
        since_s = time.monotonic() - self._plan.command_mono_s
        self._log.write("phase", name=name, since_command_s=round(since_s, 4))
        self._observer.phase(name, since_s)

    # -- the end ---------------------------------------------------------------------------------

    async def _farewell(self, server: Process) -> None:
        """Wait until agents have heard that the run is over and the validator has caught up."""
        agents = [seat.agent.ended() for seat in self._seats if seat.agent is not None]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*agents, server.wait()), _FAREWELL_S)

    async def _end_and_collect(self) -> None:
        """End what still runs, link helpers last, and fetch what boards have written."""
        async with self._fleet:
            for processes in (
                [seat.agent for seat in self._seats if seat.agent is not None],
                [seat.link for seat in self._seats if seat.link is not None],
            ):
                await asyncio.gather(*(process.end() for process in processes))
            for seat in self._seats:
                if seat.radio is not None:
                    await seat.radio.close()
            found = await asyncio.gather(*map(self._collect, self._seats))
        merge(self._plan.run_dir, [one for one in found if one is not None])

    async def _collect(self, seat: _Seat) -> Collected | None:
        board = seat.board
        try:
            offset = await measure_offset(board)
            self._note_offset(seat, offset)
            seat.offsets.append(offset)
            folder = self._plan.run_dir / "boards" / board.name
            await collect_board(board, str(seat.spot.run), folder)
            await board.must(f"rm -rf {shlex.quote(str(seat.spot.run))}")
        except BoardError as error:
            self._log.write("board_not_collected", device=board.device, reason=str(error))
            self._tell(f"{error}; what it has written stays there, `fadelab boards collect`")
            return None
        return Collected(board.device, folder, tuple(seat.offsets))


async def _serving(channel: grpc.aio.Channel, what: str) -> None:
    """Wait until somebody serves at a channel. Raises FadelabError."""
    stub = health_pb2_grpc.HealthStub(channel)
    try:
        await stub.Check(  # type: ignore[attr-defined]
            health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=_READY_S
        )
    except grpc.aio.AioRpcError as error:
        raise FadelabError(
            ExitCode.COMPONENT_FAILED, f"{what} does not answer: {error.code().name}"
        ) from None


async def _unless_over(process: BoardProcess, work: Coroutine[None, None, None]) -> None:
    """Wait for ``work``; BoardError if the process ends before."""
    task = asyncio.create_task(work)
    ended = asyncio.create_task(process.ended())
    try:
        await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise BoardError(ended.result() or f"{process.what} ended before it was of use")
        task.result()
    finally:
        for one in (task, ended):
            one.cancel()
        await asyncio.gather(task, ended, return_exceptions=True)


async def _end_here(process: Process) -> None:
    """End a process of this machine: ask, wait, insist."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _FAREWELL_S / 3)
    except TimeoutError:
        process.kill()
        await process.wait()
