"""An agent's way to its link: hand the emulator its network, hear that a shaped link is there.

The agent needs no capability for it, and the emulator none to look for containers: a descriptor of
the network namespace travels over a unix socket (SCM_RIGHTS, unix(7)). For as long as the
connection stands the device is taken.
"""

import json
import os
import socket
from pathlib import Path

from pydantic import Field, ValidationError

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab_proto.config import StrictModel

LONGEST_MESSAGE = 4096
_OWN_NETWORK = Path("/proc/self/ns/net")


class Claim(StrictModel):
    """What an agent says."""

    device: int = Field(ge=0)
    run_id: int = Field(ge=0, lt=2**32)


class Answer(StrictModel):
    """What the emulator answers once the link is there."""

    refused: str = Field("", description="Why there is none; empty if there is.")
    clock_offset_s: float = 0.0


class Attendance:
    """A device's claim to its link, which lasts until it is closed.

    Args:
        path: the emulator's socket.
        claim: which device, of which run.

    Raises:
        FadelabError: REFUSED in the emulator's words; COMPONENT_FAILED, if it is not there.

    """

    def __init__(self, path: Path, claim: Claim) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            answer = self._ask(path, claim)
        except (OSError, ValidationError) as error:
            self._socket.close()
            raise FadelabError(
                ExitCode.COMPONENT_FAILED, f"no emulator answers at {path}: {error}"
            ) from None
        if answer.refused:
            self._socket.close()
            raise FadelabError(ExitCode.REFUSED, f"the emulator gives no link: {answer.refused}")
        self.clock_offset_s = answer.clock_offset_s

    def _ask(self, path: Path, claim: Claim) -> Answer:
        self._socket.connect(str(path))
        network = os.open(_OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
        try:
            socket.send_fds(self._socket, [json.dumps(claim.model_dump()).encode()], [network])
        finally:
            os.close(network)
        return Answer.model_validate_json(self._socket.recv(LONGEST_MESSAGE))

    def close(self) -> None:
        """Give the claim up."""
        self._socket.close()
