"""Outside the sandbox: make the run directory, start the sandbox, wait, see that nothing is left."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.children import Channel, Message, run_child
from fadelab_emulation.sandbox import enter_sandbox

_SOCKETS_PREFIX = "fadelab-"
LOCK = "lock"


@contextlib.contextmanager
def sockets_dir() -> Iterator[Path]:
    """Make a short-named folder for this run's sockets; remove it, and those of dead runs.

    A folder belongs to a living run for as long as its lock is held; the kernel lets go of the
    lock when the last process that inherited it ends, however it ends.
    """
    remove_dead_sockets_dirs()
    folder = Path(tempfile.mkdtemp(prefix=_SOCKETS_PREFIX))
    # It gets its name when it is held: another run that starts now must not take it for a dead one's.
    nameless = folder / f"{LOCK}.new"
    lock = nameless.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        nameless.rename(folder / LOCK)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def dead_sockets_dirs() -> list[Path]:
    """Return the socket folders of this user's runs that are no longer alive."""
    dead = []
    for folder in Path(tempfile.gettempdir()).glob(f"{_SOCKETS_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid != os.getuid():
                continue
            with (folder / LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                dead.append(folder)
    return dead


def remove_dead_sockets_dirs() -> list[Path]:
    """Remove what killed runs left in the folder for temporary files; return what that was."""
    dead = dead_sockets_dirs()
    for folder in dead:
        shutil.rmtree(folder, ignore_errors=True)
    return dead


def new_run_dir(parent: Path, name: str) -> Path:
    """Make ``parent/name-1``, or the next number that is free.

    Raises:
        FadelabError: USAGE, if the folder cannot be made.

    """
    number = 1
    while True:
        folder = parent / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise FadelabError(ExitCode.USAGE, f"cannot make {folder}: {error.strerror}") from None
        else:
            return folder


class Sandboxed:
    """Work done in a sandbox of its own, seen from outside.

    Args:
        name: what ps and messages call it.
        work: called inside, with a channel to the outside; must be forked from the main thread
            of a process that has no other.

    """

    def __init__(self, name: str, work: Callable[[Channel], None]) -> None:
        self.channel, theirs = Channel.pair()
        self.messages: list[Message] = []
        """What came out and was not otherwise received, filled by :meth:`wait`."""
        self._name = name
        launcher_pid = os.getpid()

        def body(channel: Channel) -> None:
            # A session of its own: Ctrl-C in the terminal reaches the launcher alone, which then
            # ends the run in order.
            os.setsid()
            enter_sandbox(launcher_pid)
            work(channel)

        self.pid = os.fork()
        if self.pid == 0:
            self.channel.close()
            run_child(name, theirs, body)
        theirs.close()
        self.descriptor = os.pidfd_open(self.pid)
        self._failure: FadelabError | None = None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it: in order with SIGTERM, at once with SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)

    def note(self, message: Message) -> None:
        """Remember a failure that was reported from inside."""
        if "failed" in message and self._failure is None:
            sentence = str(message["failed"]).removeprefix(f"{self._name}: ")
            self._failure = FadelabError(ExitCode(int(str(message["code"]))), sentence)

    def wait(self) -> None:
        """Wait for the end of the sandbox.

        Raises:
            FadelabError: if the work failed, in its own words.

        """
        _, status = os.waitpid(self.pid, 0)
        os.close(self.descriptor)
        self.messages += self.channel.drain()
        for message in self.messages:
            self.note(message)
        self.channel.close()
        if self._failure is not None:
            raise self._failure
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            raise FadelabError(
                ExitCode.COMPONENT_FAILED, f"its processes were ended from outside ({code})"
            )


def write_json(path: Path, content: dict[str, object]) -> None:
    """Write a JSON file that people can read."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
