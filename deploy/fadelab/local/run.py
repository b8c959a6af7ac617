"""One local run from the outside: launch, show, wait, sum up, report."""

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path

import grpc
from rich.console import Console

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import Experiment
from fadelab.local.launch import Sandboxed, sockets_dir, write_json
from fadelab.local.plan import LocalPlan
from fadelab.local.supervisor import supervise
from fadelab.local.view import RunView
from fadelab.manifest import build_manifest
from fadelab.results.compute import compute_summary
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


def run_locally(experiment: Experiment, run_dir: Path, console: Console) -> Finished:
    """Run an experiment on this machine and leave everything in ``run_dir``.

    Must be called from the main thread, before this process starts any other thread.
    """
    with sockets_dir() as sockets:
        plan = LocalPlan.create(experiment, run_dir, sockets)
        manifest = build_manifest(plan)
        write_json(run_dir / "manifest.json", manifest)
        run = Sandboxed("launcher", lambda channel: supervise(plan, channel))
        failure = None
        try:
            with RunView(experiment, console) as view:
                asyncio.run(_follow(run, plan, view))
        finally:
            try:
                run.wait()
            except FadelabError as error:
                failure = error
                write_json(run_dir / "manifest.json", {**manifest, "failure": str(error)})
    summary = finish(run_dir)
    return Finished(summary, failure)


def finish(run_dir: Path) -> Summary:
    """Compute and write ``summary.json`` and ``report.html`` of a run directory."""
    # matplotlib takes half a second to import; only now is it needed.
    from fadelab.report.from_record import report_run  # noqa: PLC0415

    summary = compute_summary(run_dir)
    (run_dir / "summary.json").write_text(summary.model_dump_json(indent=2) + "\n")
    report_run(run_dir, summary)
    return summary


async def _follow(run: Sandboxed, plan: LocalPlan, view: RunView) -> None:
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
        for work in (_messages(run, view), _server(plan, view), _emulator(plan, view))
    ]
    await ended.wait()
    loop.remove_reader(run.descriptor)
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)


async def _messages(run: Sandboxed, view: RunView) -> None:
    while (message := await run.channel.receive_async()) is not None:
        run.note(message)
        if "phase" in message:
            view.phase(str(message["phase"]), float(str(message["since_command_s"])))


async def _server(plan: LocalPlan, view: RunView) -> None:
    async with grpc.aio.insecure_channel(
        f"unix:{plan.operator_socket}", options=channel_options()
    ) as channel:
        with contextlib.suppress(grpc.aio.AioRpcError):
            stub = pb_grpc.OperatorStub(channel)
            async for status in stub.WatchStatus(pb.WatchStatusRequest(), wait_for_ready=True):
                view.status(status)


async def _emulator(plan: LocalPlan, view: RunView) -> None:
    async with grpc.aio.insecure_channel(
        f"unix:{plan.radio_socket}", options=channel_options()
    ) as channel:
        with contextlib.suppress(grpc.aio.AioRpcError):
            stub = radio_pb2_grpc.EmulatorStub(channel)
            request = radio_pb2.WatchFidelityRequest()
            async for report in stub.WatchFidelity(request, wait_for_ready=True):
                view.fidelity(report)
