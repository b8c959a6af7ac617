"""The sweep file: which settings of an experiment vary, and over which seeds."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import read_yaml
from fadelab.mistakes import describe
from fadelab_proto.config import StrictModel

Settings = dict[str, JsonValue]
"""Settings of an experiment by their path with dots, such as ``radio.tick_s``."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
NAME_RULE = "at most 64 letters, digits, '_', '.' and '-'; a letter or digit first."

Name = Annotated[str, Field(pattern=NAME_PATTERN, description=NAME_RULE)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
SeedCount = Annotated[int, Field(ge=1, le=1000)]
GridValues = Annotated[list[JsonValue], Field(min_length=1)]
NamedPoints = Annotated[dict[str, Settings], Field(min_length=1)]


class SweepFile(StrictModel):
    """Runs of one experiment: every grid point with every variant and every seed."""

    name: Name | None = Field(None, description="Of the sweep; the file's name when left out.")
    description: str = ""
    experiment: str | dict[str, JsonValue] = Field(
        description="An experiment file, its path relative to this file; or a whole experiment."
    )
    settings: Settings = Field(
        default={}, description="Settings of all runs by their path with dots."
    )
    variants: dict[str, Settings] = Field(
        default={},
        description="What is compared: names, each with the settings that make it up. When left out, "
        "the values of a grid axis 'method'; without one, the experiment as it is.",
    )
    grid: dict[str, GridValues | NamedPoints] = Field(
        default={},
        description="Axes: a setting's path with a list of its values; or a name of your own with "
        "named points, each with its settings.",
    )
    seeds: SeedCount | Annotated[list[Seed], Field(min_length=1)] = Field(
        description="A list of seeds, or their number: 5 stands for 1 to 5."
    )
    exclude: list[Settings] = Field(
        default=[],
        description="Runs to leave out: each entry names axes, 'variant' or 'seed' with the value "
        "or name that all must have.",
    )
    attempts: int = Field(
        2, ge=1, le=10, description="How often a run that fails or is not valid is made at most."
    )
    baseline: str | None = Field(
        None, description="The variant that others are compared with; the first when left out."
    )

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: int | list[int]) -> int | list[int]:
        if isinstance(seeds, list) and len(set(seeds)) < len(seeds):
            raise ValueError("a seed stands there twice")
        return seeds

    @model_validator(mode="after")
    def _names_are_names(self) -> Self:
        axes = [("grid", name) for name, points in self.grid.items() if isinstance(points, dict)]
        for section, name in [("variants", name) for name in self.variants] + axes:
            if not re.match(NAME_PATTERN, name):
                raise ValueError(f"the name '{name}' in {section} is not allowed: {NAME_RULE}")
        return self

    @model_validator(mode="after")
    def _keys_are_settings(self) -> Self:
        points = [
            (f"grid.{axis}.{name}", settings)
            for axis, given in self.grid.items()
            if isinstance(given, dict)
            for name, settings in given.items()
        ]
        variants = [(f"variants.{name}", settings) for name, settings in self.variants.items()]
        lists: Settings = {key: None for key, given in self.grid.items() if isinstance(given, list)}
        groups = [("settings", self.settings), ("grid", lists), *variants, *points]
        for section, settings in groups:
            for key in settings:
                if not all(key.split(".")):
                    raise ValueError(f"'{key}' in {section} is not the path of a setting")
                if key == "seed":
                    raise ValueError(f"'seed' in {section}: seeds are given by 'seeds'")
        return self

    @property
    def seed_list(self) -> list[int]:
        """The seeds, in order."""
        return self.seeds if isinstance(self.seeds, list) else list(range(1, self.seeds + 1))


def load_sweep_file(path: Path) -> tuple[SweepFile, dict[str, object]]:
    """Read a sweep file and the experiment that it builds upon, which is not checked yet.

    Raises:
        FadelabError: USAGE, naming the file, the key, what was given and what is allowed.

    """
    try:
        file = SweepFile.model_validate(read_yaml(path, "sweep"))
    except ValidationError as error:
        raise FadelabError(ExitCode.USAGE, describe(error, str(path), SweepFile)) from None
    if isinstance(file.experiment, str):
        return file, read_yaml(path.parent / file.experiment)
    return file, dict(file.experiment)
