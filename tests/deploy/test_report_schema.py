"""The JSON Schemas that are published."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from fadelab.results.export_schema import SCHEMAS, export, outdated, schema_text
from fadelab.results.ledger import add_ledgers
from fadelab.results.schema import (
    Joules,
    Lateness,
    Links,
    Staleness,
    StartUp,
    Summary,
    Totals,
    UpdateCounts,
)

SUMMARY = Summary(
    name="empty",
    valid=False,
    invalid_reasons=["Nothing ran."],
    links=Links(
        backend=None,
        variant=None,
        why=None,
        passed_over=[],
        window=None,
        loss_is_seeded=None,
        time_scale=1.0,
        oracle=False,
        calibration=[],
    ),
    duration_s=0.0,
    wall_s=0.0,
    tasks={},
    devices={},
    total=Totals(
        bytes=add_ledgers([]),
        updates=UpdateCounts(started=0, complete=0, partial=0, lost=0),
        staleness=Staleness(versions=[], seconds=[]),
        leaked_packets=0,
        connectivity=None,
        resume_p95_ms=None,
        joules=Joules(compute=0.0, uplink=0.0, downlink=0.0),
    ),
    lateness=Lateness(ticks=0, p50_ms=0.0, p99_ms=0.0, max_ms=0.0),
    start_up=StartUp(
        links_s=0.0, agents_forked_s=0.0, all_joined_s=0.0, median_private_memory_mib=None
    ),
)


def summary_schema() -> dict[str, object]:
    return json.loads(schema_text(Summary))


def test_what_we_write_satisfies_the_published_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(summary_schema())
    jsonschema.validate(json.loads(SUMMARY.model_dump_json()), summary_schema())


@pytest.mark.parametrize(
    "change", [{"valid": "maybe"}, {"surprise": 1}, {"total": {}}, {"duration_s": None}]
)
def test_the_schema_refuses_what_is_no_summary(change: dict[str, object]) -> None:
    body = json.loads(SUMMARY.model_dump_json()) | change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, summary_schema())


def test_export_writes_every_schema_and_knows_when_they_are_outdated(tmp_path: Path) -> None:
    directory = tmp_path / "schemas"
    assert outdated(directory) == list(SCHEMAS)
    export(directory)
    assert outdated(directory) == []
    (directory / "summary.schema.json").write_text("{}", encoding="utf-8")
    assert outdated(directory) == ["summary.schema.json"]


def test_check_fails_and_names_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fadelab.results.export_schema", str(tmp_path)]
    checked = subprocess.run(
        [*command, "--check"], capture_output=True, text=True, check=False, timeout=120
    )
    assert checked.returncode == 1
    assert "summary.schema.json" in checked.stderr

    assert subprocess.run(command, check=False, timeout=120).returncode == 0
    assert subprocess.run([*command, "--check"], check=False, timeout=120).returncode == 0
