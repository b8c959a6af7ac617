"""Packet classes: their shares and losses, and what is refused."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fadelab_emulation.packet_class import (
    GilbertElliott,
    PacketClassConfig,
    check_classes,
    packet_loss,
    split_down,
    split_up,
)


def packet_class(name: str, **changes: Any) -> PacketClassConfig:
    shares = {"rate_share_up": 0.2, "rate_share_down": 0.1}
    mark = {} if {"dscp", "port"} & changes.keys() else {"port": 5000}
    return PacketClassConfig.model_validate({"name": name, **shares, **mark, **changes})


def test_rates_are_shared_out_and_the_default_class_gets_what_is_left() -> None:
    classes = [packet_class("a"), packet_class("b", rate_share_up=0.5, rate_share_down=0.6)]
    rate_bps = np.array([1e6, 8e6])
    up = split_up(classes, 0.0, 2).lanes(rate_bps)
    down = split_down(classes, 0.0, 2).lanes(rate_bps)
    assert [lane.rate_bps / rate_bps for lane in up] == [
        pytest.approx([share] * 2) for share in (0.3, 0.2, 0.5)
    ]
    assert [lane.rate_bps / rate_bps for lane in down] == [
        pytest.approx([share] * 2) for share in (0.3, 0.1, 0.6)
    ]


def test_without_classes_the_default_one_has_the_whole_rate_to_the_bit() -> None:
    rate_bps = np.random.default_rng(1).uniform(1e5, 1e9, 1000)
    (lane,) = split_up([], 0.1, 1000).lanes(rate_bps)
    assert np.array_equal(lane.rate_bps, rate_bps)


def test_no_lane_falls_below_what_a_kernel_shaper_can_do() -> None:
    default, other = split_up([packet_class("a")], 0.0, 2).lanes(np.array([64e3, 1e6]))
    assert default.rate_bps.tolist() == [64e3, 0.8e6]
    assert other.rate_bps == pytest.approx([64e3, 0.2e6])


def test_each_class_has_a_loss_of_its_own_in_each_direction() -> None:
    burst = {"to_bad": 0.01, "to_good": 0.04, "in_good": 0.1, "in_bad": 0.6}
    classes = [packet_class("a", packet_loss_up=burst, packet_loss_down=0.3)]
    rate_bps = np.full(3, 1e6)
    up = split_up(classes, 0.05, 3).lanes(rate_bps)
    down = split_down(classes, 0.0, 3).lanes(rate_bps)
    assert [lane.loss.mean for lane in up] == [pytest.approx([m] * 3) for m in (0.05, 0.2)]
    assert [lane.loss.mean for lane in down] == [pytest.approx([m] * 3) for m in (0.0, 0.3)]
    assert [bool(lane.loss.is_independent.all()) for lane in (*up, *down)] == [
        True,
        False,
        True,
        True,
    ]


def test_a_gilbert_elliott_loss_keeps_its_four_numbers() -> None:
    loss = packet_loss(GilbertElliott(to_bad=0.1, to_good=0.2, in_good=0.01, in_bad=0.9), 2)
    assert loss.to_bad.tolist() == [0.1, 0.1]
    assert loss.to_good.tolist() == [0.2, 0.2]
    assert loss.in_good.tolist() == [0.01, 0.01]
    assert loss.in_bad.tolist() == [0.9, 0.9]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dscp": 3, "port": 4}, "class 'a' needs either a dscp or a port"),
        ({"dscp": None}, "class 'a' needs either a dscp or a port"),
        ({"dscp": 64}, "less than or equal to 63"),
        ({"port": 0}, "greater than or equal to 1"),
        ({"rate_share_up": 0}, "greater than 0"),
        ({"rate_share_down": 1}, "less than 1"),
        ({"name": "A b"}, "pattern"),
    ],
)
def test_an_impossible_class_is_refused(changes: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        packet_class(**{"name": "a", **changes})


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        ([packet_class("a"), packet_class("a", port=1)], "have the name a"),
        ([packet_class("a", dscp=9), packet_class("b", dscp=9)], "have the dscp 9"),
        ([packet_class("a"), packet_class("b")], "have the port 5000"),
        ([packet_class("default")], "no packet class may be named 'default'"),
        (
            [packet_class("a", rate_share_up=0.6), packet_class("b", port=1, rate_share_up=0.4)],
            "rate_share_up add up to 1 and leave nothing",
        ),
        (
            [
                packet_class("a", rate_share_down=0.9),
                packet_class("b", port=1, rate_share_down=0.3),
            ],
            "rate_share_down add up to 1.2 and leave nothing",
        ),
    ],
)
def test_classes_that_do_not_go_together_are_refused(
    classes: list[PacketClassConfig], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_classes(classes)


def test_packet_classes_can_be_imported_without_the_whole_configuration() -> None:
    """Back-ends need them; a way back through the configuration would close an import cycle."""
    probe = "import sys, fadelab_emulation.packet_class as _; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, check=True, timeout=120
    )
    loaded = answer.stdout.decode().split()
    assert "fadelab_emulation.packet_class" in loaded
    assert not {"fadelab_emulation.config", "fadelab_emulation.world"} & set(loaded)
