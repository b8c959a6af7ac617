"""Seeing a run while it goes on: what every deployment shows, over the two local sockets."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import grpc

from fadelab.conduct import local_channel
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.plan import RunPlan
from fadelab_proto import collector, radio_pb2, radio_pb2_grpc
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from fadelab.results.schema import Summary


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that has ended, well or not."""

    run_dir: Path
    summary: "Summary"
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

    def links(self, variant: str, why: str) -> None:
        """Hear what carries the links, and why."""
        ...

    def status(self, status: pb.ServerStatus) -> None:
        """Hear the server's news."""
        ...

    def fidelity(self, report: radio_pb2.FidelityReport) -> None:
        """Hear the emulator's news."""
        ...


def finish(run_dir: Path) -> "Summary":
    """Compute and write ``summary.json`` and ``report.html`` of a run directory."""
    with collector.importing():
        # They take a second to import, which no run has to wait for before it begins.
        from fadelab.report.from_record import report_run  # noqa: PLC0415
        from fadelab.results.compute import compute_summary  # noqa: PLC0415
        from fadelab.results.manifest_links import complete_manifest  # noqa: PLC0415

    complete_manifest(run_dir)
    summary = compute_summary(run_dir)
    (run_dir / "summary.json").write_text(summary.model_dump_json(indent=2) + "\n")
    report_run(run_dir, summary)
    return summary


async def watch_server(plan: RunPlan, observer: Observer) -> None:
    """Pass on the server's news until its stream ends."""
    async with local_channel(plan.operator_socket) as channel:
        with contextlib.suppress(grpc.aio.AioRpcError):
            stub = pb_grpc.OperatorStub(channel)
            async for status in stub.WatchStatus(pb.WatchStatusRequest(), wait_for_ready=True):
                observer.status(status)


async def watch_emulator(plan: RunPlan, observer: Observer) -> None:
    """Pass on the emulator's news until its stream ends."""
    async with local_channel(plan.radio_socket) as channel:
        with contextlib.suppress(grpc.aio.AioRpcError):
            stub = radio_pb2_grpc.EmulatorStub(channel)
            request = radio_pb2.WatchFidelityRequest()
            async for report in stub.WatchFidelity(request, wait_for_ready=True):
                observer.fidelity(report)
