"""The Docker engine: where containers live, and when they start again."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fadelab.exit_codes import ExitCode, FadelabError


@dataclass(frozen=True, slots=True)
class Started:
    """A container that has just been started."""

    identity: str
    name: str

    def answers_to(self, given: str) -> bool:
        """Say whether this is what a user calls ``given``: a name, or an id or its beginning."""
        return given.removeprefix("/") == self.name or self.identity.startswith(given)


_REMEDY = "start it, set DOCKER_HOST, or name places by pid or netns"


class DockerEngine:
    """The engine that the environment names (DOCKER_HOST), or the one of this machine.

    Args:
        remedy: what to do where no engine answers.

    Raises:
        FadelabError: ENVIRONMENT, if the package ``docker`` is missing or no engine answers.

    """

    def __init__(self, remedy: str = _REMEDY) -> None:
        try:
            # Only who names containers needs it.
            from docker import errors, from_env  # noqa: PLC0415
        except ImportError:
            raise FadelabError(
                ExitCode.ENVIRONMENT,
                "finding containers needs the Python package docker: "
                "`pip install 'fadelab[deploy]'`",
            ) from None
        self._since_s = int(time.time())
        try:
            self._client: Any = from_env()
        except errors.DockerException as error:
            raise FadelabError(
                ExitCode.ENVIRONMENT,
                f"no Docker engine answers ({error}); {remedy}",
            ) from None
        self._errors = errors

    def namespace_path(self, container: str) -> Path:
        """Return the file of a running container's network namespace.

        Raises:
            FadelabError: USAGE, if there is no such container or it is not running.

        """
        try:
            state = self._client.api.inspect_container(container)["State"]
        except self._errors.NotFound:
            raise FadelabError(
                ExitCode.USAGE, f"there is no container {container}; `docker ps` lists them"
            ) from None
        except self._errors.APIError as error:
            raise FadelabError(
                ExitCode.ENVIRONMENT, f"the Docker engine refuses: {error}"
            ) from None
        if not state["Pid"]:
            raise FadelabError(
                ExitCode.USAGE,
                f"the container {container} is not running ({state['Status']}); start it first",
            )
        return Path(f"/proc/{state['Pid']}/ns/net")

    @property
    def client(self) -> Any:
        """The client of the package ``docker``, connected."""
        return self._client

    def watch_starts(self) -> "StartStream":
        """Return the starts of containers from now on, and since this object was made."""
        filters = {"type": "container", "event": "start"}
        stream = self._client.api.events(since=self._since_s, decode=True, filters=filters)
        return StartStream(stream)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class StartStream:
    """Starts of containers as they happen."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[Started]:
        """Yield each start; ends when the stream is closed or the engine ends."""
        for event in self._stream:
            actor = event["Actor"]
            yield Started(actor["ID"], actor["Attributes"].get("name", ""))

    def close(self) -> None:
        """End the iteration, from any thread."""
        self._stream.close()
