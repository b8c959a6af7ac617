"""The ``fadelab`` command."""

import os
import sys

# gRPC's C core reports lost connections on standard error; here links are lost on purpose, and
# what matters of it is in the event log. It reads the variable when it is imported.
if sys.argv[1:2] == ["server"]:
    # A server reads there which handshakes were refused, and of whom (fadelab_server.handshakes).
    os.environ.setdefault("GRPC_VERBOSITY", "INFO")
    os.environ.setdefault("GRPC_TRACE", "handshaker")
else:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from fadelab.cli.app import app
from fadelab.exit_codes import FadelabError

__all__ = ["main"]


def main() -> None:
    """Run the command line; known errors become a sentence and their exit code."""
    try:
        app()
    except FadelabError as error:
        print(f"fadelab: {error}", file=sys.stderr)
        sys.exit(error.code)
