"""The stack file for ``docker stack deploy``."""

from pathlib import Path

import yaml

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.images.build import Target
from fadelab.stack.agent_file import SLOT
from fadelab.stack.node import NODE
from fadelab.stack.plan import CAPABILITIES, CONFIG, DATA, OUT, SECRETS, SOCKETS, USER, Cluster

_LARGEST_CONFIG = 500_000
"""Bytes that Swarm takes for a config."""
_SERVER_NODE = "node.labels.fadelab == server"
_HEADER = """\
# {name}: a server, {agents} agents, an emulator on every node; written by `fadelab stack`.
#
#   docker node update --label-add fadelab=server NODE     the node of server, validator, conductor
#   docker stack deploy -c stack.yaml {name}
#   docker service logs -f {name}_conductor                "the run is over"
#   docker stack rm {name}
#
# Agents are on a network that leads nowhere (Swarm insists on one). The emulator of their node takes
# that interface down and gives each a link, the only way out and shaped from its first byte on;
# behind it the emulator translates addresses and leads what is for the server onto the network
# `data`, and nothing else anywhere.
# `management` is how emulators hear when emulated time begins; nobody but the conductor listens there.
# Agents and server have no capability. The emulators have:
{capabilities}
"""
_NO_HEALTH = {"healthcheck": {"disable": True}}


def stack_file(cluster: Cluster) -> str:
    """Return the text of stack.yaml, which names files beside it.

    Raises:
        FadelabError: USAGE, if the model is larger than what Swarm hands out to nodes.

    """
    if len(cluster.files["initial.npy"]) > _LARGEST_CONFIG:
        raise FadelabError(
            ExitCode.USAGE,
            f"the model of version 0 has {len(cluster.files['initial.npy'])} bytes, but Swarm "
            f"hands out at most {_LARGEST_CONFIG}: take a smaller model, or another kind",
        )
    body: dict[str, object] = {
        "version": "3.8",
        "services": {
            "server": _server(cluster),
            "validator": _validator(cluster),
            "conductor": _conductor(cluster),
            "emulator": _emulator(cluster),
            "agent": _agent(cluster),
        },
        "networks": {
            # Without a way out of the cluster, and so without a second interface in containers.
            "data": {"driver": "overlay", "internal": True},
            "management": {"driver": "overlay", "internal": True},
            # Swarm knows no containers without a network: this one leads nowhere.
            "nowhere": {"driver": "overlay", "internal": True},
        },
        "volumes": {"out": {}, "sockets": {}},
        "configs": {_key(name): {"file": f"./config/{name}"} for name in cluster.files},
        "secrets": {_key(name): {"file": f"./trust/{name}"} for name in cluster.trust},
    }
    header = _HEADER.format(
        name=cluster.name,
        agents=cluster.devices,
        capabilities="\n".join(f"#   {name:<10} {why}" for name, why in CAPABILITIES.items()),
    )
    return header + yaml.safe_dump(body, sort_keys=False, default_flow_style=None, width=100)


def _key(name: str) -> str:
    """Return what a file is called in the stack, where dots have no place."""
    return name.replace(".", "-")


def _service(
    cluster: Cluster,
    target: Target,
    command: list[str],
    *,
    config: list[str],
    networks: dict[str, object],
    trust: list[str],
) -> dict[str, object]:
    volumes: list[object] = [f"out:{OUT}", f"sockets:{SOCKETS}"]
    if target is Target.AGENT and cluster.data_dir is not None:
        volumes.append(f"{cluster.data_dir}:{DATA}:ro")
    owner = {"uid": str(USER), "gid": str(USER), "mode": 0o440}
    return {
        "image": cluster.images[target],
        "command": command,
        "networks": networks,
        "cap_drop": ["ALL"],
        "volumes": volumes,
        "configs": [{"source": _key(name), "target": str(CONFIG / name)} for name in config],
        "secrets": [
            {"source": _key(name), "target": str(SECRETS / name), **owner} for name in trust
        ],
        "stop_grace_period": "30s",
    }


def _alone() -> dict[str, object]:
    """Return where a service runs that shares the server's socket, and that it runs once."""
    return {
        "replicas": 1,
        # VIPs need IPVS, and long-lived connections gain nothing from them.
        "endpoint_mode": "dnsrr",
        "restart_policy": {"condition": "none"},
        "placement": {"constraints": [_SERVER_NODE]},
    }


_SERVER_FILES = ["ca.pem", "server.pem", "server.key"]


def _server(cluster: Cluster) -> dict[str, object]:
    return _service(
        cluster,
        Target.SERVER,
        ["server", f"{CONFIG}/server.json"],
        config=["server.json", "initial.npy"],
        networks={"data": {}},
        trust=[*_SERVER_FILES, "tokens.json"],
    ) | {
        # Swarm resolves the name of a healthy server only.
        "healthcheck": {
            "test": ["CMD", "fadelab", "health", f"{SOCKETS}/operator"],
            "interval": "3s",
            "timeout": "10s",
            "start_period": "60s",
        },
        "deploy": _alone(),
    }


def _validator(cluster: Cluster) -> dict[str, object]:
    service = _service(
        cluster,
        Target.AGENT,
        ["validator", f"{CONFIG}/validator.json"],
        config=["validator.json"],
        networks={"nowhere": {}},
        trust=[],
    )
    # Until the server has made its socket there is nobody to report to.
    again = {"condition": "on-failure", "delay": "2s"}
    return service | _NO_HEALTH | {"deploy": _alone() | {"restart_policy": again}}


def _conductor(cluster: Cluster) -> dict[str, object]:
    service = _service(
        cluster,
        Target.SERVER,
        ["node", "conduct", f"{CONFIG}/conductor.json"],
        config=["conductor.json"],
        networks={"management": {}},
        trust=_SERVER_FILES,
    )
    return service | _NO_HEALTH | {"deploy": _alone()}


def _emulator(cluster: Cluster) -> dict[str, object]:
    return (
        _service(
            cluster,
            Target.EMULATOR,
            ["node", "emulate", f"{CONFIG}/node.json"],
            config=["node.json"],
            networks={"data": {}, "management": {}},
            trust=["ca.pem", "operator.pem", "operator.key"],
        )
        | {
            "cap_add": list(CAPABILITIES),
            "sysctls": {"net.ipv4.ip_forward": "1"},
            "environment": {NODE: "{{.Node.Hostname}}"},
            "deploy": {
                "mode": "global",
                "endpoint_mode": "dnsrr",
                "restart_policy": {"condition": "none"},
            },
        }
        | _NO_HEALTH
    )


def _agent(cluster: Cluster) -> dict[str, object]:
    own = [name for name in cluster.trust if Path(name).stem.startswith("device-")]
    return (
        _service(
            cluster,
            Target.AGENT,
            ["node", "agent", f"{CONFIG}/agent.json"],
            config=["agent.json"],
            networks={"nowhere": {}},
            trust=["ca.pem", *own],
        )
        | {
            "environment": {SLOT: "{{.Task.Slot}}"},
            "deploy": {
                "replicas": cluster.devices,
                "endpoint_mode": "dnsrr",
                "restart_policy": {"condition": "on-failure", "delay": "2s"},
            },
        }
        | _NO_HEALTH
    )
