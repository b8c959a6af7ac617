"""The compose command: Docker's own of today, or docker-compose 1.29."""

import asyncio
import shutil
import subprocess
from pathlib import Path

from fadelab.exit_codes import ExitCode, FadelabError

_LAST_WORDS = 8
_END_S = 10.0


class ComposeCommand:
    """Whichever compose command this machine has.

    Raises:
        FadelabError: ENVIRONMENT, if it has none.

    """

    def __init__(self) -> None:
        self._program = _find()

    @property
    def name(self) -> str:
        """What users call it."""
        return " ".join([Path(self._program[0]).name, *self._program[1:]])

    async def up(self, file: Path, project: str) -> None:
        """Start all containers of a file.

        Cancelled, it ends the command; what that has started by then is left.

        Raises:
            FadelabError: COMPONENT_FAILED with the command's last words.

        """
        process = await asyncio.create_subprocess_exec(
            *self._program,
            *("--project-name", project, "--file", str(file), "up", "--detach", "--no-build"),
            cwd=file.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal reaches the launcher alone, which ends everything in order.
            start_new_session=True,
        )
        try:
            said, _ = await process.communicate()
        except asyncio.CancelledError:
            process.terminate()
            try:
                await asyncio.wait_for(process.communicate(), _END_S)
            except TimeoutError:
                process.kill()
                await process.communicate()
            raise
        if process.returncode != 0:
            words = said.decode(errors="replace").split("\n")
            last_words = "\n  ".join([word for word in words if word.strip()][-_LAST_WORDS:])
            raise FadelabError(
                ExitCode.COMPONENT_FAILED, f"`{self.name} up` failed:\n  {last_words}"
            )


def _find() -> list[str]:
    docker = shutil.which("docker")
    if docker is not None:
        asked = subprocess.run(  # noqa: S603 -- the arguments are ours
            [docker, "compose", "version"], capture_output=True, check=False
        )
        if asked.returncode == 0:
            return [docker, "compose"]
    alone = shutil.which("docker-compose")
    if alone is None:
        raise FadelabError(
            ExitCode.ENVIRONMENT,
            "there is neither `docker compose` nor `docker-compose` on this machine: install "
            "Docker's compose plugin, or docker-compose 1.29",
        )
    return [alone]
