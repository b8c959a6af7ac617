"""One run on boards from its beginning to its report: server here, agents and link helpers there."""

import asyncio
import contextlib
import shlex
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Coroutine
from pathlib import Path

import grpc

from fadelab.boards.clock_offset import ClockOffset, measure_offset
from fadelab.boards.collect import Collected, collect_board, merge
from fadelab.boards.facts import ask_facts, problems
from fadelab.boards.files import Spot, board_files, check_fit
from fadelab.boards.here import start_server
from fadelab.boards.inventory import EmulatedLink, Inventory
from fadelab.boards.processes import BoardProcess
from fadelab.boards.push import send_files
from fadelab.boards.seat import Seat
from fadelab.boards.ssh import Board, BoardError, Fleet
from fadelab.boards.waiting import serving, unless_ended
from fadelab.conduct import all_joined, local_channel
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import Experiment
from fadelab.follow import Finished, Observer, finish
from fadelab.local.launch import sockets_dir, write_json
from fadelab.local.plan import LinksOfRun, LocalPlan, draw_run_id
from fadelab.manifest import Deployment, build_manifest
from fadelab_emulation.backends.choice import Choice, Variant
from fadelab_emulation.window import BackendChoice
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto import radio_pb2, radio_pb2_grpc
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog

# Between the last join and time zero: the announcement crosses SSH to every board.
_LEAD_S = 1.5
_JOIN_S = 300.0
"""Boards take their time to import torch."""
_FAREWELL_S = 30.0
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
        real = [
            device
            for device, board in enumerate(inventory.boards)
            if not isinstance(inventory.profile(board).link, EmulatedLink)
        ]
        manifest = {
            **build_manifest(
                plan,
                Deployment.BOARDS,
                command_mono_s=command_mono_s,
                backend=BackendChoice.LITE,
            ),
            "boards": [board.name for board in inventory.boards],
            "real_links": real,
        }
        if len(real) == len(inventory.boards):
            manifest["backend"] = None
        write_json(run_dir / "manifest.json", manifest)
        failure = asyncio.run(_Run(plan, inventory, sockets, observer, tell).see_through())
        if failure is not None:
            write_json(run_dir / "manifest.json", {**manifest, "failure": str(failure)})
    return Finished(run_dir, finish(run_dir), failure)


def _plan(experiment: Experiment, run_dir: Path, sockets: Path, command_mono_s: float) -> LocalPlan:
    choice = Choice(Variant.LITE_CBPF, "boards' interfaces are shaped by HTB and an IFB")
    return LocalPlan(
        experiment=experiment,
        run_dir=run_dir,
        sockets_dir=sockets,
        data_dir=experiment.first.task.data_dir.absolute(),
        run_id=draw_run_id(),
        command_mono_s=command_mono_s,
        links=LinksOfRun(command_mono_s, frozenset(), choice),
    )


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
        self._seats: list[Seat] = []
        self._links: dict[int, radio_pb2.LinkFidelity] = {}
        self._lateness_ms: dict[int, float] = {}
        self._begun = False
        self._clock = SystemClock(plan.time_scale)
        self._log = EventLog(plan.events_dir, "launcher", "0", self._clock)

    async def see_through(self) -> FadelabError | None:
        """Return what ended the run before its time, if anything did."""
        task = asyncio.create_task(self._everything())
        loop = asyncio.get_running_loop()

        def stop() -> None:
            # A second Ctrl-C must not leave half of a board's link behind.
            for number in _STOP_SIGNALS:
                loop.add_signal_handler(number, lambda: self._tell("cleaning up, a moment"))
            task.cancel()

        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, stop)
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
        stop()
        try:
            await self._end_and_collect()
        except FadelabError as error:
            failure = failure or error
        self._log.close()
        return failure

    async def _everything(self) -> None:
        await self._take_seats()
        async with contextlib.AsyncExitStack() as stack:
            server = await start_server(self._plan, self._inventory, stack)
            operator = await stack.enter_async_context(local_channel(self._plan.operator_socket))
            stub = pb_grpc.OperatorStub(operator)
            watching = [asyncio.create_task(self._watch_server(server))]
            try:
                await unless_ended(watching, serving(operator, "the server"))
                await self._each(Seat.begin_link)
                self._phase("links_ready")
                await self._each(Seat.begin_agent)
                self._phase("agents_forked")
                # Until now a board that fails ends the run; from the start on the others go on.
                watching += [
                    asyncio.create_task(self._watch_seat(seat, process))
                    for seat in self._seats
                    for process in (seat.link, seat.agent)
                    if process is not None
                ]
                await unless_ended(watching, self._all_joined(stub))
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

    async def _take_seat(self, board: Board) -> Seat:
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
        return Seat(board, facts, spot, [await measure_offset(board)])

    def _note_offset(self, seat: Seat, offset: ClockOffset) -> None:
        self._log.write(
            "clock_offset", device=seat.board.device, board=seat.board.name, **offset.as_event()
        )

    async def _each(self, work: Callable[[Seat], Coroutine[None, None, None]]) -> None:
        results = await asyncio.gather(*map(work, self._seats), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _all_joined(self, stub: "pb_grpc.OperatorAsyncStub") -> None:
        server = self._inventory.server
        hint = f": can they reach {server.address}:{server.port}?"
        await all_joined(stub, len(self._seats), _JOIN_S, what="boards", hint=hint)

    async def _begin(self, stub: "pb_grpc.OperatorAsyncStub") -> None:
        begin_mono_s = time.monotonic() + _LEAD_S
        for seat in self._seats:
            await seat.begin_timeline(begin_mono_s)
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

        await unless_ended([server], over())

    async def _show_links(self, seat: Seat) -> None:
        assert seat.radio is not None
        stub = radio_pb2_grpc.EmulatorStub(seat.radio)
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for report in stub.WatchFidelity(radio_pb2.WatchFidelityRequest()):
                self._observer.fidelity(self._all_links(seat, report))

    def _all_links(self, seat: Seat, report: radio_pb2.FidelityReport) -> radio_pb2.FidelityReport:
        """Return the report with every board's link as its own link helper counts it."""
        own = [link for link in report.links if link.device == seat.board.device]
        self._links.update({link.device: link for link in own})
        self._lateness_ms[seat.board.device] = report.lateness_p99_ms
        return radio_pb2.FidelityReport(
            t_s=report.t_s,
            lateness_p99_ms=max(self._lateness_ms.values()),
            links=[self._links[device] for device in sorted(self._links)],
        )

    async def _watch_server(self, server: Process) -> None:
        code = await server.wait()
        if code != 0:
            words = " ".join((self._plan.run_dir / "server.log").read_text().split())[-400:]
            raise FadelabError(
                ExitCode.COMPONENT_FAILED, f"the server ended with exit code {code}: {words}"
            )

    async def _watch_seat(self, seat: Seat, process: BoardProcess) -> None:
        """Hear of a process's end: before the start it ends the run, afterwards the others go on."""
        how = await process.ended()
        if not how or seat.trouble:
            return
        seat.trouble = how
        if not self._begun:
            raise BoardError(how)
        self._log.write("agent_ended_early", who=f"agent {seat.board.device}", how=how)
        self._tell(f"{how}; the others go on")

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

    async def _collect(self, seat: Seat) -> Collected | None:
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
