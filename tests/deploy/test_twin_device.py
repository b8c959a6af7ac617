"""A device of the formula twin on links whose every moment can be computed by hand."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fadelab.twin.compute import follow
from fadelab.twin.device import TwinContact, TwinDevice, TwinPower, TwinTerms
from fadelab.twin.framing import message_bytes
from fadelab.twin.given import Download, Given
from fadelab.twin.server import TwinServer
from fadelab.twin.timeline import TwinLink
from fadelab_agent.config import ComputeConfig, TrainingConfig
from fadelab_agent.contact_config import ContactConfig
from fadelab_agent.contact_decision import Waiting
from fadelab_agent.contact_history import ContactHistory
from fadelab_agent.policy import (
    ContactObservation,
    DenseConfig,
    MadsConfig,
    Observation,
    Plan,
    Policy,
    PolicyConfig,
    build_policy,
)
from fadelab_agent.spool import Owner
from fadelab_agent.terms import DeviceTerms
from fadelab_proto.codecs import DenseF32
from fadelab_server.config import AflConfig, FedBuffConfig

TICK_S = 0.5
RATE_BPS = 1e6
FULL_W = 0.2
DIMENSION = 10_000
MODEL_BYTES = 4 * DIMENSION
WINDOWS = [(0.0, 4.0), (10.0, 14.0), (20.0, 24.0), (30.0, 34.0)]
TERMS = TwinTerms(
    device=DeviceTerms(
        run_id=0,
        seed=0,
        device=0,
        max_payload_bytes=16384,
        uplink_power_w=FULL_W,
        downlink_power_w=1.0,
        # 10 steps of 32 samples take a second.
        compute=ComputeConfig(cycles_per_sample=1000, cpu_hz=320_000),
        gives_up=True,
    ),
    contact=ContactConfig(),
    training=TrainingConfig(local_steps=10, batch_size=32, learning_rate=0.1),
    dimension=DIMENSION,
    layers=(DIMENSION,),
    takes_part=False,
    powers_matter=True,
)


def link_of(
    windows: list[tuple[float, float]] = WINDOWS,
    *,
    end_s: float = 40.0,
    rate_bps: float = RATE_BPS,
    down_bps: float = 1e8,
    delay_s: float = 0.0,
) -> TwinLink:
    ticks = round(end_s / TICK_S)
    at_s = np.arange(ticks) * TICK_S
    is_open = np.zeros(ticks, dtype=np.bool_)
    left_s = np.zeros(ticks)
    for start_s, stop_s in windows:
        inside = (at_s >= start_s) & (at_s < stop_s)
        is_open |= inside
        left_s += inside * (stop_s - at_s)
    columns = {
        "rate_up_bps": np.full(ticks, rate_bps),
        "rate_down_bps": np.full(ticks, down_bps),
        "snr_up_db": np.full(ticks, 30.0),
        "predicted_contact_s": left_s,
        "delay_up_s": np.full(ticks, delay_s),
        "delay_down_s": np.full(ticks, delay_s),
        "loss_up": np.zeros(ticks),
        "loss_down": np.zeros(ticks),
    }
    return TwinLink(TICK_S, is_open, columns, np.full(ticks, FULL_W))


def device_of(
    link: TwinLink,
    server: TwinServer,
    terms: TwinTerms = TERMS,
    policy: Policy | None = None,
) -> TwinDevice:
    return TwinDevice(
        terms,
        policy or build_policy(DenseConfig()),
        ContactHistory.of(Owner(0, 0, "digits", DIMENSION, 0, ""), terms.contact.initial_queue_j),
        link=link,
        server=server,
        given=Given([(0.0, Waiting(4.0))], [(0.0, Download(MODEL_BYTES, 3))], samples=100),
    )


def lived(
    link: TwinLink | None = None,
    *,
    policy: PolicyConfig | None = None,
    server: TwinServer | None = None,
    contact: dict[str, Any] | None = None,
    gives_up: bool = True,
    takes_part: bool = False,
    powers_matter: bool = True,
) -> list[TwinContact]:
    terms = replace(
        TERMS,
        contact=ContactConfig.model_validate(contact or {}),
        device=replace(TERMS.device, gives_up=gives_up),
        takes_part=takes_part,
        powers_matter=powers_matter,
    )
    device = device_of(
        link or link_of(),
        server or TwinServer(AflConfig()),
        terms,
        build_policy(policy or DenseConfig()),
    )
    follow([device])
    return device.contacts


class Noted:
    """Sends everything at half the power, and keeps what was observed."""

    def __init__(self) -> None:
        self.seen: list[ContactObservation] = []

    def decide(self, observation: Observation) -> Plan:
        assert observation.contact is not None
        self.seen.append(observation.contact)
        return Plan(DenseF32(), power_w=FULL_W / 2, k_keep=observation.dimension)


def dense_s(rate_bps: float = RATE_BPS) -> float:
    """Return how long the whole model takes, in three packets."""
    size = message_bytes(MODEL_BYTES, 3)
    return 8 * (size + 66 * math.ceil(size / 1448)) / rate_bps


def test_each_contact_is_used_once() -> None:
    server = TwinServer(AflConfig())
    contacts = lived(server=server)
    assert len(contacts) == len(WINDOWS)
    assert [use.acknowledged for use in contacts] == [True] * 4
    assert [use.staleness for use in contacts] == [0] * 4
    assert server.version == 4
    for use in contacts:
        assert use.upload_s == pytest.approx(dense_s())
        assert use.energy_j == pytest.approx(FULL_W * dense_s())
        assert use.k_keep == DIMENSION


def test_the_acknowledgement_travels_back() -> None:
    contacts = lived(link_of(delay_s=0.1))
    assert contacts[0].upload_s == pytest.approx(dense_s() + 0.2)


def test_two_devices_are_stale_to_each_other() -> None:
    server = TwinServer(AflConfig())
    early = device_of(link_of([(0.0, 4.0), (10.0, 14.0)]), server)
    late = device_of(link_of([(0.0, 0.5), (20.0, 24.0)]), server)
    follow([late, early])
    assert [use.staleness for use in early.contacts] == [0, 0]
    # Its first contact is over before it has trained; by the second the model has moved twice.
    assert [use.staleness for use in late.contacts] == [None, 2]


def test_an_upload_that_the_contact_cannot_carry_is_lost_and_costs_its_energy() -> None:
    slow = link_of(rate_bps=5e4)
    assert dense_s(5e4) > 4.0
    contacts = lived(slow)
    assert len(contacts) == 4
    assert not any(use.acknowledged for use in contacts)
    # The first contact is used once training has taken its second.
    assert contacts[0].airtime_s == pytest.approx(3.0, abs=0.01)
    assert [use.airtime_s for use in contacts[1:]] == pytest.approx([4.0] * 3)
    assert contacts[1].energy_j == pytest.approx(4.0 * FULL_W)


def test_what_was_cut_goes_on_in_the_next_contact_where_updates_are_resumed() -> None:
    server = TwinServer(AflConfig())
    contacts = lived(link_of(rate_bps=5e4), gives_up=False, server=server)
    assert [use.sent for use in contacts] == [True, False, True, False]
    assert [use.acknowledged for use in contacts] == [False, True, False, True]
    assert server.version == 2
    first, second = contacts[:2]
    assert first.airtime_s + second.airtime_s == pytest.approx(dense_s(5e4), rel=0.01)


def test_the_part_that_arrived_counts_where_the_server_takes_it() -> None:
    kept, discarded = TwinServer(AflConfig()), TwinServer(AflConfig())
    lived(link_of(rate_bps=5e4), server=kept, takes_part=True)
    lived(link_of(rate_bps=5e4), server=discarded)
    # Told of at the beginning of the next contact, which the last one lacks.
    assert (kept.version, discarded.version) == (3, 0)


def test_a_contact_that_lasts_is_used_again() -> None:
    once = lived(link_of([(0.0, 10.0)]))
    again = lived(link_of([(0.0, 10.0)]), contact={"again_after_steps": 20})
    assert len(once) == 1
    # A second for the first steps, then an upload and two seconds of training in turns.
    assert len(again) == 1 + math.floor((10 - 1 - dense_s()) / (2 + dense_s()))
    assert all(use.acknowledged for use in again)


def test_a_buffer_makes_a_version_of_several_updates() -> None:
    server = TwinServer(FedBuffConfig(buffer=3))
    contacts = lived(server=server)
    assert (len(contacts), server.version) == (4, 1)


def test_updates_that_are_too_stale_are_refused() -> None:
    server = TwinServer(AflConfig(max_staleness=1))
    server.version = 2
    assert server.take(0) is None
    assert server.take(1) == 1
    assert server.version == 3


def test_a_power_is_in_force_after_the_next_tick() -> None:
    power = TwinPower(link_of(), FULL_W)
    assert power.ask(FULL_W, 3.3) == 3.3
    assert power.ask(0.1, 3.3) == 4.0
    assert [power.at(t_s) for t_s in (3.3, 3.99, 4.0)] == [FULL_W, FULL_W, 0.1]
    assert power.ask(0.1, 3.4) == 4.0
    assert power.ask(FULL_W, 6.0) == 7.0
    assert [power.at(t_s) for t_s in (3.9, 6.9, 7.0)] == [FULL_W, 0.1, FULL_W]


def test_mads_sends_what_the_contact_carries_at_the_power_that_it_chose() -> None:
    contacts = lived(
        link_of(rate_bps=2e5), policy=MadsConfig(tradeoff=0.002), contact={"allowance_j": 0.05}
    )
    assert [use.acknowledged for use in contacts] == [False, True, True, True]
    assert all(0 < use.power_w < FULL_W for use in contacts)
    # A power is in force two ticks, a second, after it is asked for; devices expect a fifth at first.
    assert contacts[0].airtime_s == pytest.approx(4.0 - 1.0 - 1.0)
    for use in contacts[1:]:
        assert use.k_keep is not None
        assert 0 < use.k_keep < DIMENSION
        assert use.upload_s is not None
        assert 2.0 < use.upload_s < 3.0
        assert use.energy_j == pytest.approx(use.power_w * use.upload_s)
        assert use.energy_j == pytest.approx(0.05, rel=0.05)


def test_each_contact_teaches_what_the_next_decision_knows() -> None:
    server, policy = TwinServer(AflConfig()), Noted()
    terms = replace(TERMS, contact=ContactConfig(allowance_j=0.01, initial_queue_j=0.05))
    device = device_of(link_of(), server, terms, policy)
    others = device_of(link_of([(0.0, 4.0), (5.0, 8.0)]), server)
    follow([device, others])
    first, second = policy.seen[:2]
    took_s = device.contacts[0].airtime_s
    assert first.queue_j == 0.05
    assert second.queue_j == pytest.approx(0.05 + FULL_W / 2 * took_s - 0.01)
    # The defaults of a device without past, and then a quarter of what was measured: the power was
    # asked for after a second of training and the download, and was in force at 2 s.
    asked_s = 1.0 + dense_s(1e8)
    assert (first.setup_s, first.acknowledgement_s) == (0.2, 0.1)
    assert second.setup_s == pytest.approx(0.2 + 0.25 * (2.0 - asked_s - 0.2))
    rate_bps = RATE_BPS * math.log2(1 + 500) / math.log2(1 + 1000)
    extra_s = took_s - 8 * MODEL_BYTES / rate_bps
    assert second.acknowledgement_s == pytest.approx(0.1 + 0.25 * (extra_s - 0.1))
    # Version 2 came when the device held 0: its own update and the other device's.
    assert (first.expected_staleness, second.expected_staleness) == (0.0, 2.0)
    # Between contacts the power is back at its maximum.
    assert [seen.power_w for seen in policy.seen] == [FULL_W] * 4


def test_where_links_follow_no_power_the_full_one_is_taken() -> None:
    contacts = lived(
        link_of(rate_bps=2e5),
        policy=MadsConfig(),
        contact={"allowance_j": 0.05},
        powers_matter=False,
    )
    assert {use.power_w for use in contacts if use.sent} == {FULL_W}


def test_a_contact_without_worth_is_skipped_but_renews_the_model() -> None:
    contacts = lived(link_of(), policy=MadsConfig(v_j2=1e-30), contact={"allowance_j": 1e-9})
    assert all(use.skipped and not use.sent for use in contacts)
    assert {use.energy_j for use in contacts} == {0.0}


def test_a_device_that_never_meets_the_server_lives_without_contacts() -> None:
    assert lived(link_of([])) == []


def test_a_model_that_was_cut_is_gone_on_with_and_is_the_version_that_was_begun() -> None:
    server = TwinServer(AflConfig())
    # At 8e4 bit/s a model takes more than four seconds: it comes in two contacts.
    device = device_of(link_of(down_bps=8e4), server)
    life = device.life()
    met_s = [next(life), next(life)]
    server.version = 7  # while the rest of version 0 is on its way
    met_s += list(life)
    down_s = dense_s(8e4)
    assert 4.0 < down_s < 8.0
    # Asked for at once, and again when the next contact begins; then it trains for a second.
    assert met_s[:2] == [0.0, 10.0]
    assert met_s[2] == pytest.approx(10.0 + (down_s - 4.0) + 1.0 + dense_s(), abs=0.02)
    assert device.contacts[0].staleness == 7


def test_framing_counts_headers_of_every_layer() -> None:
    # 40 bytes of packet header, tag and length, gRPC's prefix, one DATA frame.
    assert message_bytes(1000, 1) == 1000 + 40 + 3 + 5 + 9
    # What is longer than a frame needs two.
    assert message_bytes(2 * 16384, 2) == 2 * (16384 + 40 + 4 + 5 + 18)
    assert message_bytes(10, 1) == 10 + 40 + 2 + 5 + 9
