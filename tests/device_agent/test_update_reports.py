"""Reports of updates from the device's side: what it does with each of the server's answers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from fadelab_agent.membership import Membership, RefusedError
from fadelab_agent.update_reports import Allotted, UpdateReports
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog, read_events
from fadelab_proto.wire import channel_options, server_options

GRANTED = pb.UpdateAllocation(
    status=pb.ALLOCATION_STATUS_GRANTED,
    power_w=0.05,
    rate_bps=1e6,
    upload_s=2.0,
    numbers={"coefficient": 0.5},
)
GIVEN = Allotted(0.05, 1e6, 2.0, {"coefficient": 0.5})


class Server(pb_grpc.FederationServicer):
    """Gives its answers one after the other; a status code breaks the call."""

    def __init__(self, answers: Sequence[pb.UpdateAllocation | grpc.StatusCode]) -> None:
        self._answers = list(answers)
        self.asked: list[pb.UpdateReport] = []

    async def ReportUpdate(self, request: pb.UpdateReport, context: Any) -> pb.UpdateAllocation:  # noqa: N802
        self.asked.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, grpc.StatusCode):
            await context.abort(answer, "broken")
        return cast("pb.UpdateAllocation", answer)


def reported(
    folder: Path, server: Server, scenario: Callable[[Awaitable[Allotted | None]], Awaitable[None]]
) -> None:
    async def main() -> None:
        grpc_server = grpc.aio.server(options=server_options())
        pb_grpc.add_FederationServicer_to_server(server, grpc_server)
        grpc_server.add_insecure_port(f"unix:{folder}/data")
        await grpc_server.start()
        clock = SystemClock()
        assignment = SimpleNamespace(session=7, task_index=0)
        membership = cast("Membership", SimpleNamespace(assignment=lambda task: assignment))
        with EventLog(folder, "agent", "0", clock) as log:
            async with grpc.aio.insecure_channel(
                f"unix:{folder}/data", options=channel_options()
            ) as channel:
                reports = UpdateReports(channel, membership, task="digits", clock=clock, log=log)
                await scenario(reports.allotted(update_id=3, base_version=2, numbers={"bits": 8.0}))
        await grpc_server.stop(None)

    asyncio.run(main())


def test_a_report_is_repeated_until_the_server_answers(tmp_path: Path) -> None:
    lost = pb.UpdateAllocation(status=pb.ALLOCATION_STATUS_REFUSED_SESSION)
    server = Server([grpc.StatusCode.UNAVAILABLE, lost, GRANTED])

    async def scenario(answer: Awaitable[Allotted | None]) -> None:
        assert await answer == GIVEN

    reported(tmp_path, server, scenario)
    assert len(server.asked) == 3
    assert all(dict(report.numbers) == {"bits": 8.0} for report in server.asked)
    assert {(report.session, report.update_id, report.base_version) for report in server.asked} == {
        (7, 3, 2)
    }
    names = [event["event"] for event in read_events(tmp_path / "agent-0.jsonl")]
    assert names == ["report_failed", "allotted"]


def test_silence_is_no_power_and_a_round_that_is_over_is_nothing(tmp_path: Path) -> None:
    silent = pb.UpdateAllocation(status=pb.ALLOCATION_STATUS_SILENT)

    async def is_silent(answer: Awaitable[Allotted | None]) -> None:
        assert await answer == Allotted(0.0, 0.0, 0.0, {})

    reported(tmp_path, Server([silent]), is_silent)
    over = pb.UpdateAllocation(status=pb.ALLOCATION_STATUS_ROUND_OVER)

    async def is_over(answer: Awaitable[Allotted | None]) -> None:
        assert await answer is None

    reported(tmp_path, Server([over]), is_over)


@pytest.mark.parametrize(
    "answer",
    [
        pb.UpdateAllocation(status=pb.ALLOCATION_STATUS_REFUSED_REPORT, reason="it lacks bits"),
        grpc.StatusCode.UNIMPLEMENTED,
    ],
)
def test_a_server_that_wants_no_reports_ends_the_agent(
    tmp_path: Path, answer: pb.UpdateAllocation | grpc.StatusCode
) -> None:
    async def scenario(asked: Awaitable[Allotted | None]) -> None:
        with pytest.raises(RefusedError, match=r"lacks bits|UNIMPLEMENTED"):
            await asked

    reported(tmp_path, Server([answer]), scenario)
