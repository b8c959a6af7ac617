"""A server that allocates: who has to report, what is refused, and what other servers answer."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tests.server.harness import (
    DIMENSION,
    FEDASYNC,
    FEDAVG,
    FakeClock,
    make_config,
    make_update,
    running,
)
from tests.server.test_server_roster import Stage

from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.events import EventLog
from fadelab_server.rounds.build import expected_reports

ALLOCATES: dict[str, Any] = {"aggregation": FEDAVG, "allocation": {"kind": "cell_free"}}


def test_who_has_uploaded_or_does_reports_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        config = make_config(tmp_path, aggregation=FEDAVG, devices=4)
        with EventLog(config.events_dir, "server", "0", FakeClock()) as log:
            stage = Stage(config, FakeClock(), log)
            federation = stage.federation
            task = federation.tasks[0]
            sessions = [stage.enter(device) for device in range(4)]
            federation.start(100.0)
            assert expected_reports(task, federation.uploads) == {0, 1, 2, 3}
            await stage.take(sessions[1], 1.0)
            begun = make_update(np.ones(DIMENSION, dtype=np.float32), device=2)
            federation.open_upload(begun.header, sessions[2], task.store.newest)
            assert expected_reports(task, federation.uploads) == {0, 3}
            federation.stop("enough")
            await stage.end()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "give radio_socket"),
        ({"radio_socket": "radio", "aggregation": FEDASYNC}, "rounds that wait for all devices"),
        (
            {"radio_socket": "radio", "aggregation": FEDAVG | {"quorum": 1}},
            "without quorum",
        ),
    ],
)
def test_allocations_that_cannot_be_are_refused(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationError, match=sentence):
        make_config(tmp_path, **ALLOCATES | changes)


def test_a_server_that_allocates_nothing_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(make_config(tmp_path, aggregation=FEDAVG)) as server:
            device = server.device(0)
            stub: Any = pb_grpc.FederationStub(server.connect(f"127.0.0.1:{server.port}"))
            stranger = await stub.ReportUpdate(pb.UpdateReport(session=1))
            assert stranger.status == pb.ALLOCATION_STATUS_REFUSED_SESSION
            await device.join()
            answer = await stub.ReportUpdate(pb.UpdateReport(session=device.session))
            assert answer.status == pb.ALLOCATION_STATUS_REFUSED_REPORT
            assert "allocates nothing" in answer.reason

    asyncio.run(main())
