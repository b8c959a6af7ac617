"""Folders of a run: those of the dead are found, those of the living are left alone."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.children import Channel, fork_child
from fadelab.local.launch import (
    Sandboxed,
    dead_sockets_dirs,
    new_run_dir,
    remove_dead_sockets_dirs,
    sockets_dir,
    write_json,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def _temporary_files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def hold_a_folder(channel: Channel) -> None:
    with sockets_dir() as folder:
        channel.send(folder=str(folder))
        signal.pause()


def test_a_sockets_folder_lives_as_long_as_its_run(tmp_path: Path) -> None:
    with sockets_dir() as folder:
        assert folder.parent == tmp_path
        (folder / "radio").touch()
        assert dead_sockets_dirs() == []
    assert not folder.exists()


def test_the_folder_of_a_killed_run_is_found_and_removed_but_not_before(tmp_path: Path) -> None:
    run = fork_child("run", hold_a_folder)
    message = run.channel.receive()
    assert message is not None
    folder = Path(str(message["folder"]))
    assert remove_dead_sockets_dirs() == []
    assert folder.exists()
    run.signal(signal.SIGKILL)
    os.waitpid(run.pid, 0)
    os.close(run.descriptor)
    assert dead_sockets_dirs() == [folder]
    with sockets_dir():
        assert not folder.exists()


def test_folders_that_only_look_alike_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "fadelab-notes").mkdir()
    (tmp_path / "fadelab-file").touch()
    assert remove_dead_sockets_dirs() == []
    assert (tmp_path / "fadelab-notes").exists()


def test_run_directories_are_numbered(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert [new_run_dir(runs, "a").name for _ in range(3)] == ["a-1", "a-2", "a-3"]
    (runs / "a-2").rmdir()
    assert new_run_dir(runs, "a").name == "a-2"
    assert new_run_dir(runs, "b").name == "b-1"


def test_a_run_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(FadelabError, match=r"cannot make .*runs/a-1: Not a directory") as caught:
        new_run_dir(tmp_path / "runs", "a")
    assert caught.value.code == ExitCode.USAGE


def test_json_is_written_for_people(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"name": "Übung"})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "name": "Übung"\n}\n'


@pytest.mark.namespaces
@pytest.mark.usefixtures("_needs_sandbox")
class TestSandboxed:
    def test_messages_come_out(self) -> None:
        sandboxed = Sandboxed("probe", lambda channel: channel.send(user=os.getuid()))
        sandboxed.wait()
        assert [set(message) for message in sandboxed.messages] == [{"user"}]

    def test_a_known_failure_comes_out_in_its_own_words(self) -> None:
        def work(_: Channel) -> None:
            raise FadelabError(ExitCode.CHECKPOINT, "the disk is full")

        with pytest.raises(FadelabError, match=r"^the disk is full$") as caught:
            Sandboxed("probe", work).wait()
        assert caught.value.code == ExitCode.CHECKPOINT

    def test_an_end_from_outside_is_told_apart(self) -> None:
        sandboxed = Sandboxed("probe", lambda _: signal.pause())
        sandboxed.stop(signal.SIGKILL)
        with pytest.raises(FadelabError, match="ended from outside") as caught:
            sandboxed.wait()
        assert caught.value.code == ExitCode.COMPONENT_FAILED
