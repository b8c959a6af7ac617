"""Innovations that are not worth sending are not sent, and the server goes on with the last ones."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.device_agent.agent_harness import FakeWork, agent_events, agent_log, go, until
from tests.server.harness import (
    RUN,
    Running,
    initial_vector,
    logged,
    make_config,
    newest,
    running,
)

from fadelab_agent.agent import Agent
from fadelab_agent.agent_config import AgentConfig
from fadelab_agent.innovation import AlwaysUpload, InnovationRound, UploadRule
from fadelab_agent.lazy_config import AquilaRuleConfig, LaqRuleConfig
from fadelab_agent.lazy_upload import LazyUpload
from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import SystemClock
from fadelab_proto.codecs import Encoding, Laq

F32 = NDArray[np.float32]
N = 64
LAZY = {"kind": "lazy"}
COMPLETE = pb.UPLOAD_STATUS_COMPLETE


class Listening:
    """A rule that never sends and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[InnovationRound] = []

    def uploads(self, now: InnovationRound) -> bool:
        self.asked.append(now)
        return len(self.asked) % 2 == 0


def encoded(vector: F32) -> Encoding:
    return Laq(3).encode(vector, max_payload_bytes=1000, generator=np.random.default_rng(1))


def full(value: float) -> F32:
    return np.full(N, value, dtype=np.float32)


def one_round(
    lazy: LazyUpload, innovation: F32, model: F32, status: pb.UploadStatus.ValueType = COMPLETE
) -> bool:
    encoding = encoded(innovation)
    chosen = lazy.consider(innovation, encoding, model=model, update_id=1)
    assert chosen in (encoding, Encoding((), 0))
    lazy.ended(pb.UploadHeader(packets=len(chosen.chunks)), status)
    return bool(chosen.chunks)


def test_a_rule_is_asked_with_the_norms_that_it_needs(tmp_path: Path) -> None:
    rule = Listening()
    draw = np.random.default_rng(4)
    innovations = [draw.standard_normal(N, dtype=np.float32) for _ in range(5)]
    with agent_log(tmp_path) as log:
        lazy = LazyUpload(rule, task="digits", log=log)
        sent = [one_round(lazy, own, full(k * k)) for k, own in enumerate(innovations)]
    # The first is sent whatever the rule says; of the others it refuses every second one.
    assert sent == [True, False, True, False, True]
    assert [now.silent_rounds for now in rule.asked] == [1, 2, 1, 2]
    assert [now.model_steps for now in rule.asked] == [
        (N * 1.0,),
        (N * 9.0, N * 1.0),
        (N * 25.0, N * 9.0, N * 1.0),
        (N * 49.0, N * 25.0, N * 9.0, N * 1.0),
    ]
    errors = []
    for innovation, now in zip(innovations[1:], rule.asked, strict=True):
        quantised = np.zeros(N, np.float32)
        for chunk in encoded(innovation).chunks:
            quantised += codecs.decode(
                chunk.codec, chunk.payload, first=chunk.first, count=chunk.count
            ).values
        assert now.innovation == pytest.approx(float(np.sum(quantised**2)), rel=1e-5)
        assert now.error == pytest.approx(float(np.sum((innovation - quantised) ** 2)), rel=1e-4)
        errors.append(now.error)
    assert [now.last_error for now in rule.asked[1:]] == [
        rule.asked[0].last_error,
        errors[1],
        errors[1],
    ]
    skipped = agent_events(tmp_path, "upload_skipped")
    assert [event["silent_rounds"] for event in skipped] == [1, 1]
    assert skipped[0]["bits_saved"] == 3 * N + 32


def test_what_the_server_refused_leaves_the_device_fresh(tmp_path: Path) -> None:
    with agent_log(tmp_path) as log:
        lazy = LazyUpload(Listening(), task="digits", log=log)
        assert one_round(lazy, full(1), full(0), pb.UPLOAD_STATUS_REFUSED_RULE)
        assert lazy.fresh
        assert one_round(lazy, full(1), full(0), pb.UPLOAD_STATUS_DISCARDED)
        assert one_round(lazy, full(1), full(0), pb.UPLOAD_STATUS_CLOSED)
        assert not lazy.fresh


