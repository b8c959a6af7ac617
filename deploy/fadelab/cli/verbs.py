"""The verbs of the command line: where they are, what they need, and what the list says of them.

All that is known without importing one of them, since some take seconds.
"""

from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb."""

    place: str
    """Module and name of its function or of its typer application."""
    summary: str
    """The first sentence of its help."""
    needs: tuple[str, ...] = ()
    """Python packages that it needs beyond those of `fadelab[command]`."""

    def missing_package(self) -> str | None:
        """Return a package that it needs and that is not installed; None if all are."""
        return next((package for package in self.needs if find_spec(package) is None), None)


VERBS = {
    "run": Verb(
        "fadelab.cli.run:run",
        "Run an experiment and write its report.",
        ("grpc_health", "matplotlib", "scipy", "uvloop"),
    ),
    "report": Verb(
        "fadelab.cli.run:report",
        "Compute summary.json and report.html of a run again.",
        ("grpc_health", "matplotlib"),
    ),
    "sweep": Verb(
        "fadelab.cli.sweep:sweep", "Run every grid point, variant and seed of a sweep file."
    ),
    "compare": Verb(
        "fadelab.cli.compare:compare",
        "Compare variants by paired seeds, with 95 % confidence intervals.",
        ("matplotlib", "scipy"),
    ),
    "replay": Verb(
        "fadelab.cli.replay:replay",
        "Make every model of a run again, from its event log and its journal, and compare the bits.",
    ),
    "doctor": Verb(
        "fadelab.cli.machine:doctor",
        "Say what this machine can do, and whether an earlier run left something behind.",
    ),
    "server": Verb(
        "fadelab.cli.processes:server",
        "Run an aggregation server until its run is over.",
        ("grpc_health", "uvloop"),
    ),
    "agent": Verb(
        "fadelab.cli.processes:agent", "Run one device agent until its run is over.", ("torch",)
    ),
    "validator": Verb(
        "fadelab.cli.processes:validator",
        "Report loss and metric of every version to a server on this machine until its run is over.",
        ("torch",),
    ),
    "begin": Verb(
        "fadelab.cli.begin:begin",
        "Wait until all devices have joined, begin the run, and wait until it is over.",
    ),
    "emulate": Verb(
        "fadelab.cli.emulate:emulate",
        "Drive links between containers or namespaces, or shape interfaces that exist.",
        ("grpc_health", "scipy"),
    ),
    "health": Verb(
        "fadelab.cli.health:health",
        "Ask a server or an emulator whether it serves; what a container's health check runs.",
        ("grpc_health",),
    ),
    "link": Verb(
        "fadelab.cli.link:link",
        "Shaped links on their own, for any program.",
        ("grpc_health", "scipy", "uvloop"),
    ),
    "node": Verb(
        "fadelab.cli.node:node",
        "Run one process of a testbed that spans machines, as `fadelab stack` starts them.",
    ),
    "stack": Verb(
        "fadelab.cli.stack:stack",
        "Write a testbed for Docker Swarm or Kubernetes: one experiment on several machines.",
        ("cryptography", "grpc_health", "torch"),
    ),
    "collect": Verb(
        "fadelab.cli.stack:collect",
        "Put the records of all nodes together into a run directory, for `fadelab report`.",
        ("cryptography", "grpc_health", "torch"),
    ),
    "compose": Verb(
        "fadelab.cli.compose:compose",
        "Write the files of a testbed of containers, for `docker compose up` or "
        "docker-compose 1.29.",
        ("grpc_health", "torch"),
    ),
    "boards": Verb(
        "fadelab.cli.boards:boards",
        "Check boards, install Fadelab on them, run experiments on them; see docs/boards.md.",
        ("cryptography", "grpc_health", "matplotlib"),
    ),
    "images": Verb("fadelab.cli.images:images", "Container images of server, agent and emulator."),
    "certs": Verb(
        "fadelab.cli.certs:certs",
        "Make certificates, keys and join tokens for one server and its devices.",
        ("cryptography",),
    ),
}
"""All verbs, in the order of the list."""
