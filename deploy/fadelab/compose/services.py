"""The compose file: which containers a testbed is made of, and what each may do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from fadelab.images.build import Target, image_name
from fadelab_emulation.namespaces import TCP_SETTINGS

CONFIG, OUT, SOCKETS, DATA = (
    Path("/config"),
    Path("/out"),
    Path("/run/fadelab/sockets"),
    Path("/data"),
)
_CAPABILITIES = {
    "NET_ADMIN": "make links and shape them",
    "SYS_ADMIN": "enter the networks of the other containers",
    "SYS_PTRACE": "find these networks: their processes are another user's",
    "NET_RAW": "see when the first packet passes a reopened link",
    "SYS_NICE": "change links on time while agents train",
}
_AGENT_SHARES, _EMULATOR_SHARES = 64, 16384
"""Of a processor that is wanted by others, too; Docker gives everybody else 1024. Real-time scheduling,
which the emulator asks for, is not to be had in containers of many engines."""
RUN_LABEL, SERVICE_LABEL = "fadelab.run", "fadelab.service"
_CONGESTION_CONTROL = "net/ipv4/tcp_congestion_control"
_ALLOWED_CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
HUB, SERVER, EMULATOR, VALIDATOR, BEGIN = "hub", "server", "emulator", "validator", "begin"
_HEADER = """\
# {name}: one server, one emulator, {agents} agents.
#
#   docker compose up -d            (or docker-compose up -d)
#   docker compose logs -f begin    until the run is over
#   docker compose down
#
# No container has a network of Docker's. The data network is what the emulator makes: a link from the
# server to each agent, shaped from its first byte on. What goes past it (radio plane, operator) uses
# unix sockets in a folder that they share. Agents and server have no capability and cannot change their
# links. The server's network belongs to `hub`, which does nothing: so it outlives the server.
# The emulator alone has capabilities:
{capabilities}
# and sees the machine's processes (pid: host) and Docker's socket, to find the containers again when
# they start anew. On machines with AppArmor it also needs: security_opt: [apparmor:unconfined].
"""


@dataclass(frozen=True, slots=True)
class Testbed:
    """What the compose file has to know."""

    name: str
    agents: int
    tag: str
    time_scale: float
    user: tuple[int, int]
    """Whose processes server and agents are: user and group."""
    docker_socket: Path
    """The engine's, on this machine."""
    data_dir: Path | None
    """Folder of the data set on this machine; None: the task needs none."""
    run_id: int
    out: str = "./out"
    """Folder of the record on this machine."""
    sockets: str = "./sockets"
    """Folder of the unix sockets on this machine."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """More of them for every container."""
    begins: bool = True
    """Whether a container begins the run; if not, somebody else does."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    @property
    def prefix(self) -> str:
        """What the names of containers begin with."""
        return f"fadelab-{self.name.lower()}-{self.run_id:08x}"

    @property
    def project(self) -> str:
        """What compose calls the whole."""
        return f"fadelab-{self.run_id:08x}"

    def container(self, service: str) -> str:
        """Return a service's container."""
        return f"{self.prefix}-{service}"


def agent_name(device: int) -> str:
    """Return the service of a device."""
    return f"agent-{device}"


def compose_file(testbed: Testbed) -> str:
    """Return the text of compose.yaml."""
    agents = [agent_name(device) for device in range(testbed.agents)]
    services = {
        HUB: _hub(testbed),
        SERVER: _server(testbed),
        **{
            name: _plain(testbed, name, Target.AGENT, ["agent", f"{CONFIG}/{name}.json"])
            | {"sysctls": _sysctls()}
            for name in agents
        },
        EMULATOR: _emulator(testbed, agents),
        VALIDATOR: _validator(testbed),
    }
    if testbed.begins:
        services[BEGIN] = _unwatched(_plain(testbed, BEGIN, Target.SERVER, _begin(testbed)))
    header = _HEADER.format(
        name=testbed.name,
        agents=testbed.agents,
        capabilities="\n".join(f"#   {name:<11} {why}" for name, why in _CAPABILITIES.items()),
    )
    blocks = [
        yaml.safe_dump({name: service}, sort_keys=False, default_flow_style=None, width=100)
        for name, service in services.items()
    ]
    indented = ["".join(f"  {line}\n" for line in block.splitlines()) for block in blocks]
    return header + "services:\n" + "\n".join(indented)


