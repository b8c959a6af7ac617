"""Named namespaces: what is refused before anything is touched."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.link import named


def drive(name: str) -> None:
    with named.hold(name):
        pytest.fail("these links should not be had")


VERBS: list[Callable[[str], None]] = [lambda name: named.create(name, 1), named.delete, drive]


def refusal(verb: Callable[[str], None], name: str) -> FadelabError:
    with pytest.raises(FadelabError) as refused:
        verb(name)
    return refused.value


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "netns"
    monkeypatch.setattr(named, "RUN_DIR", folder)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return folder


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", ["", "Lab", "a-1", "../a", "a b", "1a", "a" * 33])
def test_names_that_cannot_be(run_dir: Path, verb: Callable[[str], None], name: str) -> None:
    error = refusal(verb, name)
    assert error.code == ExitCode.USAGE
    assert "cannot be a name of links" in str(error)
    assert not run_dir.exists()


@pytest.mark.parametrize("verb", VERBS)
def test_without_root_the_rootless_way_is_named(
    run_dir: Path, verb: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    error = refusal(verb, "lab")
    assert error.code == ExitCode.ENVIRONMENT
    assert "needs root" in str(error)
    assert "`fadelab link run`" in str(error)
    assert not run_dir.exists()


@pytest.mark.parametrize("verb", VERBS[1:])
def test_unknown_names(run_dir: Path, verb: Callable[[str], None]) -> None:
    error = refusal(verb, "lab")
    assert error.code == ExitCode.USAGE
    assert str(error) == "there are no links called 'lab'; there are: none at all"


def test_existing_names_and_absurd_numbers(run_dir: Path) -> None:
    run_dir.mkdir()
    (run_dir / "fadelab-lab-7").touch()
    assert "fadelab-lab-7 exists already" in str(refusal(VERBS[0], "lab"))
    assert "1 to 1000 devices" in str(refusal(lambda name: named.create(name, 0), "other"))
    assert [path.name for path in run_dir.iterdir()] == ["fadelab-lab-7"]


def test_what_a_killed_command_left_is_listed_and_can_be_deleted(run_dir: Path) -> None:
    run_dir.mkdir()
    for name in ("fadelab-lab-0", "fadelab-lab-1", "fadelab-Other", "somebody"):
        (run_dir / name).touch()
    (found,) = named.listing()
    assert found.as_json() == {"name": "lab", "devices": 2, "whole": False, "driven": False}
    assert "not all there" in str(refusal(drive, "lab"))
    named.delete("lab")
    assert sorted(path.name for path in run_dir.iterdir()) == ["fadelab-Other", "somebody"]