@pytest.mark.parametrize(
    ("rule", "innovation", "sends"),
    [
        (LaqRuleConfig(steps=2, share=0.5).build(), 0.2, False),
        (LaqRuleConfig(steps=2, share=0.5).build(), 1.5, True),
        (LaqRuleConfig(longest_silence=1).build(), 0.0, True),
        (AquilaRuleConfig(kind="aquila", beta=0.25, gain=0.5).build(), 0.99, False),
        (AquilaRuleConfig(kind="aquila", beta=0.25, gain=0.5).build(), 1.01, True),
        (AlwaysUpload(), 0.0, True),
    ],
)
def test_rules_of_an_experiment_file(rule: UploadRule, innovation: float, sends: bool) -> None:
    now = InnovationRound(
        innovation=innovation,
        error=0.0,
        last_error=0.0,
        model_steps=(1.0, 3.0),
        silent_rounds=1,
    )
    assert rule.uploads(now) is sends


# -- whole agents ----------------------------------------------------------------------------------


class SteadyWork(FakeWork):
    """Training changes the model by the same in every round."""

    def delta(self, update_number: int) -> F32:
        return super().delta(1)


def agent(folder: Path, server: Running, device: int, rule: str, **changes: Any) -> Agent:
    settings: dict[str, Any] = {
        "run_id": RUN,
        "device": device,
        "server": f"127.0.0.1:{server.port}",
        "events_dir": folder / "events",
        "policy": {"kind": "dense"},
        "innovation": {"kind": rule},
        "max_payload_bytes": 512,
    }
    return Agent(AgentConfig.model_validate(settings | changes), [SteadyWork()], SystemClock())


def lazy_server(folder: Path, versions: int, **changes: Any) -> Any:
    stop = {"duration_s": 3600, "max_versions": versions}
    return running(make_config(folder, aggregation=LAZY, stop=stop, **changes))


async def joined(server: Running, count: int) -> None:
    def present() -> bool:
        sessions = server.federation.sessions.alive(server.federation.clock.now_s())
        return sum(session.streams > 0 for session in sessions) == count

    await until(server, present)


@pytest.mark.parametrize("rule", ["laq", "aquila"])
def test_devices_with_nothing_new_to_say_cost_no_bits_and_count(tmp_path: Path, rule: str) -> None:
    async def scenario() -> None:
        async with lazy_server(tmp_path, 5) as server:
            agents = [
                asyncio.create_task(agent(tmp_path, server, device, rule).run())
                for device in range(2)
            ]
            await joined(server, 2)
            server.federation.start(server.federation.clock.now_s())
            await asyncio.gather(*agents)
            expected = initial_vector() + 5 * SteadyWork().delta(1)
            np.testing.assert_allclose(newest(server), expected, rtol=1e-5)
        for device in range(2):
            ended = agent_events(tmp_path, "upload_ended", device)[:4]
            assert [event["nominal_bits"] > 0 for event in ended] == [True, False, False, False]
            assert {event["status"] for event in ended} == {"UPLOAD_STATUS_COMPLETE"}
            assert len(agent_events(tmp_path, "upload_skipped", device)) >= 3
        taken = [event for event in logged(tmp_path, "upload_complete") if event["packets"] == 0]
        assert len(taken) >= 6
        assert all(event["payload_bytes"] == 0 for event in taken)

    go(scenario)


@pytest.mark.parametrize("keeps", [False, True])
def test_a_restarted_device_says_whether_it_knows_what_it_sent(tmp_path: Path, keeps: bool) -> None:
    async def scenario() -> None:
        changes = {"state_dir": tmp_path / "state"} if keeps else {}
        async with lazy_server(tmp_path, 6, devices=1) as server:
            first = asyncio.create_task(agent(tmp_path, server, 0, "aquila", **changes).run())
            await joined(server, 1)
            server.federation.start(server.federation.clock.now_s())
            await until(server, lambda: server.federation.tasks[0].store.shown.number >= 2)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await joined(server, 0)
            before = len(agent_events(tmp_path, "upload_ended"))
            await agent(tmp_path, server, 0, "aquila", **changes).run()
            # Had the server kept a reference that the device forgot, the model would run ahead.
            expected = initial_vector() + 6 * SteadyWork().delta(1)
            np.testing.assert_allclose(newest(server), expected, rtol=1e-5)
        first_bits = agent_events(tmp_path, "upload_ended")[before]["nominal_bits"]
        assert (first_bits > 0) is not keeps

    go(scenario)
