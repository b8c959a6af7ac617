"""What an agent on a node reads: one file for all, from which each takes its own part."""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from fadelab.cli.processes import AgentFile
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab_agent.agent_config import AgentConfig
from fadelab_agent.trust import AgentTrust

SLOT, POD = "FADELAB_SLOT", "FADELAB_POD"
"""Environment: Swarm's number of a replica, which counts from 1; a pod's name, which ends in its own
number, counted from 0."""
DEVICE = "{device}"
"""What stands in paths for a device's number."""


class NodeAgentFile(AgentFile):
    """The same file for all agents; ``agent`` is that of device 0."""

    attendance: Path = Field(description="Unix socket at which the node's emulator expects agents.")
    credentials: str = Field(
        description="Path of a device's .pem, .key and .token without the ending; {device} stands "
        "for its number."
    )
    ca: Path = Field(description="Certificate of the deployment's authority.")

    def agent_of(self, device: int, clock_offset_s: float) -> AgentConfig:
        """Return one agent's configuration."""
        own = self.credentials.replace(DEVICE, str(device))
        state = self.agent.state_dir
        return self.agent.model_copy(
            update={
                "device": device,
                "clock_offset_s": clock_offset_s,
                "state_dir": None if state is None else state.with_name(f"agent-{device}"),
                "token": Path(f"{own}.token"),
                "trust": AgentTrust(
                    ca=self.ca, certificate=Path(f"{own}.pem"), key=Path(f"{own}.key")
                ),
            }
        )


def device_number(environment: Mapping[str, str], devices: int) -> int:
    """Return which device this container is.

    Raises:
        FadelabError: USAGE, if the environment does not say, or names one too many.

    """
    found = None
    if re.fullmatch(r"[1-9]\d{0,5}", slot := environment.get(SLOT, "")):
        found = int(slot) - 1
    elif pod := re.search(r"-(\d{1,6})$", environment.get(POD, "")):
        found = int(pod[1])
    if found is None:
        raise FadelabError(
            ExitCode.USAGE,
            f"the environment does not say which device this is: set {SLOT} to its number plus 1, "
            f"or {POD} to a name that ends in -NUMBER",
        )
    if found >= devices:
        raise FadelabError(
            ExitCode.USAGE,
            f"this would be device {found}, but the experiment has {devices}: they count from 0, "
            "and replicas must be as many",
        )
    return found
