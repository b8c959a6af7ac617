"""Write the JSON Schemas that Fadelab publishes, for editors and for readers of its results.

Run ``python -m fadelab.results.export_schema docs/schemas`` after a change to a model.
"""

import argparse
import json
from pathlib import Path

from pydantic import BaseModel

from fadelab.cli.processes import AgentFile
from fadelab.compare.schema import Comparison
from fadelab.experiment import Experiment
from fadelab.results.schema import Summary
from fadelab.sweep.file import SweepFile
from fadelab.sweep.record import SweepRecord
from fadelab_server.config import ServerConfig

SCHEMAS: dict[str, type[BaseModel]] = {
    "agent.schema.json": AgentFile,
    "compare.schema.json": Comparison,
    "experiment.schema.json": Experiment,
    "server.schema.json": ServerConfig,
    "summary.schema.json": Summary,
    "sweep.schema.json": SweepFile,
    "sweep-record.schema.json": SweepRecord,
}
"""Which model each published file describes."""


def schema_text(model: type[BaseModel]) -> str:
    """Return a model's JSON Schema (draft 2020-12) as the text of a file."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | model.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def export(directory: Path) -> None:
    """Write every schema into ``directory``, which is made if need be."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, model in SCHEMAS.items():
        (directory / name).write_text(schema_text(model), encoding="utf-8")


def outdated(directory: Path) -> list[str]:
    """Name the files in ``directory`` that are missing or differ from what would be written."""
    return [
        name
        for name, model in SCHEMAS.items()
        if not (directory / name).is_file()
        or (directory / name).read_text(encoding="utf-8") != schema_text(model)
    ]


def main() -> None:
    """Write the schemas, or with ``--check`` fail if the written ones are not current."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("directory", type=Path, nargs="?", default=Path("docs/schemas"))
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    if not arguments.check:
        export(arguments.directory)
    elif stale := outdated(arguments.directory):
        parser.exit(1, f"Not current: {', '.join(stale)}. Run this again without --check.\n")


if __name__ == "__main__":
    main()
