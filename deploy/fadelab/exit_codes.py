"""How every ``fadelab`` command ends; each code has a paragraph in docs/exit-codes.md."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The process exit codes."""

    VALID = 0
    """The command did what it was asked to; a run finished and is valid."""
    INTERNAL = 1
    """A defect in Fadelab: please report the traceback."""
    USAGE = 2
    """The command line or the experiment file is wrong."""
    INVALID_RUN = 3
    """The run finished, but its own measurements say that it must not be believed."""
    ENVIRONMENT = 4
    """This machine lacks something, for example user namespaces; `fadelab doctor` says what."""
    DATA_MISSING = 5
    """A data set is missing or damaged."""
    COMPONENT_FAILED = 6
    """A process of the run ended early."""
    ADDRESS_IN_USE = 7
    """The server cannot listen where it was told to."""
    CHECKPOINT = 8
    """A checkpoint could not be written or read."""
    REFUSED = 9
    """The server did not take the agent in."""
    LEFTOVERS = 10
    """`fadelab doctor` found something that an earlier run left behind."""
    UNTRUSTED = 11
    """Server and agent do not trust each other: a certificate is wrong, or one speaks no TLS."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM; the run directory holds what was measured until then."""


class FadelabError(Exception):
    """Something a user can act on: one or two sentences and the exit code that goes with them."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code
