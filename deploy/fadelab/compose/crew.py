"""The containers of one run: started, ended and started again, as the engine tells of it."""

import asyncio
import contextlib
import functools
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fadelab.compose.services import EMULATOR, HUB, RUN_LABEL, SERVER, SERVICE_LABEL
from fadelab.emulate.engine import DockerEngine
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.children import how_it_ended

_NEEDED = (HUB, SERVER, EMULATOR)
_RESTART_S = 20.0
"""So long may a killed server stay away until somebody starts it again."""
_SYMPTOM_S = 2.0
_TAIL_LINES = 5
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Ended:
    """A container that has ended."""

    exit_code: int
    """Of its first process; 128 and a signal's number if one ended that."""
    at_s: float

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it: whoever sent that may start it again."""
        return self.exit_code - 128 in signal.valid_signals()

    @property
    def how(self) -> str:
        """How it ended, in words."""
        return how_it_ended(128 - self.exit_code if self.was_killed else self.exit_code)


class Crew:
    """Follows the containers that bear a run's label; :meth:`close` ends that.

    Args:
        engine: whom to ask.
        run_id: the value of the label.
        noted: is told of each container that has started again: its service.

    """

    def __init__(self, engine: DockerEngine, run_id: str, noted: Callable[[str], None]) -> None:
        self._client: Any = engine.client
        self._run_id = run_id
        self._noted = noted
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._running: set[str] = set()
        self._engine_gone = False
        self.assembling = True
        """Whether the run has not begun: without any one of them it never will."""
        self.ended: dict[str, Ended] = {}
        """Services whose container does not run any more."""
        self._stream: Any = self._client.api.events(
            since=int(time.time()),
            decode=True,
            filters={
                "type": "container",
                "event": ["start", "die"],
                "label": f"{RUN_LABEL}={run_id}",
            },
        )
        self._thread = threading.Thread(target=self._listen, name="containers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._thread.join(timeout=1.0)

    # -- waiting ---------------------------------------------------------------------------------

    async def unless_one_dies(self, work: Awaitable[_T], *, may_end: Iterable[str] = ()) -> _T:
        """Return the result of ``work``.

        Args:
            work: what is waited for.
            may_end: services whose regular end is no reason to stop waiting.

        Raises:
            FadelabError: with the container's own words, if one that a run needs ends before.

        """
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                self._mourn(may_end)
                await self._news_or(task)
            if task.exception() is not None:
                # A death may show first as its consequence, such as a broken connection.
                await self.until(lambda: bool(self.ended.keys() & set(_NEEDED)), _SYMPTOM_S)
            self._mourn(may_end)
            return task.result()
        finally:
            task.cancel()

    async def until(self, condition: Callable[[], bool], patience_s: float) -> bool:
        """Wait until containers have started or ended so that ``condition`` holds; say if it does."""
        deadline_s = time.monotonic() + patience_s
        while not condition() and (left_s := deadline_s - time.monotonic()) > 0:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left_s)
            if self._engine_gone:
                break
        return condition()

    async def server_is_back(self) -> bool:
        """Say if a server that was killed runs again; False if it has ended in order.

        Raises:
            FadelabError: if it ended otherwise, nobody has started it again in time, or it is alive
                and does not answer.

        """
        if not await self.until(lambda: SERVER in self.ended, _SYMPTOM_S):
            raise FadelabError(ExitCode.COMPONENT_FAILED, "the server stopped answering")
        if self.ended[SERVER].exit_code == 0:
            return False
        if self.ended[SERVER].was_killed:
            await self.until(lambda: SERVER not in self.ended, _RESTART_S)
        if SERVER in self.ended:
            raise self.obituary(SERVER)
        return True

    def troubles(self, services: Iterable[str]) -> dict[str, str]:
        """Return those of the services that have ended badly and not started again, and how."""
        return {
            service: f"{service} ended early: {self.last_words(service)}"
            for service in services
            if service in self.ended and self.ended[service].exit_code != 0
        }

    async def _news_or(self, task: "asyncio.Future[_T]") -> None:
        self._news.clear()
        news = asyncio.ensure_future(self._news.wait())
        await asyncio.wait((task, news), return_when=asyncio.FIRST_COMPLETED)
        news.cancel()

    def _mourn(self, may_end: Iterable[str]) -> None:
        if self._engine_gone:
            raise FadelabError(ExitCode.COMPONENT_FAILED, "the Docker engine stopped answering")
        # An end may have brought about others: the first one counts.
        for service, ended in sorted(self.ended.items(), key=lambda entry: entry[1].at_s):
            if service == SERVER and ended.was_killed:
                # Somebody may start it again: whoever talks to it waits for that.
                continue
            if ended.exit_code == 0 and service in may_end:
                continue
            if service in _NEEDED or (self.assembling and ended.exit_code != 0):
                raise self.obituary(service)

    # -- what became of them ---------------------------------------------------------------------

    def obituary(self, service: str) -> FadelabError:
        """Return why a container ended, with the exit code that it ended with if it is ours."""
        code = self.ended[service].exit_code
        known = ExitCode(code) if code in _CODES else ExitCode.COMPONENT_FAILED
        return FadelabError(known, f"{service}: {self.last_words(service)}")

    def last_words(self, service: str) -> str:
        """Return the sentence that a container ended with, or how it ended and its last lines."""
        lines = self.log(service).strip().split("\n")
        for line in reversed(lines[-_TAIL_LINES:]):
            if line.startswith("fadelab: ") and not self.ended[service].was_killed:
                return line.removeprefix("fadelab: ")
        tail = "".join(f"\n  {line}" for line in lines[-_TAIL_LINES:] if line)
        return f"it ended unexpectedly with {self.ended[service].how}{tail}"

    def log(self, service: str) -> str:
        """Return all that a container has said; nothing if it is gone."""
        with contextlib.suppress(Exception):
            return "".join(
                found.logs().decode(errors="replace") for found in self._containers(service)
            )
        return ""

    # -- ending them -----------------------------------------------------------------------------

    async def end(self, services: Iterable[str], *, grace_s: float) -> None:
        """Ask containers to end, and wait at most ``grace_s`` for it."""
        asked = [service for service in services if service in self._running]
        await asyncio.to_thread(self._signal, asked)
        await self.until(lambda: not self._running & set(asked), grace_s)

    async def remove(self, logs: Path) -> None:
        """Keep what the containers have said, and remove them, running or not."""
        # Of an engine that has gone nothing can be had.
        with contextlib.suppress(OSError, self._refusals):
            await asyncio.to_thread(self._keep_logs, logs)
        with contextlib.suppress(OSError, self._refusals):
            await asyncio.to_thread(remove_containers, self._containers())

    def _signal(self, services: Iterable[str]) -> None:
        for service in services:
            for container in self._containers(service):
                # It may have ended meanwhile.
                with contextlib.suppress(self._refusals):
                    container.kill(signal.SIGTERM.name)

    def _keep_logs(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for container in self._containers():
            said = container.logs(timestamps=True)
            if said:
                (folder / f"{container.labels[SERVICE_LABEL]}.txt").write_bytes(said)

    def _containers(self, service: str | None = None) -> list[Any]:
        labels = [f"{RUN_LABEL}={self._run_id}"]
        if service is not None:
            labels.append(f"{SERVICE_LABEL}={service}")
        found: list[Any] = self._client.containers.list(all=True, filters={"label": labels})
        return found

    @property
    def _refusals(self) -> type[Exception]:
        from docker.errors import APIError  # noqa: PLC0415 -- see DockerEngine

        kind: type[Exception] = APIError
        return kind

    # -- the engine's news -----------------------------------------------------------------------

    def _listen(self) -> None:
        # However the stream ends, nothing more is heard.
        with contextlib.suppress(Exception):
            for event in self._stream:
                self._tell(functools.partial(self._hear, event))
        self._tell(self._lose_engine)

    def _tell(self, action: Callable[[], None]) -> None:
        # The run may be over.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(action)

    def _hear(self, event: dict[str, Any]) -> None:
        attributes = event["Actor"]["Attributes"]
        service = attributes[SERVICE_LABEL]
        if event["Action"] == "start":
            self._running.add(service)
            if self.ended.pop(service, None) is not None:
                self._noted(service)
        else:
            self._running.discard(service)
            self.ended[service] = Ended(int(attributes["exitCode"]), event["timeNano"] / 1e9)
        self._news.set()

    def _lose_engine(self) -> None:
        self._engine_gone = True
        self._news.set()


_CODES = set(map(int, ExitCode)) - {ExitCode.VALID, ExitCode.INTERNAL, ExitCode.INTERRUPTED}


def remove_containers(containers: Iterable[Any]) -> None:
    """Remove containers, running or not."""
    from docker.errors import APIError  # noqa: PLC0415 -- see DockerEngine

    for container in containers:
        # It may be gone, or about to go.
        with contextlib.suppress(APIError):
            container.remove(force=True, v=True)
