"""Trying back-ends out: one link each, made in a sandbox that is thrown away."""

from dataclasses import replace

import numpy as np

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.children import Channel
from fadelab.local.launch import Sandboxed
from fadelab_emulation.backends.choice import (
    BackendRefusedError,
    Choice,
    Need,
    Variant,
    choose,
)
from fadelab_emulation.backends.factory import make_backend
from fadelab_emulation.backends.plan import ClassMark, LinkPlan, QueueSizes
from fadelab_emulation.link_state import Lane, LinkTick, PacketLoss, plain_tick
from fadelab_emulation.window import BackendChoice, WindowMode
from fadelab_proto.clock import SystemClock

_RATE_BPS = 1e7
_DELAY_S = 0.01
_LOSS = 0.01


def choose_backend(
    asked: BackendChoice,
    needs: frozenset[Need],
    window: WindowMode,
    classes: tuple[ClassMark, ...] = (),
) -> Choice:
    """Return the back-end for links on this machine; see :func:`choose`.

    Must be called in a process with one thread: it forks.

    Raises:
        FadelabError: ENVIRONMENT, with the reasons and the remedy.

    """
    try:
        return choose(asked, needs, lambda variant: attempt(variant, needs, window, classes))
    except BackendRefusedError as error:
        raise FadelabError(ExitCode.ENVIRONMENT, f"{error}") from None


def attempt(
    variant: Variant,
    needs: frozenset[Need],
    window: WindowMode,
    classes: tuple[ClassMark, ...] = (),
) -> str:
    """Make one such link in a sandbox, open and close it; return what went wrong, or nothing."""

    def work(channel: Channel) -> None:
        channel.send(problem=_problem(variant, needs, window, classes))

    trial = Sandboxed("trial", work)
    try:
        trial.wait()
    except FadelabError as error:
        return str(error)
    for message in trial.messages:
        if "problem" in message:
            return str(message["problem"])
    return "the trial ended without an answer"


def _problem(
    variant: Variant, needs: frozenset[Need], window: WindowMode, classes: tuple[ClassMark, ...]
) -> str:
    queues = [QueueSizes.for_rates(_RATE_BPS, _RATE_BPS)]
    try:
        backend = make_backend(variant, LinkPlan(queues, classes, window), SystemClock())
        backend.apply(_tick(needs, 1 + len(classes), is_open=True))
        backend.apply(_tick(needs, 1 + len(classes), is_open=False))
        backend.close()
    except OSError as error:
        return (error.strerror or str(error)).rstrip(".")
    except ValueError as error:
        return str(error)
    return ""


def _tick(needs: frozenset[Need], lanes: int, *, is_open: bool) -> LinkTick:
    loss = PacketLoss.independent(np.array([_LOSS if Need.LOSS in needs else 0.0]))
    if Need.BURST_LOSS in needs:
        loss = PacketLoss(*(np.array([value]) for value in (0.0, 1.0, _LOSS, 0.5)))
    rate_bps = np.array([_RATE_BPS])
    lane = Lane(rate_bps, loss)
    tick = plain_tick(
        rate_bps,
        rate_bps,
        is_open=np.array([is_open]),
        delay_s=_DELAY_S if Need.DELAY in needs else 0.0,
    )
    return replace(tick, up=(lane,) * lanes, down=(lane,) * lanes)
