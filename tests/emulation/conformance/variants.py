"""The back-ends under test, made as an emulator makes them, and which of them this kernel has."""

import contextlib
import os
from functools import cache

import numpy as np
import pytest
from sandboxed import in_sandbox

from fadelab_emulation.backends.base import LinkBackend
from fadelab_emulation.backends.choice import SKILLS, Need, Variant
from fadelab_emulation.backends.factory import make_backend
from fadelab_emulation.backends.impairment.bpf import BpfRefusedError
from fadelab_emulation.backends.plan import LinkPlan, QueueSizes
from fadelab_emulation.link_state import plain_tick
from fadelab_proto.clock import SystemClock

SEED = 20240229
VARIANTS = [variant for variant in Variant if variant is not Variant.DRY]

SHAPERS = [
    variant for variant in VARIANTS if variant not in (Variant.NETEM_CBPF, Variant.NETEM_EBPF)
]
"""All that may shape differently: these two have the delays of netem and the losses of lite, so
only their losses are looked at."""

IS_SLOW = os.cpu_count() == 1
"""Whether both ends of every link, and the link itself, share one processor, as they do in User-Mode
Linux: then whatever else it does makes all of them late."""

every_back_end = pytest.mark.parametrize("variant", SHAPERS, ids=str)
delaying_back_ends = pytest.mark.parametrize(
    "variant", [variant for variant in SHAPERS if Need.DELAY in SKILLS[variant].can], ids=str
)


def back_ends_that(can: Need) -> pytest.MarkDecorator:
    """Run a test for every back-end that claims a skill."""
    chosen = [variant for variant in VARIANTS if can in SKILLS[variant].can]
    return pytest.mark.parametrize("variant", chosen, ids=str)


def back_ends_that_cannot(can: Need) -> pytest.MarkDecorator:
    """Run a test for every back-end that does not claim a skill."""
    chosen = [variant for variant in VARIANTS if can not in SKILLS[variant].can]
    return pytest.mark.parametrize("variant", chosen, ids=str)


def back_ends_with_classes() -> pytest.MarkDecorator:
    """Run a test for every back-end but netem with its own losses, which are those of a link."""
    chosen = [variant for variant in VARIANTS if variant is not Variant.NETEM]
    return pytest.mark.parametrize("variant", chosen, ids=str)


def back_ends_with_seeded_loss() -> pytest.MarkDecorator:
    """Run a test for every back-end that loses the packets that a seed says."""
    chosen = [variant for variant in VARIANTS if is_seeded(variant)]
    return pytest.mark.parametrize("variant", chosen, ids=str)


def is_seeded(variant: Variant) -> bool:
    return SKILLS[variant].loss_is_seeded


def make(variant: Variant, plan: LinkPlan) -> LinkBackend:
    """Return closed links; to be called in a sandbox."""
    return make_backend(variant, plan, SystemClock())


def need(variant: Variant) -> None:
    """Skip the test where this kernel or this user cannot have the back-end."""
    if found := problem(variant):
        pytest.skip(f"no {variant} here: {found}")


@cache
def problem(variant: Variant) -> str:
    """Return why this kernel or this user cannot have the back-end; empty if it can."""
    return in_sandbox(_attempt, variant)


def _attempt(variant: Variant) -> str:
    rate_bps = np.array([1e6])
    delay_s = 0.01 if Need.DELAY in SKILLS[variant].can else 0.0
    plan = LinkPlan([QueueSizes.for_rates(1e6, 1e6)])
    try:
        make(variant, plan).apply(plain_tick(rate_bps, rate_bps, delay_s=delay_s))
    except (BpfRefusedError, OSError) as error:
        return str(error)
    return ""


def deviations(variant: Variant) -> float:
    """Return how many standard deviations chance is given.

    A seed that has once led to a result within 3 does so for ever. Without one, an honest link is
    beyond 3 once in 370 times, beyond 4.5 once in 150 000.
    """
    return 3.0 if is_seeded(variant) else 4.5


def take_precedence() -> None:
    """Run ahead of the machine's other work where that is granted, as the emulator itself does.

    Not on a single processor: there it would also be ahead of the kernel's own threads, which move
    packets when there are many.
    """
    if not IS_SLOW:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
