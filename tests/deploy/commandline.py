"""The real ``fadelab`` command, for verbs that fork or run until the end."""

import os
import subprocess
import sys


def command(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end."""
    program = [sys.executable, "-c", "from fadelab.cli import main; main()"]
    return subprocess.run(
        [*program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | environment,
    )
