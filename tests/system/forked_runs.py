"""A process that imports once what runs need, and forks a run whenever it is asked to.

Runs of a sweep are made in the same way. A test that looks at what a run does, and not at how the
command begins, waits seconds less for it.
"""

import asyncio
import json
import os
import select
import subprocess
import sys
from pathlib import Path

from fadelab.cli import main
from fadelab.cli.sweep import import_once
from fadelab.sweep.child import RunProcess

_ROOT = Path(__file__).resolve().parents[2]


class ForkedRuns:
    """The other end of such a process; begun with the first order."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, *arguments: str, output: Path, patience_s: float) -> int:
        """Have `fadelab` run to its end; return its exit code.

        Args:
            arguments: of the command.
            output: file for everything that it says.
            patience_s: how long it may take.

        Raises:
            TimeoutError: if it takes longer; it is ended then.

        """
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"arguments": arguments, "output": str(output)}) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], patience_s)
        if not ready:
            self.close()
            raise TimeoutError(f"fadelab {' '.join(arguments)} took more than {patience_s:g} s")
        answer = process.stdout.readline()
        assert answer, "the process that forks runs has ended"
        return int(answer)

    def close(self) -> None:
        """End the process; what it still runs is ended with it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "tests.system.forked_runs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env={**os.environ, "COLUMNS": "200"},
        )


def serve() -> None:
    """Take orders from standard input and answer each with the run's exit code."""
    import_once()
    for line in sys.stdin:
        order = json.loads(line)

        def work(arguments: list[str] = order["arguments"]) -> None:
            sys.argv[1:] = arguments
            main()

        run = RunProcess(work, Path(order["output"]))
        sys.stdout.write(f"{asyncio.run(run.wait())}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
