"""What the list of verbs says without importing them, held against what they are."""

import ast
import subprocess
import sys

import pytest
import typer
from import_closure import packages
from run_record import QUICKSTART

from fadelab.cli.app import app
from fadelab.cli.verbs import VERBS, Verb

# What `pip install fadelab[command]` brings, which every installation has.
ALWAYS_THERE = {
    "google",
    "google_crc32c",
    "grpc",
    "numpy",
    "pydantic",
    "pydantic_core",
    "rich",
    "typer",
    "yaml",
}
# What no experiment needs that asks for none of it; torch is the nursery's alone.
HEAVY = ("cryptography", "cvxpy", "docker", "kubernetes", "matplotlib", "scipy", "sklearn", "torch")
UNUSED = ("fadelab.compose", "fadelab.report.write", "fadelab.results", "fadelab_server.app")


def imported(program: str) -> set[str]:
    """Return what a new interpreter has imported after a program."""
    said = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(sorted(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    found: list[str] = ast.literal_eval(said.splitlines()[-1])
    return set(found)


@pytest.mark.parametrize("name", VERBS)
def test_the_list_says_what_a_verb_says_of_itself(name: str) -> None:
    listed = typer.main.get_command(app)
    context = typer.Context(listed)
    command = listed.get_command(context, name)
    assert command.get_short_help_str(limit=1000) == VERBS[name].summary


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_packages_are_those_that_a_verb_imports(verb: Verb) -> None:
    module = verb.place.partition(":")[0]
    at_once = packages(module, deferred=False) - ALWAYS_THERE
    assert at_once <= set(verb.needs)
    assert set(verb.needs) <= packages(module, deferred=True)


def test_the_list_imports_no_verb() -> None:
    modules = imported(
        "from fadelab.cli import main\nsys.argv[1:] = ['--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    places = {verb.place.partition(":")[0] for verb in VERBS.values()}
    assert places.isdisjoint(modules)
    assert "fadelab.cli.app" in modules
    assert {"grpc", "numpy", "pydantic", *HEAVY}.isdisjoint(modules)


def test_a_run_imports_what_it_needs_to_begin() -> None:
    modules = imported(
        "from pathlib import Path\nimport fadelab.cli.run\n"
        "from fadelab.experiment import load_experiment\n"
        f"load_experiment(Path({str(QUICKSTART)!r}))"
    )
    assert "fadelab.local.supervisor" in modules
    assert set(HEAVY).isdisjoint(modules)
    assert not [name for name in modules if name.startswith(UNUSED)]
