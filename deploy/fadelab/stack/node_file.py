"""What the emulator of a node reads; the same file on every node."""

from pathlib import Path

from pydantic import Field

from fadelab_agent.trust import AgentTrust
from fadelab_emulation.sources import AnyRadio
from fadelab_proto.config import StrictModel


class NodeFile(StrictModel):
    """All links of a run, of which a node makes those of its own agents."""

    run_id: int = Field(ge=0, lt=2**32)
    seed: int = Field(ge=0)
    devices: int = Field(ge=1, le=1000)
    radio: AnyRadio = Field(description="The same on every node, and so the same timeline.")
    record: Path = Field(description="This node's part of the run directory.")
    radio_socket: Path = Field(
        description="Unix socket of the radio plane, for this node's agents."
    )
    attendance: Path = Field(description="Unix socket at which this node's agents get their links.")
    conductor: str = Field(description="HOST:PORT of the conductor, on the management network.")
    server: str = Field(description="HOST:PORT of the server, on the data network.")
    trust: AgentTrust = Field(description="The operator's certificate.")