def _plain(testbed: Testbed, name: str, target: Target, command: list[str]) -> dict[str, object]:
    volumes = ["./config:/config:ro", f"{testbed.out}:{OUT}", f"{testbed.sockets}:{SOCKETS}"]
    if target is Target.AGENT and testbed.data_dir is not None:
        volumes.append(f"{testbed.data_dir}:{DATA}:ro")
    user, group = testbed.user
    # As in a local run, those that train get what the others leave: a late emulator distorts links.
    shares = {"cpu_shares": _AGENT_SHARES} if target is Target.AGENT else {}
    return {
        "image": image_name(target, testbed.tag),
        "container_name": testbed.container(name),
        "labels": {
            RUN_LABEL: f"{testbed.run_id:08x}",
            SERVICE_LABEL: name,
            **testbed.labels,
        },
        "command": command,
        "user": f"{user}:{group}",
        "network_mode": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "volumes": volumes,
        **shares,
    }


def _hub(testbed: Testbed) -> dict[str, object]:
    service = _unwatched(_plain(testbed, HUB, Target.SERVER, ["infinity"]))
    # As a container's first process it would not heed SIGTERM.
    return service | {
        "entrypoint": ["sleep"],
        "stop_signal": "SIGKILL",
        "volumes": [],
        "sysctls": _sysctls(),
    }


def _sysctls() -> dict[str, str]:
    """Return TCP's settings of a local run, as far as this machine's containers can have them."""
    chosen = {name: values[0] for name, values in TCP_SETTINGS.items() if "/tcp_" in name}
    allowed = _ALLOWED_CONGESTION_CONTROL.read_text().split()
    wished = [value for value in TCP_SETTINGS[_CONGESTION_CONTROL] if value in allowed]
    del chosen[_CONGESTION_CONTROL]
    if wished:
        chosen[_CONGESTION_CONTROL] = wished[0]
    return {name.replace("/", "."): value for name, value in chosen.items()}


def _server(testbed: Testbed) -> dict[str, object]:
    command = ["server", f"{CONFIG}/server.json", "--resume-if-any"]
    service = _plain(testbed, SERVER, Target.SERVER, command)
    return service | {"network_mode": f"service:{HUB}", "depends_on": [HUB]}


def _validator(testbed: Testbed) -> dict[str, object]:
    command = ["validator", f"{CONFIG}/validator.json"]
    service = _unwatched(_plain(testbed, VALIDATOR, Target.AGENT, command))
    # It ends with the server; if that starts again, so does it.
    return service | {"restart": "on-failure"}


def _begin(testbed: Testbed) -> list[str]:
    return ["begin", str(SOCKETS), str(testbed.agents), "--time-scale", f"{testbed.time_scale:g}"]


def _unwatched(service: dict[str, object]) -> dict[str, object]:
    """Leave out the image's health check, which asks for what this service has not got."""
    return service | {"healthcheck": {"disable": True}}


def _emulator(testbed: Testbed, agents: list[str]) -> dict[str, object]:
    service = _plain(testbed, "emulator", Target.EMULATOR, ["emulate", f"{CONFIG}/emulate.yaml"])
    volumes = service["volumes"]
    assert isinstance(volumes, list)
    return service | {
        "user": f"0:{testbed.user[1]}",
        "pid": "host",
        "cpu_shares": _EMULATOR_SHARES,
        "cap_add": list(_CAPABILITIES),
        "volumes": [*volumes, f"{testbed.docker_socket}:/var/run/docker.sock"],
        "depends_on": [HUB, SERVER, *agents],
    }
