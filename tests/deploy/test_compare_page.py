"""The page, the Markdown and the commands of sweeps and comparisons."""

import json
import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from report_outline import Outline
from sweep_runs import (
    VARIANTS,
    plan_of,
    summary_of,
    sweep_file,
    sweep_folder,
    write_planned,
)
from typer.testing import CliRunner

from fadelab.cli.app import app
from fadelab.cli.sweep import SweepView, duration
from fadelab.compare.compute import compare
from fadelab.compare.found import find_runs
from fadelab.compare.markdown import write_markdown
from fadelab.compare.page import build_comparison
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.results.export_schema import SCHEMAS, schema_text
from fadelab.sweep.plan import load_plan
from fadelab.sweep.record import RunEntry

SPEED = "radio.mobility.speed_mps"
MANY = {f"v{number}": {"method.alpha": 0.1 + 0.1 * number} for number in range(9)}
CASES: dict[str, dict[str, Any]] = {
    "no grid": {"seeds": 2},
    "numbers": {"grid": {SPEED: [[2, 2], [10, 10], [30, 30]]}, "seeds": 4},
    "two axes": {
        "grid": {SPEED: [[2, 2], [30, 30]], "partition": [{"kind": "iid"}, {"kind": "dirichlet", "beta": 0.3}]},
        "seeds": 3,
    },
    "one run": {"seeds": 1, "variants": None},
    "many variants": {"seeds": 2, "variants": MANY},
    "many points": {"seeds": 1, "grid": {"method.alpha": [0.05 * k for k in range(1, 15)]}},
}  # fmt: skip


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, FadelabError):
        return int(result.exception.code), str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def write_sweep(path: Path, *, whole: bool = True, **changes: Any) -> Path:
    """Write a sweep in which faster devices learn less; without the first run if not ``whole``."""
    plan = plan_of(path, **changes)
    folder = sweep_folder(path / "sweep", plan)
    rng = np.random.default_rng(4)
    for run in plan.runs if whole else plan.runs[1:]:
        place = plan.variants.index(run.variant) + 0.1 * len(dict(run.point).get(SPEED, ""))
        write_planned(folder, run, 0.5 + 0.03 * place + 0.05 * float(rng.random()))
    return folder.path


@cache
def page_of(case: str) -> str:
    with TemporaryDirectory() as folder:
        found = find_runs([write_sweep(Path(folder), **CASES[case])])
        metrics = ["final", "time_to:0.52"]
        comparison = compare(found, title=case, metrics=metrics, baseline=None)
        return build_comparison(comparison, found.runs)


