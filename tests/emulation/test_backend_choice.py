"""Which back-end is taken, and what is said where none can be."""

from collections.abc import Callable

import numpy as np
import pytest

from fadelab_emulation.backends.choice import (
    SKILLS,
    BackendRefusedError,
    Need,
    Variant,
    choose,
    needs_of,
)
from fadelab_emulation.link_state import PacketLoss, plain_tick
from fadelab_emulation.window import BackendChoice, WindowMode


def able(*variants: Variant) -> Callable[[Variant], str]:
    return lambda variant: "" if variant in variants else f"no {variant} here"


EVERYTHING = able(*Variant)


@pytest.mark.parametrize(
    ("needs", "works", "chosen"),
    [
        (set(), EVERYTHING, Variant.LITE_CBPF),
        ({Need.LOSS}, EVERYTHING, Variant.LITE_EBPF),
        ({Need.LOSS}, able(Variant.LITE_CBPF, Variant.RELAY), Variant.LITE_CBPF),
        ({Need.BURST_LOSS, Need.LOSS}, able(Variant.LITE_CBPF, Variant.RELAY), Variant.RELAY),
        ({Need.DELAY}, EVERYTHING, Variant.NETEM_CBPF),
        ({Need.DELAY, Need.BURST_LOSS, Need.LOSS}, able(Variant.NETEM), Variant.NETEM),
        ({Need.DELAY, Need.LOSS}, EVERYTHING, Variant.NETEM_EBPF),
        ({Need.DELAY}, able(Variant.LITE_CBPF, Variant.RELAY), Variant.RELAY),
    ],
)
def test_auto_takes_the_cheapest_that_works(
    needs: set[Need], works: Callable[[Variant], str], chosen: Variant
) -> None:
    assert choose(BackendChoice.AUTO, frozenset(needs), works).variant is chosen


def test_a_delay_is_never_silently_dropped() -> None:
    with pytest.raises(BackendRefusedError, match="'lite' cannot do delay; ask for 'netem'"):
        choose(BackendChoice.LITE, frozenset({Need.DELAY}), EVERYTHING)


def test_a_machine_without_netem_and_tun_is_told_what_helps() -> None:
    with pytest.raises(BackendRefusedError) as refused:
        choose(BackendChoice.AUTO, frozenset({Need.DELAY}), able(Variant.LITE_CBPF))
    sentence = str(refused.value)
    assert "no back-end for rates and contact windows, delay" in sentence
    assert "modprobe sch_netem" in sentence
    assert "/dev/net/tun" in sentence
    assert "no relay here" in sentence


def test_the_choice_tells_what_was_passed_over_and_why() -> None:
    choice = choose(BackendChoice.AUTO, frozenset({Need.LOSS}), able(Variant.LITE_CBPF))
    assert choice.passed_over == {Variant.LITE_EBPF: "no lite/ebpf here"}
    assert "packet loss" in choice.why


def test_dry_is_taken_only_when_asked_for() -> None:
    assert choose(BackendChoice.DRY, frozenset(Need), EVERYTHING).variant is Variant.DRY
    with pytest.raises(BackendRefusedError):
        choose(BackendChoice.AUTO, frozenset(), able(Variant.DRY))


def test_a_named_back_end_is_not_replaced_by_another() -> None:
    with pytest.raises(BackendRefusedError, match="/dev/net/tun"):
        choose(BackendChoice.RELAY, frozenset(), able(Variant.LITE_CBPF))


def test_needs_are_read_off_ticks() -> None:
    rates = np.array([1e6, 2e6])
    burst = PacketLoss(*(np.array([value, value]) for value in (0.0, 1.0, 0.1, 0.5)))
    some = PacketLoss.independent(np.array([0.0, 0.01]))
    plain = plain_tick(rates, rates)
    assert needs_of([plain], WindowMode.HOLD) == frozenset()
    assert needs_of([plain], WindowMode.REJECT) == {Need.REJECT}
    assert needs_of([plain, plain_tick(rates, rates, loss_up=some)], WindowMode.HOLD) == {Need.LOSS}
    lossy = needs_of([plain_tick(rates, rates, loss_down=burst)], WindowMode.HOLD)
    assert lossy == {Need.LOSS, Need.BURST_LOSS}
    assert needs_of([plain_tick(rates, rates, delay_s=0.01)], WindowMode.HOLD) == {Need.DELAY}


def test_every_variant_but_dry_says_how_to_get_it() -> None:
    assert all(skill.remedy for variant, skill in SKILLS.items() if variant is not Variant.DRY)
    assert set(SKILLS) == set(Variant)
