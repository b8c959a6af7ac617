"""A process that is asked to end while it leaves says nothing of it."""

import subprocess
import sys

import pytest

# The second signal comes when the loop's handlers are still in force and nobody waits for it.
PROGRAM = """
import asyncio, os, signal, uvloop
from fadelab_proto.ending import asked_to_end

async def main():
    asked = asyncio.Event()
    with asked_to_end(asked.set):
        os.kill(os.getpid(), signal.{first})
        await asked.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    asyncio.get_running_loop().call_soon(print, "left")
    await asyncio.sleep(0)

{runner}.run(main())
"""


@pytest.mark.parametrize("first", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("runner", ["asyncio", "uvloop"])
def test_the_first_signal_is_heard_and_later_ones_change_nothing(runner: str, first: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(runner=runner, first=first)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "left\n", "")