@pytest.mark.parametrize("case", CASES)
def test_every_comparison_gives_one_self_contained_page(case: str) -> None:
    page = page_of(case)
    outline = Outline(page)
    assert len(page) < 1_500_000
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    assert not {"link", "img", "iframe", "object"} & set(outline.tags)
    assert not [value for _, name, value in outline.attributes if name == "src"]
    identifiers = [value for _, name, value in outline.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    assert not re.search(r"\b(nan|None|inf)\b", outline.visible)
    assert "COMPLETE" in outline.text


def test_axes_and_differences_are_drawn_where_there_are_any() -> None:
    def pictures(case: str) -> list[str]:
        attributes = Outline(page_of(case)).attributes
        return [value for _, name, value in attributes if name == "aria-label"]

    assert pictures("one run") == ["accuracy of task digits over emulated time, by variant"]
    assert pictures("numbers") == [
        "Paired differences of final accuracy to dense",
        "Paired differences of time to accuracy 0.52 to dense",
        "accuracy of task digits over emulated time, by variant",
        f"final accuracy against {SPEED}, by variant",
        f"time to accuracy 0.52 against {SPEED}, by variant",
        "final accuracy against energy, by variant",
    ]
    assert len(pictures("two axes")) == 8
    assert "2 more grid points are not drawn" in Outline(page_of("many points")).visible


def test_what_is_missing_is_said_first(tmp_path: Path) -> None:
    found = find_runs([write_sweep(tmp_path, whole=False)])
    comparison = compare(found, title="t", metrics=["final"], baseline=None)
    text = Outline(build_comparison(comparison, found.runs)).visible
    assert "To be read with care" in text
    assert "Not there, or not at an end: 1 of 4 runs" in text
    assert "COMPLETE" not in text
    written = write_markdown(comparison)
    assert written.index("1 of 4 runs") < written.index("## Final accuracy")
    assert "| dense | **1 of 2** |" in written


def test_compare_writes_its_files_into_the_sweep(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    code, said = call("compare", sweep, "--metric", "best", "--metric", "wire_up")
    assert code == ExitCode.VALID
    assert "Best accuracy" in said
    assert "Uplink on the wire" in said
    written = json.loads((sweep / "compare.json").read_text())
    jsonschema.validate(written, json.loads(schema_text(SCHEMAS["compare.schema.json"])))
    assert written["main"] == ["best", "wire_up"]
    assert (sweep / "compare.md").read_text().startswith("# sweep\n")
    assert (sweep / "compare.html").read_text().startswith("<!doctype html>")


def test_compare_prints_json_alone(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    code, said = call("compare", sweep, "--json", "--out", tmp_path / "out")
    assert code == ExitCode.VALID
    assert json.loads(said) == json.loads((tmp_path / "out" / "compare.json").read_text())


def test_compare_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, said = call("compare", write_sweep(tmp_path), "--out", tmp_path / "file")
    assert code == ExitCode.USAGE
    assert said == f"--out {tmp_path}/file: cannot write there: File exists"


def test_sweep_finds_everything_done(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    code, said = call("sweep", tmp_path / "sweep.yaml", "--out", sweep, "--resume")
    assert code == ExitCode.VALID, said
    assert "4 need no run any more; 0 to run" in said
    assert "4 of 4 runs are valid" in said
    record = json.loads((sweep / "sweep.json").read_text())
    jsonschema.validate(record, json.loads(schema_text(SCHEMAS["sweep-record.schema.json"])))
    assert [run["state"] for run in record["runs"]] == ["valid"] * 4


def test_sweep_leaves_alone_what_the_file_no_longer_has(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    sweep_file(tmp_path, variants={"half": VARIANTS["half"]})
    code, said = call("sweep", tmp_path / "sweep.yaml", "--out", sweep, "--resume")
    assert code == ExitCode.VALID
    assert "2 earlier runs are not in" in said
    assert "2 of 2 runs are valid" in said
    assert (sweep / "runs" / "dense_seed=1" / "summary.json").exists()


def test_sweep_never_begins_in_a_folder_that_exists(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    code, said = call("sweep", tmp_path / "sweep.yaml", "--out", sweep)
    assert code == ExitCode.USAGE
    assert "it exists already; go on with it by --resume" in said
    code, said = call("sweep", tmp_path / "sweep.yaml", "--out", tmp_path, "--resume")
    assert code == ExitCode.USAGE
    assert said == f"{tmp_path} is not the folder of a sweep"


def test_sweep_says_what_is_wrong_before_it_makes_a_folder(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, grid={"devices.count": [4, 0]})
    code, said = call("sweep", path, "--out", tmp_path / "out")
    assert code == ExitCode.USAGE
    assert "'devices.count' is 0" in said
    assert not (tmp_path / "out").exists()


def test_a_damaged_record_is_a_sentence(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    (sweep / "sweep.json").write_text('{"name": 3}')
    code, said = call("sweep", tmp_path / "sweep.yaml", "--out", sweep, "--resume")
    assert code == ExitCode.USAGE
    assert "sweep.json: the key 'file' is missing" in said


def test_the_published_schema_takes_the_example() -> None:
    example = Path(__file__).parents[2] / "examples" / "sweep-codecs.yaml"
    schema = json.loads(schema_text(SCHEMAS["sweep.schema.json"]))
    jsonschema.validate(yaml.safe_load(example.read_text()), schema)
    assert len(load_plan(example).runs) == 6


def test_a_line_says_what_became_of_a_run_and_what_is_to_come(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from rich.console import Console  # noqa: PLC0415 -- after output is captured

    view = SweepView(Console(width=200), 12)
    entry = RunEntry(
        name="dense_seed=1", variant="dense", point={}, seed=1, digest="0", wall_s=12.4
    )
    done = entry.model_copy(update={"state": "valid"})
    view.ended(done, summary_of({0.0: 0.5}), again=False, to_go=9, left_s=130.0)
    bad = entry.model_copy(update={"state": "failed", "reasons": ["no luck"], "attempts": 1})
    view.ended(bad, None, again=True, to_go=9, left_s=130.0)
    assert capsys.readouterr().out.splitlines() == [
        "[ 3/12] dense_seed=1  valid  digits accuracy 0.500  12 s   9 to go, about 2 min",
        "[ 3/12] dense_seed=1  failed  12 s   9 to go, about 2 min",
        "    no luck",
        "    it is made again",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5, "5 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (7200, "2.0 h")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
