"""From the options of ``fadelab link`` to a job; what does not fit is refused in one sentence."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ValidationError

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import read_yaml
from fadelab.link.job import LinkJob, LinksSection
from fadelab.link.recording import schedule_path
from fadelab.mistakes import describe
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.contact.outages import OutageConfig
from fadelab_emulation.schedule import ScheduleReader
from fadelab_emulation.timeline.config import TimelineConfig
from fadelab_emulation.timeline.rate_steps import load_rate_steps
from fadelab_emulation.timeline.replay import AtEnd
from fadelab_emulation.window import BackendChoice, WindowMode

_IMPAIRMENTS = (
    "delay_up_s",
    "delay_down_s",
    "jitter_up_s",
    "jitter_down_s",
    "loss_up",
    "loss_down",
)
_RATES = ("rate_up_bps", "rate_down_bps", "trace_up", "trace_down")
_OF_RECORDINGS = ("device", "at_end")
_NAMES = {"loss_up": "packet_loss_up", "loss_down": "packet_loss_down"}
"""What options are called in a configuration, where it is something else."""


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """What the user said; None where nothing. Options are named after the fields."""

    rate_up_bps: float | None = None
    rate_down_bps: float | None = None
    trace_up: Path | None = None
    trace_down: Path | None = None
    timeline: Path | None = None
    device: int | None = None
    at_end: AtEnd | None = None
    radio: Path | None = None
    delay_up_s: float | None = None
    delay_down_s: float | None = None
    jitter_up_s: float | None = None
    jitter_down_s: float | None = None
    loss_up: float | None = None
    loss_down: float | None = None
    tick_s: float | None = None
    outages: tuple[tuple[float, float], ...] = ()
    window: WindowMode | None = None
    backend: BackendChoice | None = None
    seed: int = 0
    devices: int = 1

    def with_devices(self, devices: int) -> "LinkOptions":
        """Return the same for another number of devices."""
        return replace(self, devices=devices)

    def job(self) -> LinkJob:
        """Return what these options ask for.

        Raises:
            FadelabError: USAGE, with a sentence on what is wrong.

        """
        try:
            links, downlink = self._followed()
            return LinkJob(
                links=links,
                devices=self.devices,
                seed=self.seed,
                outages=self._outages(),
                recorded_device=self.device,
                downlink=downlink,
            )
        except OSError as error:
            problem = f"cannot read {error.filename}: {error.strerror}"
            raise FadelabError(ExitCode.USAGE, problem) from None
        except ValueError as error:
            raise FadelabError(ExitCode.USAGE, str(error)) from None

    def _followed(self) -> tuple[LinksSection, LinksSection | None]:
        """Return what the links follow, and what the downlink follows if it is something else."""
        if self.radio is not None:
            beside = ("timeline", *_RATES, *_OF_RECORDINGS, *_IMPAIRMENTS, "tick_s")
            self._refuse(beside, f"{self.radio} says that already")
            return self._with_wishes(_load_section(self.radio)), None
        if self.timeline is not None:
            self._refuse(_RATES, f"{self.timeline} says that already")
            return self._of_timeline(self.timeline), None
        self._refuse(_OF_RECORDINGS, "it needs a recorded schedule, given with --timeline")
        return self._of_rates()

    def _of_rates(self) -> tuple[LinksSection, LinksSection | None]:
        for direction in ("up", "down"):
            if len([name for name in self._given(_RATES) if direction in name]) != 1:
                raise ValueError(
                    f"the {direction}link needs either --rate-{direction} or "
                    f"--trace-{direction}; or give --timeline or --radio for both directions"
                )
        up_bps, down_bps = self.rate_up_bps, self.rate_down_bps
        if up_bps is not None and down_bps is not None:
            return self._fixed(up_bps, down_bps), None
        if up_bps is not None:
            return self._fixed(up_bps, up_bps), self._traces(self.trace_down, self.trace_down)
        if down_bps is not None:
            return self._traces(self.trace_up, self.trace_up), self._fixed(down_bps, down_bps)
        return self._traces(self.trace_up, self.trace_down), None

    def _fixed(self, up_bps: float, down_bps: float) -> LinksSection:
        rate = {"kind": "fixed", "rate_up_bps": up_bps, "rate_down_bps": down_bps}
        return self._built(RadioConfig, mobility={"kind": "static"}, rate=rate)

    def _traces(self, up: Path | None, down: Path | None) -> LinksSection:
        return self._built(TimelineConfig, timeline={"kind": "mahimahi", "up": up, "down": down})

    def _of_timeline(self, path: Path) -> LinksSection:
        if path.suffix == ".csv":
            self._refuse(_OF_RECORDINGS, "it needs a recorded schedule, and this is a table")
            columns = load_rate_steps(path).columns
            told = [name for name in self._given(_IMPAIRMENTS) if _column(name) in columns]
            self._refuse(told, f"{path} has a column for it")
            return self._built(TimelineConfig, timeline={"kind": "csv", "path": path})
        self._refuse((*_IMPAIRMENTS, "tick_s"), f"{path} is a recording and says that already")
        recording = schedule_path(path)
        return self._built(
            TimelineConfig,
            tick_s=ScheduleReader(recording).tick_s,
            timeline={"kind": "replay", "path": recording, "at_end": self.at_end or AtEnd.LOOP},
        )

    def _outages(self) -> tuple[OutageConfig, ...]:
        if not self.outages:
            return ()
        try:
            return (OutageConfig(windows_s=list(self.outages)),)
        except ValidationError as error:
            sentence = describe(error, "--outage", OutageConfig)
            raise FadelabError(ExitCode.USAGE, sentence) from None

    def _built(
        self, model: type[RadioConfig] | type[TimelineConfig], **own: object
    ) -> LinksSection:
        common = {
            _NAMES.get(name, name): getattr(self, name)
            for name in self._given((*_IMPAIRMENTS, "tick_s"))
        }
        try:
            return self._with_wishes(model.model_validate(common | own))
        except ValidationError as error:
            raise FadelabError(ExitCode.USAGE, describe(error, "link options", model)) from None

    def _with_wishes(self, links: LinksSection) -> LinksSection:
        wishes = {name: getattr(self, name) for name in self._given(("window", "backend"))}
        return links.model_copy(update=wishes)

    def _given(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if getattr(self, name) is not None]

    def _refuse(self, names: Iterable[str], why: str) -> None:
        for name in self._given(names):
            raise ValueError(f"leave {_option(name)} out: {why}")


def _option(field: str) -> str:
    return "--" + field.removesuffix("_s").removesuffix("_bps").replace("_", "-")


def _column(field: str) -> str:
    """Return the column of a table that says the same as an option."""
    return "delay_s" if field.startswith("delay") else field


def _load_section(path: Path) -> LinksSection:
    """Read a file that is an experiment's ``radio`` section, or an experiment that has one."""
    tree = read_yaml(path)
    section = tree.get("radio", tree)
    timeline = isinstance(section, dict) and "timeline" in section
    model: type[BaseModel] = TimelineConfig if timeline else RadioConfig
    try:
        found = model.model_validate(section)
    except ValidationError as error:
        raise FadelabError(ExitCode.USAGE, describe(error, str(path), model)) from None
    assert isinstance(found, RadioConfig | TimelineConfig)
    return found
