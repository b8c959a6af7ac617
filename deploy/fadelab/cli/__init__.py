"""The ``fadelab`` command."""

import sys

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
