"""What a run in containers makes of the engine's news."""

import asyncio
import queue
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commandline import command
from run_record import QUICKSTART

from fadelab.compose.command import ComposeCommand
from fadelab.compose.crew import Crew
from fadelab.compose.leftovers import owner_labels, remove_leftovers
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.launch import sockets_dir


class Container:
    """A container as the engine's client shows it."""

    def __init__(self, labels: dict[str, str], said: str = "") -> None:
        self.labels = labels
        self.removed = False
        self._said = said.encode()

    def logs(self, **_: Any) -> bytes:
        return self._said

    def remove(self, **_: Any) -> None:
        self.removed = True


class Client:
    """An engine's client whose containers say what the test says, and end when it says so."""

    def __init__(self, *containers: Container) -> None:
        self.api = SimpleNamespace(events=lambda **_: self)
        self.containers = SimpleNamespace(list=self._list)
        self._known = containers
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._now = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._events.get, None)

    def close(self) -> None:
        self._events.put(None)

    def tell(self, action: str, service: str, exit_code: int = 0) -> None:
        self._now += 1
        attributes = {"fadelab.service": service, "exitCode": str(exit_code)}
        self._events.put(
            {"Action": action, "Actor": {"Attributes": attributes}, "timeNano": self._now}
        )

    def _list(self, filters: dict[str, list[str]], **_: Any) -> list[Container]:
        wanted = {tuple(label.split("=", 1)) for label in filters["label"]}
        return [one for one in self._known if wanted <= set(one.labels.items())]


def labelled(service: str, said: str) -> Container:
    return Container({"fadelab.run": "1", "fadelab.service": service}, said)


def following(client: Client, work: Callable[[Crew], Awaitable[object]]) -> list[str]:
    """Carry ``work`` out beside a crew; return who was said to have started again."""
    again: list[str] = []

    async def body() -> None:
        crew = Crew(SimpleNamespace(client=client), "1", again.append)  # type: ignore[arg-type]
        try:
            await asyncio.wait_for(work(crew), 20)
        finally:
            crew.close()

    asyncio.run(body())
    return again


@pytest.mark.parametrize(
    ("exit_code", "said", "code", "sentence"),
    [
        (2, "fadelab: nothing of the kind\n", 2, "emulator: nothing of the kind"),
        (1, "Traceback\nValueError: x\n", 6, "emulator: it ended unexpectedly with exit code 1"),
        (137, "fadelab: old\n", 6, "emulator: it ended unexpectedly with SIGKILL"),
        (0, "", 6, "emulator: it ended unexpectedly with exit code 0"),
    ],
)
def test_an_end_is_told_as_that_of_a_process_is(
    exit_code: int, said: str, code: int, sentence: str
) -> None:
    client = Client(labelled("emulator", said))
    client.tell("start", "emulator")
    client.tell("die", "emulator", exit_code)
    with pytest.raises(FadelabError) as ended:
        following(client, lambda crew: crew.unless_one_dies(asyncio.Event().wait()))
    assert ended.value.code == code
    assert str(ended.value).startswith(sentence)
    assert ("ValueError: x" in str(ended.value)) == (exit_code == 1)


def test_a_killed_server_is_waited_for_and_one_that_gave_up_is_not() -> None:
    client = Client(labelled("server", "fadelab: the disk is full\n"))

    async def killed(crew: Crew) -> None:
        client.tell("die", "server", 137)
        back = asyncio.ensure_future(crew.server_is_back())
        await crew.until(lambda: "server" in crew.ended, 5)
        assert not back.done()
        client.tell("start", "server")
        assert await back
        client.tell("die", "server", 8)
        with pytest.raises(FadelabError, match="server: the disk is full") as ended:
            await crew.server_is_back()
        assert ended.value.code == ExitCode.CHECKPOINT

    assert following(client, killed) == ["server"]


