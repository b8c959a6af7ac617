"""What this machine can do for a run, found out by trying it in a sandbox."""

import asyncio
import re
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from fadelab.exit_codes import FadelabError
from fadelab.local.children import PROCESS_PREFIX
from fadelab.local.launch import Sandboxed
from fadelab.local.trial import attempt
from fadelab_emulation.attach.interfaces import list_interfaces
from fadelab_emulation.attach.journal import has_living_owner
from fadelab_emulation.backends.choice import SKILLS
from fadelab_emulation.backends.lite import lite_backend
from fadelab_emulation.backends.plan import LinkPlan, QueueSizes
from fadelab_emulation.link_state import LinkTick, PacketLoss, plain_tick
from fadelab_emulation.netlink.message import NetlinkError, NetlinkSocket
from fadelab_emulation.sandbox import probe_sandbox
from fadelab_emulation.window import WindowMode
from fadelab_proto.clock import SystemClock

_LINK = re.compile(r"fl\d+|fl-in\d+")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    good: bool
    detail: str
    needed: bool = True
    """Whether no run can do without it."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `fadelab doctor` says."""

    findings: list[Finding] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    @property
    def can_run(self) -> bool:
        """Whether a run can be had on this machine."""
        return all(finding.good for finding in self.findings if finding.needed)

    def as_json(self) -> dict[str, object]:
        """Return the diagnosis for ``--json``."""
        return {"can_run": self.can_run, **asdict(self)}


def diagnose() -> Diagnosis:
    """Look at namespaces, traffic control and what earlier runs may have left; change nothing."""
    probe = probe_sandbox()
    how = "through a user namespace, without root" if probe.user_namespace else "as root"
    findings = [Finding("sandbox", probe.available, how if probe.available else probe.problem)]
    if probe.available:
        findings += _probe_links()
        findings += _probe_backends()
    return Diagnosis(findings, leftovers())


def leftovers() -> list[str]:
    """Name what earlier runs left behind: links, mounts, namespaces, processes."""
    with NetlinkSocket() as netlink:
        found = [
            f"link {one.name}"
            for one in list_interfaces(netlink)
            if _LINK.fullmatch(one.name) and not has_living_owner(one.alias)
        ]
    found += [
        f"mount {line.split()[1]}"
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if Path(line.split()[1]).name.startswith("fadelab")
    ]
    named = Path("/run/netns")
    if named.is_dir():
        found += [f"namespace {entry.name}" for entry in named.glob("fadelab*")]
    found += [f"process {pid} ({name})" for pid, name in _orphans()]
    return found


def _orphans() -> list[tuple[int, str]]:
    """Return processes of runs whose launcher is gone.

    Every process of a run is called ``fadelab:...`` and descends from a launcher that is not; a
    chain of parents that ends without one means that the launcher is dead.
    """
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        rest = stat[stat.rindex(")") + 2 :].split()
        if rest[0] == "Z":
            # It has ended; its new parent only has not looked yet.
            continue
        pid = int(entry.name)
        names[pid] = stat[stat.index("(") + 1 : stat.rindex(")")]
        parents[pid] = int(rest[1])
    return [
        (pid, name)
        for pid, name in sorted(names.items())
        if name.startswith(PROCESS_PREFIX) and _launcher(pid, names, parents) <= 1
    ]


def _launcher(pid: int, names: dict[int, str], parents: dict[int, int]) -> int:
    while names.get(pid, "").startswith(PROCESS_PREFIX):
        pid = parents.get(pid, 0)
    return pid


def _probe_links() -> list[Finding]:
    """Make one link in a sandbox, send through it open and closed; report what the kernel did."""
    sandboxed = Sandboxed("probe", lambda channel: channel.send(findings=_try_one_link()))
    try:
        sandboxed.wait()
    except FadelabError as error:
        return [Finding("links", good=False, detail=str(error))]
    for message in sandboxed.messages:
        if "findings" in message:
            found = message["findings"]
            assert isinstance(found, list)
            return [Finding(*item) for item in found]
    return [Finding("links", good=False, detail="the probe gave no answer")]


def _probe_backends() -> list[Finding]:
    """Make one link with each back-end that can do more than rates and windows."""
    findings = []
    for variant, skill in SKILLS.items():
        if not skill.can:
            continue
        problem = attempt(variant, skill.can, WindowMode.REJECT)
        can = ", ".join(["rates, windows", *sorted(skill.can)])
        detail = can + (", seeded" if skill.loss_is_seeded else "")
        if problem:
            detail = f"{problem}. {skill.remedy}"
        findings.append(Finding(f"back-end {variant}", not problem, detail, needed=False))
    return findings


def _try_one_link() -> list[tuple[str, bool, str]]:
    try:
        backend = lite_backend(LinkPlan([QueueSizes.for_rates(1e7, 1e7)]), SystemClock())
    except NetlinkError as error:
        return [("links", False, f"the kernel refuses a shaped link: {error}")]
    findings = [("links", True, "htb, tbf and veth work")]
    try:
        backend.apply(_tick(0, is_open=True, loss=0.5))
        findings.append(("loss", True, "classic BPF on clsact works"))
    except NetlinkError as error:
        findings.append(("loss", False, f"the kernel refuses a loss filter: {error}"))
    backend.apply(_tick(1, is_open=False, loss=0.0))
    before = int(backend.counters().up.wire_packets[0])
    backend.namespaces[0].run(lambda: _send(backend.server_address, 5))
    asyncio.run(_pause(0.2))
    passed = int(backend.counters().up.wire_packets[0]) - before
    backend.apply(_tick(2, is_open=True, loss=0.0))
    asyncio.run(_pause(0.2))
    resumed = int(backend.counters().up.wire_packets[0]) - before
    tight = passed == 0 and resumed == 5
    detail = "a closed gate holds packets and an open one lets them go"
    if not tight:
        detail = (
            f"{passed} of 5 packets passed a closed gate and {resumed} came after it opened: "
            "contact windows need Linux 5.17, or a stable release of 2022 or later"
        )
    findings.append(("contact windows", tight, detail))
    findings += [
        (f"setting {s.name}", True, f"{s.value}" + ("" if s.as_wished else " (not as wished)"))
        for s in backend.namespaces[0].settings
    ]
    return findings


async def _pause(seconds: float) -> None:
    clock = SystemClock()
    await clock.sleep_until(clock.now_s() + seconds)


def _send(address: str, packets: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(packets):
            sender.sendto(b"fadelab", (address, 9))


def _tick(index: int, *, is_open: bool, loss: float) -> LinkTick:
    rate_bps = np.array([1e7])
    losses = PacketLoss.independent(np.array([loss]))
    return plain_tick(
        rate_bps,
        rate_bps,
        index=index,
        is_open=np.array([is_open]),
        loss_up=losses,
        loss_down=losses,
    )
