"""The ``docker`` command: the one way to build that works with and without BuildKit."""

import collections
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from fadelab.exit_codes import ExitCode, FadelabError

_LAST_WORDS = 12


class DockerCommand:
    """Docker's command line and the engine behind it.

    Raises:
        FadelabError: ENVIRONMENT, if there is no command or no engine answers it.

    """

    def __init__(self) -> None:
        program = shutil.which("docker")
        if program is None:
            raise FadelabError(
                ExitCode.ENVIRONMENT,
                "there is no `docker` command on this machine: install Docker, or build elsewhere",
            )
        self._program = program
        answer = self._run(["version", "--format", "{{.Server.Version}}"])
        if answer.returncode != 0:
            raise FadelabError(
                ExitCode.ENVIRONMENT,
                f"no Docker engine answers ({_last_line(answer.stderr)}); start it or set "
                "DOCKER_HOST",
            )
        self.engine_version = answer.stdout.strip()

    def size_bytes(self, image: str) -> int | None:
        """Return how much an image holds, layers that it shares included; None: there is none."""
        answer = self._run(["image", "inspect", "--format", "{{.Size}}", image])
        return int(answer.stdout) if answer.returncode == 0 else None

    def labels(self, image: str) -> dict[str, str] | None:
        """Return an image's labels; None: there is none."""
        answer = self._run(["image", "inspect", "--format", "{{json .Config.Labels}}", image])
        if answer.returncode != 0:
            return None
        found: dict[str, str] | None = json.loads(answer.stdout)
        return found or {}

    def build(
        self, context: Path, arguments: Sequence[str], hear: Callable[[str], None], what: str
    ) -> None:
        """Build an image; ``hear`` is told every line that the engine says.

        Raises:
            FadelabError: COMPONENT_FAILED with the engine's last words.

        """
        words: collections.deque[str] = collections.deque(maxlen=_LAST_WORDS)
        command = [self._program, "build", *arguments, str(context)]
        with subprocess.Popen(  # noqa: S603 -- the arguments are ours
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                words.append(line.rstrip())
                hear(line.rstrip())
        if process.returncode != 0:
            last_words = "\n  ".join(word for word in words if word)
            raise FadelabError(
                ExitCode.COMPONENT_FAILED, f"{what} could not be built:\n  {last_words}"
            )

    def import_archive(self, image: str, write: Callable[[IO[bytes]], None]) -> None:
        """Make an image of the tar archive that ``write`` writes.

        Raises:
            FadelabError: COMPONENT_FAILED, if the engine does not take it.

        """
        with subprocess.Popen(  # noqa: S603 -- the arguments are ours
            [self._program, "import", "-", image],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            assert process.stderr is not None
            try:
                write(process.stdin)
                process.stdin.close()
            except BrokenPipeError:
                pass
            complaint = process.stderr.read().decode(errors="replace")
        if process.returncode != 0:
            raise FadelabError(
                ExitCode.COMPONENT_FAILED, f"cannot import {image}: {_last_line(complaint)}"
            )

    def _run(self, arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        command = [self._program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it says nothing"