def test_before_the_run_begins_the_first_bad_end_is_its_reason() -> None:
    said = (labelled("agent-0", "fadelab: no data\n"), labelled("emulator", "fadelab: no agent\n"))
    client = Client(*said)

    async def both_end(crew: Crew) -> None:
        client.tell("die", "agent-0", 5)
        client.tell("die", "emulator", 2)
        await crew.until(lambda: "emulator" in crew.ended, 5)
        with pytest.raises(FadelabError, match="agent-0: no data") as ended:
            await crew.unless_one_dies(asyncio.Event().wait())
        assert ended.value.code == ExitCode.DATA_MISSING
        crew.assembling = False
        with pytest.raises(FadelabError, match="emulator: no agent"):
            await crew.unless_one_dies(asyncio.Event().wait())

    following(client, both_end)


def test_an_agent_that_is_back_is_no_trouble() -> None:
    client = Client(labelled("agent-0", "fadelab: no\n"))

    async def two_ends(crew: Crew) -> None:
        client.tell("die", "agent-0", 137)
        client.tell("start", "agent-0")
        client.tell("die", "agent-1", 0)
        await crew.until(lambda: "agent-1" in crew.ended, 5)
        assert crew.troubles(["agent-0", "agent-1"]) == {}
        client.tell("die", "agent-0", 9)
        await crew.until(lambda: "agent-0" in crew.ended, 5)
        found = crew.troubles(["agent-0", "agent-1"])
        assert found == {"agent-0": "agent-0 ended early: no"}

    assert following(client, two_ends) == ["agent-0"]


def test_an_engine_that_goes_is_the_runs_end() -> None:
    client = Client()
    client.close()
    with pytest.raises(FadelabError, match="the Docker engine stopped answering"):
        following(client, lambda crew: crew.unless_one_dies(asyncio.Event().wait()))


def test_only_what_ones_own_dead_launchers_left_is_removed(tmp_path: Path) -> None:
    with sockets_dir() as living:
        run = {"fadelab.run": "7"}
        mine = Container(run | owner_labels(living))
        dead = Container(run | owner_labels(tmp_path / "gone"))
        others = Container(run | owner_labels(tmp_path) | {"fadelab.owner": "nobody@elsewhere"})
        by_hand = Container(run)
        client = Client(mine, dead, others, by_hand)
        engine: Any = SimpleNamespace(client=client)
        assert remove_leftovers(engine) == ["the containers of run 7"]
        assert [one.removed for one in (mine, dead, others, by_hand)] == [False, True, False, False]


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ("unix:///nowhere/socket", "no Docker engine answers"),
        ("tcp://192.0.2.1:2375", "name an engine of this machine"),
    ],
)
def test_without_an_engine_of_this_machine_there_is_one_sentence_and_no_folder(
    host: str, sentence: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ended = command("run", QUICKSTART, "--deploy", "compose", "--out", out, DOCKER_HOST=host)
    assert ended.returncode == ExitCode.ENVIRONMENT
    assert sentence in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not out.exists()


def test_a_tag_is_for_containers_alone() -> None:
    ended = command("run", QUICKSTART, "--tag", "mine")
    assert ended.returncode == ExitCode.USAGE
    assert "give --deploy compose as well" in ended.stderr


def test_without_a_compose_command_the_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FadelabError, match="install Docker's compose plugin") as missing:
        ComposeCommand()
    assert missing.value.code == ExitCode.ENVIRONMENT


@pytest.mark.parametrize(
    ("has_plugin", "name"), [(True, "docker compose"), (False, "docker-compose")]
)
def test_either_compose_command_will_do(
    has_plugin: bool, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program, code in (("docker", int(not has_plugin)), ("docker-compose", 0)):
        (tmp_path / program).write_text(f"#!/bin/sh\necho $* >> {tmp_path}/said\nexit {code}\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = ComposeCommand()
    assert found.name == name
    asyncio.run(found.up(tmp_path / "compose.yaml", "project"))
    said = (tmp_path / "said").read_text()
    assert f"--project-name project --file {tmp_path}/compose.yaml up --detach" in said


def test_what_compose_has_to_say_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docker-compose").write_text("#!/bin/sh\necho no space left; exit 1\n")
    (tmp_path / "docker-compose").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = ComposeCommand()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(FadelabError, match="`docker-compose up` failed:\n  no space left"):
        asyncio.run(found.up(tmp_path / "compose.yaml", "project"))
