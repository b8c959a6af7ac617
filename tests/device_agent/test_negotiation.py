"""A device's side of a round: compensation, report, and servers that want none."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from fadelab_agent.membership import Assignment, RefusedError
from fadelab_agent.modulus_statistics import ModulusFigures
from fadelab_agent.negotiation import Negotiation
from fadelab_proto import rounds_pb2 as pb
from fadelab_proto import rounds_pb2_grpc as pb_grpc
from fadelab_proto.clock import SystemClock
from fadelab_proto.codecs import CodecError, Groups, Uniform

MODULI = np.linspace(0, 3, 40, dtype=np.float32)
FIGURES = ModulusFigures(3.0, 0.5, 0.25)


class Rounds(pb_grpc.RoundsServicer):
    """Answers with what it was made with."""

    def __init__(self, parts: list[pb.CompensationPart], *plans: pb.RoundPlan) -> None:
        self.parts, self.plans = parts, list(plans)
        self.reports: list[pb.RoundReport] = []

    async def FetchCompensation(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[pb.CompensationPart]:
        for part in self.parts:
            yield part

    async def Report(self, request: Any, context: Any) -> pb.RoundPlan:  # noqa: N802
        self.reports.append(request)
        return self.plans.pop(0)


def talk(service: Rounds | None, say: Any) -> Any:
    """Return what ``say`` makes of a negotiation with this server."""

    async def both() -> Any:
        server = grpc.aio.server()
        if service is not None:
            pb_grpc.add_RoundsServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        parts: Any = SimpleNamespace(
            work=SimpleNamespace(name="digits", dimension=len(MODULI)),
            membership=SimpleNamespace(assignment=lambda _: Assignment(77, 0, 0)),
            clock=SystemClock(1000.0),
            log=SimpleNamespace(write=lambda *_, **__: None),
        )
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                return await say(Negotiation(channel, parts))
        finally:
            await server.stop(None)

    return asyncio.run(both())


def coded() -> list[pb.CompensationPart]:
    encoding = Uniform(8, Groups(), "coordinates").encode(
        MODULI, max_payload_bytes=512, generator=np.random.default_rng(1)
    )
    return [
        pb.CompensationPart(first=own.first, count=own.count, payload=own.payload, codec=own.codec)
        for own in encoding.chunks
    ]


def test_compensation_comes_as_numbers_as_one_number_or_not_at_all() -> None:
    found = talk(Rounds(coded()), lambda own: own.compensation())
    np.testing.assert_allclose(found, MODULI, atol=2 * 3 / 254)
    constant = [pb.CompensationPart(first=0, count=len(MODULI), constant=0.5)]
    found = talk(Rounds(constant), lambda own: own.compensation())
    np.testing.assert_array_equal(found, np.full(len(MODULI), 0.5, dtype=np.float32))
    assert talk(Rounds([]), lambda own: own.compensation()) is None


def test_compensation_that_does_not_fit_the_model_is_an_error() -> None:
    wrong = [pb.CompensationPart(first=30, count=20, constant=0.5)]
    with pytest.raises(CodecError, match="moduli up to 50"):
        talk(Rounds(wrong), lambda own: own.compensation())


def test_a_lost_session_is_reported_again_and_the_decision_returned() -> None:
    decided = pb.RoundPlan(status=pb.ROUND_STATUS_SEND, begin_mono_s=1.0)
    service = Rounds([], pb.RoundPlan(status=pb.ROUND_STATUS_UNKNOWN_SESSION), decided)
    assert talk(service, lambda own: own.report(4, FIGURES)) == decided
    assert [own.version for own in service.reports] == [4, 4]
    assert service.reports[1].session == 77
    assert service.reports[1].moduli.quantiser_variance == 0.25


def test_a_server_that_wants_no_reports_ends_the_device() -> None:
    refusal = pb.RoundPlan(status=pb.ROUND_STATUS_REFUSED, reason="takes no such reports")
    with pytest.raises(RefusedError, match="no such reports"):
        talk(Rounds([], refusal), lambda own: own.report(4, FIGURES))
    with pytest.raises(RefusedError, match="UNIMPLEMENTED"):
        talk(None, lambda own: own.report(4, FIGURES))
