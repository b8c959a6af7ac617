"""Which back-end carries the links: the cheapest that can do what is asked, with the reason why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from fadelab_emulation.link_state import LinkTick
from fadelab_emulation.window import BackendChoice, WindowMode


class Need(StrEnum):
    """What links are asked to do besides rates, windows and packet classes."""

    LOSS = "packet loss"
    BURST_LOSS = "Gilbert-Elliott loss"
    DELAY = "delay"
    REJECT = "window mode 'reject'"


class Variant(StrEnum):
    """A back-end together with what draws its losses."""

    LITE_EBPF = "lite/ebpf"
    LITE_CBPF = "lite/cbpf"
    NETEM_EBPF = "netem/ebpf"
    NETEM_CBPF = "netem/cbpf"
    NETEM = "netem"
    """Losses drawn by netem itself."""
    RELAY = "relay"
    DRY = "dry"


@dataclass(frozen=True, slots=True)
class Skill:
    """What a variant can do where the machine lets it."""

    backend: BackendChoice
    can: frozenset[Need]
    loss_is_seeded: bool
    remedy: str
    """What makes it available on a machine that does not have it."""


_SHAPING = "Use a kernel with sch_htb, sch_tbf, sch_ingress and cls_bpf (modprobe them as root)."
_NETEM = (
    "Load sch_netem, ifb and act_mirred as root (on Debian and Ubuntu "
    "`apt-get install linux-modules-extra-$(uname -r) && modprobe sch_netem ifb act_mirred`)."
)
_TUN = "Give access to the TUN device (`sudo modprobe tun && sudo chmod 666 /dev/net/tun`)."

SKILLS: dict[Variant, Skill] = {
    # Best first: the order in which they are tried.
    Variant.LITE_EBPF: Skill(
        BackendChoice.LITE,
        frozenset({Need.LOSS, Need.BURST_LOSS, Need.REJECT}),
        loss_is_seeded=True,
        remedy=f"{_SHAPING} eBPF needs root outside of user namespaces.",
    ),
    Variant.LITE_CBPF: Skill(
        BackendChoice.LITE,
        frozenset({Need.LOSS, Need.REJECT}),
        loss_is_seeded=False,
        remedy=_SHAPING,
    ),
    Variant.NETEM_EBPF: Skill(
        BackendChoice.NETEM,
        frozenset(Need),
        loss_is_seeded=True,
        remedy=f"{_NETEM} eBPF needs root outside of user namespaces.",
    ),
    Variant.NETEM_CBPF: Skill(
        BackendChoice.NETEM,
        frozenset({Need.LOSS, Need.DELAY, Need.REJECT}),
        loss_is_seeded=False,
        remedy=_NETEM,
    ),
    Variant.NETEM: Skill(BackendChoice.NETEM, frozenset(Need), loss_is_seeded=False, remedy=_NETEM),
    Variant.RELAY: Skill(BackendChoice.RELAY, frozenset(Need), loss_is_seeded=True, remedy=_TUN),
    Variant.DRY: Skill(BackendChoice.DRY, frozenset(), loss_is_seeded=True, remedy=""),
}


_SEEDED_BY_EBPF = (Variant.LITE_EBPF, Variant.NETEM_EBPF)


class BackendRefusedError(Exception):
    """No back-end of this machine does what is asked; the message says why and what helps."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The variant that was chosen, and what became of those before it."""

    variant: Variant
    why: str
    passed_over: dict[Variant, str] = field(default_factory=dict)
    """Better variants and why they were not taken."""


def needs_of(ticks: Sequence[LinkTick], window: WindowMode) -> frozenset[Need]:
    """Return what is needed to carry out these ticks."""
    needs = set()
    for tick in ticks:
        losses = [lane.loss for lane in (*tick.up, *tick.down)]
        if any(loss.mean.any() for loss in losses):
            needs.add(Need.LOSS)
        if not all(loss.is_independent.all() for loss in losses):
            needs.add(Need.BURST_LOSS)
        if tick.delay_up_s.any() or tick.delay_down_s.any():
            needs.add(Need.DELAY)
    if window is WindowMode.REJECT:
        needs.add(Need.REJECT)
    return frozenset(needs)


def choose(
    asked: BackendChoice, needs: frozenset[Need], attempt: Callable[[Variant], str]
) -> Choice:
    """Return the first variant that can and may do what is needed.

    Args:
        asked: the back-end that the experiment names, or ``auto``.
        needs: what links must do.
        attempt: makes one such link on this machine; returns what went wrong, or nothing.

    Raises:
        BackendRefusedError: with the reasons and a remedy.

    """
    if asked is BackendChoice.DRY:
        return Choice(Variant.DRY, "asked for: nothing is shaped")
    candidates = [v for v in SKILLS if v is not Variant.DRY and _is_asked(v, asked)]
    able = [v for v in candidates if needs <= SKILLS[v].can]
    if Need.LOSS not in needs:
        # Seeded loss is worth a try only where something is to be lost.
        able = [v for v in able if v not in _SEEDED_BY_EBPF]
    if not able:
        missing = " and ".join(
            sorted(needs - frozenset().union(*(SKILLS[v].can for v in candidates)))
        )
        raise BackendRefusedError(
            f"the back-end '{asked}' cannot do {missing}; ask for 'netem', 'relay' or 'auto', or "
            "leave that out"
        )
    passed_over: dict[Variant, str] = {}
    for variant in able:
        problem = attempt(variant)
        if not problem:
            return Choice(variant, _why(asked, needs), passed_over)
        passed_over[variant] = problem
    reasons = "; ".join(f"{variant}: {problem}" for variant, problem in passed_over.items())
    raise BackendRefusedError(
        f"this machine has no back-end for {_list(needs)} ({reasons}). {_remedies(able)}"
    )


def _is_asked(variant: Variant, asked: BackendChoice) -> bool:
    return asked in (BackendChoice.AUTO, SKILLS[variant].backend)


def _why(asked: BackendChoice, needs: frozenset[Need]) -> str:
    if asked is BackendChoice.AUTO:
        return f"the cheapest that this machine has for {_list(needs)}"
    return "asked for, and able"


def _list(needs: frozenset[Need]) -> str:
    return ", ".join(["rates and contact windows", *sorted(needs)])


def _remedies(variants: Sequence[Variant]) -> str:
    return " Or: ".join(dict.fromkeys(SKILLS[variant].remedy for variant in variants))
