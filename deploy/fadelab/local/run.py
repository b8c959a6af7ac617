"""One local run from the outside: launch, show, wait, sum up, report."""

import asyncio
import contextlib
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import Experiment
from fadelab.local.launch import Sandboxed, sockets_dir, write_json
from fadelab.local.plan import LinksOfRun, LocalPlan
from fadelab.local.supervisor import supervise
from fadelab.manifest import build_manifest
from fadelab.results.compute import compute_summary
from fadelab.results.manifest_links import complete_manifest
from fadelab.results.schema import Summary
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto import radio_pb2, radio_pb2_grpc
from fadelab_proto.wire import channel_options


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that has ended, well or not."""

    summary: Summary
    failure: FadelabError | None

    @property
    def exit_code(self) -> ExitCode:
        """The code that the command should end with."""
        if self.failure is not None:
            return self.failure.code
        return ExitCode.VALID if self.summary.valid else ExitCode.INVALID_RUN


class Observer(Protocol):
    """Whoever wants to see a run while it goes on."""

    def phase(self, name: str, since_command_s: float) -> None:
        """Hear that the run has come to a new phase."""
        ...

    def status(self, status: pb.ServerStatus) -> None:
        """Hear the server's news."""
        ...

    def fidelity(self, report: radio_pb2.FidelityReport) -> None:
        """Hear the emulator's news."""
        ...


def run_locally(
    experiment: Experiment, links: LinksOfRun, run_dir: Path, observer: Observer
) -> Finished:
    """Run an experiment on this machine and leave everything in ``run_dir``.

    Must be called from the main thread, before this process starts any other thread.
    """
    with sockets_dir() as sockets:
        plan = LocalPlan.create(experiment, links, run_dir, sockets)
        manifest = build_manifest(plan)
        write_json(run_dir / "manifest.json", manifest)
        run = Sandboxed("launcher", lambda channel: supervise(plan, channel))
        failure = None
        try:
            asyncio.run(_follow(run, plan, observer))
        finally:
            try:
                run.wait()
            except FadelabError as error:
                failure = error
                write_json(run_dir / "manifest.json", {**manifest, "failure": str(error)})
            shutil.rmtree(plan.state_dir, ignore_errors=True)
    summary = finish(run_dir)
    return Finished(summary, failure)


def finish(run_dir: Path) -> Summary:
    """Compute and write ``summary.json`` and ``report.html`` of a run directory."""
    # matplotlib takes half a second to import; only now is it needed.
    from fadelab.report.from_record import report_run  # noqa: PLC0415

    complete_manifest(run_dir)
    summary = compute_summary(run_dir)
    (run_dir / "summary.json").write_text(summary.model_dump_json(indent=2) + "\n")
    report_run(run_dir, summary)
    return summary


async def _follow(run: Sandboxed, plan: LocalPlan, observer: Observer) -> None:
    """Show the run until its processes have ended; pass Ctrl-C on, insist on the second."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(run.descriptor, ended.set)
    asked = False

    def stop() -> None:
        nonlocal asked
        run.stop(signal.SIGKILL if asked else signal.SIGTERM)
        asked = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    watchers = [
        asyncio.create_task(work)
        for work in (_messages(run, observer), _server(plan, observer), _emulator(plan, observer))
    ]
    await ended.wait()
    loop.remove_reader(run.descriptor)
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)


async def _messages(run: Sandboxed, observer: Observer) -> None:
    while (message := await run.channel.receive_async()) is not None:
        run.note(message)
        if "phase" in message:
            observer.phase(str(message["phase"]), float(str(message["since_command_s"])))


async def _server(plan: LocalPlan, observer: Observer) -> None:
    async with grpc.aio.insecure_channel(
        f"unix:{plan.operator_socket}", options=channel_options()
    ) as channel:
        with contextlib.suppress(grpc.aio.AioRpcError):
            stub = pb_grpc.OperatorStub(channel)
            async for status in stub.WatchStatus(pb.WatchStatusRequest(), wait_for_ready=True):
                observer.status(status)


async def _emulator(plan: LocalPlan, observer: Observer) -> None:
    async with grpc.aio.insecure_channel(
        f"unix:{plan.radio_socket}", options=channel_options()
    ) as channel:
        with contextlib.suppress(grpc.aio.AioRpcError):
            stub = radio_pb2_grpc.EmulatorStub(channel)
            request = radio_pb2.WatchFidelityRequest()
            async for report in stub.WatchFidelity(request, wait_for_ready=True):
                observer.fidelity(report)
