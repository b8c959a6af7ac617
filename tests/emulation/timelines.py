"""Ticks, recordings and traces for the tests of timelines."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from fadelab_emulation.config import RadioConfig
from fadelab_emulation.link_state import FloatArray, Lane, LinkTick, PacketLoss, plain_tick
from fadelab_emulation.schedule import ScheduleReader, ScheduleWriter
from fadelab_emulation.timeline.link_source import LinkTerms

MOVING: dict[str, Any] = {
    "mobility": {"kind": "random_waypoint", "speed_mps": [15, 30]},
    "shadowing": {"std_db": 3},
    "fading": {"kind": "rayleigh", "coherence_s": 0.3},
    "rate": {"kind": "shannon", "bandwidth_hz": 200e3},
    "contact": {"kind": "coverage", "radius_m": 150},
    "packet_loss_up": {"to_bad": 0.01, "to_good": 0.1},
    "delay_up_s": 0.02,
    "delay_down_s": 0.03,
    "jitter_up_s": 0.002,
    "classes": [
        {"name": "urgent", "port": 50052, "rate_share_up": 0.2, "rate_share_down": 0.3},
    ],
}


def moving(**changes: Any) -> RadioConfig:
    return RadioConfig.model_validate(MOVING | changes)


def random_lane(draw: np.random.Generator, devices: int) -> Lane:
    loss = PacketLoss(*(draw.random(devices) for _ in range(4)))
    return Lane(draw.random(devices) * 1e6, loss)


def random_tick(
    index: int, devices: int, tick_s: float = 0.1, *, lanes: int = 1, seed: int = 0
) -> LinkTick:
    """A tick in which no number is 0, most likely."""
    draw = np.random.default_rng([seed, index])
    plain = {
        field.name: draw.random(devices) * 1e3
        for field in fields(LinkTick)
        if field.name not in {"index", "t_s", "site", "up", "down", "is_open"}
    }
    return LinkTick(
        index=index,
        t_s=index * tick_s,
        site=draw.integers(0, 4096, devices),
        up=tuple(random_lane(draw, devices) for _ in range(lanes)),
        down=tuple(random_lane(draw, devices) for _ in range(lanes)),
        is_open=draw.random(devices) < 0.5,
        **plain,
    )


def columns(tick: LinkTick) -> dict[str, FloatArray]:
    """Every array of a tick by name."""
    found = {
        field.name: getattr(tick, field.name)
        for field in fields(LinkTick)
        if field.name not in {"index", "t_s", "up", "down"}
    }
    for side, lanes in (("up", tick.up), ("down", tick.down)):
        for number, lane in enumerate(lanes):
            found[f"{side}[{number}].rate_bps"] = lane.rate_bps
            for part in fields(PacketLoss):
                found[f"{side}[{number}].{part.name}"] = getattr(lane.loss, part.name)
    return found


def assert_same_in_float32(one: LinkTick, other: LinkTick) -> None:
    assert (one.index, one.t_s) == (other.index, other.t_s)
    a, b = columns(one), columns(other)
    assert a.keys() == b.keys()
    for name, values in a.items():
        kind = values.dtype if name in {"is_open", "site"} else np.float32
        assert np.array_equal(values.astype(kind), b[name].astype(kind)), name


def record(
    path: Path,
    ticks: Sequence[LinkTick],
    *,
    tick_s: float = 0.1,
    seed: int = 7,
    devices: int | None = None,
    lanes: Sequence[str] = ("default",),
) -> bytes:
    """Write ticks to a new file of that name and return its bytes."""
    path.unlink(missing_ok=True)
    with ScheduleWriter(path, devices or ticks[0].devices, tick_s, seed, lanes) as writer:
        for tick in ticks:
            writer.write(tick)
    return path.read_bytes()


def recording(path: Path, ticks: Sequence[LinkTick], **how: Any) -> ScheduleReader:
    record(path, ticks, **how)
    return ScheduleReader(path)


def rate_ticks(
    up_bps: Sequence[float],
    down_bps: Sequence[float] | None = None,
    *,
    tick_s: float = 0.1,
    delay_s: float = 0.0,
    loss_up: float = 0.0,
) -> list[LinkTick]:
    """Ticks of one device with these rates, closed where both are 0."""
    pairs = list(zip(up_bps, up_bps if down_bps is None else down_bps, strict=True))
    return [
        plain_tick(
            np.array([up]),
            np.array([down]),
            index=index,
            t_s=index * tick_s,
            is_open=np.array([up + down > 0]),
            loss_up=PacketLoss.independent(np.array([loss_up])),
            delay_s=delay_s,
        )
        for index, (up, down) in enumerate(pairs)
    ]


def terms(devices: int = 1, tick_s: float = 0.1, **more: Any) -> LinkTerms:
    return replace(LinkTerms(devices=devices, tick_s=tick_s, seed=7), **more)
