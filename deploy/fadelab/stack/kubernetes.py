"""Plain Kubernetes manifests, for ``kubectl apply -f``."""

import base64
from collections.abc import Iterable

import yaml

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.images.build import Target
from fadelab.local.plan import PORT
from fadelab.stack.agent_file import POD
from fadelab.stack.node import NODE
from fadelab.stack.plan import (
    CAPABILITIES,
    CONDUCTOR_NAME,
    CONFIG,
    DATA,
    MANAGEMENT_PORT,
    OUT,
    SECRETS,
    SERVER_NAME,
    SOCKETS,
    USER,
    Cluster,
)

POD_CREDENTIALS = f"{SECRETS}/own"
"""Each pod sees its own device's credentials only, under this name."""
_LARGEST_MAP = 1_000_000
"""Bytes that a ConfigMap may hold, and a little less (1 MiB)."""
_HEADER = """\
# {name}: a server, {agents} agents, an emulator on every node; written by `fadelab stack`.
# It holds keys: keep it as secret as them.
#
#   kubectl label node NODE fadelab=server        the node of server, validator and conductor
#   kubectl apply -f kubernetes.yaml
#   kubectl -n {name} logs -f server-0 -c conductor        "the run is over"
#   kubectl delete -f kubernetes.yaml
#
# Before an agent starts, an init container takes the interface of its pod down. The emulator of the
# node then gives it a link, the only way out and shaped from its first byte on; behind it the
# emulator translates addresses and leads what is for the server on, and nothing else anywhere.
# Agents and server have no capability. The emulators have:
{capabilities}
# The namespace must allow that (Pod Security Standard `privileged`), and the sysctl that emulators
# set in their own network, net.ipv4.ip_forward, which the init container `forwarding` writes.
"""
Body = dict[str, object]
_NODE_DIR = "/var/lib/fadelab"
_SOCKETS_DIR = "/run/fadelab"


def manifests(cluster: Cluster) -> str:
    """Return the text of kubernetes.yaml.

    Raises:
        FadelabError: USAGE, if the model is larger than what Kubernetes hands out to pods.

    """
    size = len(cluster.files["initial.npy"])
    if size > _LARGEST_MAP:
        raise FadelabError(
            ExitCode.USAGE,
            f"the model of version 0 has {size} bytes, but Kubernetes hands out at most "
            f"{_LARGEST_MAP}: take a smaller model, or another deployment",
        )
    documents = [
        _namespace(cluster),
        *_config_maps(cluster),
        *_secrets(cluster),
        _service(cluster, SERVER_NAME, PORT),
        _service(cluster, CONDUCTOR_NAME, MANAGEMENT_PORT),
        _service(cluster, "agent", None),
        _server(cluster),
        _emulators(cluster),
        _agents(cluster),
        _only_emulators_reach_the_conductor(cluster),
    ]
    header = _HEADER.format(
        name=cluster.name,
        agents=cluster.devices,
        capabilities="\n".join(f"#   {name:<10} {why}" for name, why in CAPABILITIES.items()),
    )
    return header + yaml.safe_dump_all(documents, sort_keys=False, width=100)


def _meta(cluster: Cluster, name: str) -> Body:
    labels = {"app.kubernetes.io/part-of": "fadelab", "fadelab/role": name}
    return {"name": name, "namespace": cluster.name, "labels": labels}


def _namespace(cluster: Cluster) -> Body:
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": cluster.name, "labels": labels},
    }


def _config_maps(cluster: Cluster) -> Iterable[Body]:
    texts = {name: data.decode() for name, data in cluster.files.items() if name.endswith(".json")}
    model = base64.b64encode(cluster.files["initial.npy"]).decode()
    yield {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(cluster, "config"),
        "data": texts,
    }
    yield {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(cluster, "model"),
        "binaryData": {"initial.npy": model},
    }


def _secrets(cluster: Cluster) -> Iterable[Body]:
    # An agent's files bear its pod's name, by which the pod picks them.
    agents = {
        name.replace("device-", "agent-", 1): data
        for name, data in cluster.trust.items()
        if name.startswith("device-")
    }
    common = cluster.trust["ca.pem"]
    operator = {name: cluster.trust[name] for name in ("operator.pem", "operator.key")}
    server = {name: cluster.trust[name] for name in ("server.pem", "server.key", "tokens.json")}
    for name, files in (
        ("server-trust", server),
        ("emulator-trust", operator),
        ("agent-trust", agents),
    ):
        found = {"ca.pem": common, **files}
        yield {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": _meta(cluster, name),
            "type": "Opaque",
            "data": {key: base64.b64encode(data).decode() for key, data in found.items()},
        }


def _service(cluster: Cluster, name: str, port: int | None) -> Body:
    """Return a headless service: its name is the pod's address."""
    role = "agent" if port is None else "server"
    spec: Body = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"fadelab/role": role},
    }
    if port is not None:
        spec["ports"] = [{"name": "grpc", "port": port}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(cluster, name),
        "spec": spec,
    }


def _server(cluster: Cluster) -> Body:
    files = _mounts()
    containers = [
        _container(cluster, "server", Target.SERVER, f"server {CONFIG}/server.json", files),
        _container(
            cluster, "conductor", Target.SERVER, f"node conduct {CONFIG}/conductor.json", files
        ),
        _container(
            cluster,
            "validator",
            Target.AGENT,
            f"validator {CONFIG}/validator.json",
            [*files, *_data_mount(cluster)],
        ),
    ]
    containers[0]["readinessProbe"] = {
        "exec": {"command": ["fadelab", "health", f"{SOCKETS}/operator"]},
        "timeoutSeconds": 10,
        "periodSeconds": 5,
    }
    spec = _pod_spec(cluster, containers, trust="server-trust")
    spec["nodeSelector"] = {"fadelab": "server"}
    # The folders of the node are root's until its emulator shares them.
    spec["initContainers"] = [_shared_folders(cluster)]
    return _set(cluster, "StatefulSet", "server", spec, replicas=1, service=SERVER_NAME)


def _emulators(cluster: Cluster) -> Body:
    mounts = _mounts()
    emulator = _container(
        cluster, "emulator", Target.EMULATOR, f"node emulate {CONFIG}/node.json", mounts
    )
    emulator["securityContext"] = {
        "runAsUser": 0,
        "runAsGroup": USER,
        "capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)},
    }
    emulator["env"] = [_field(NODE, "spec.nodeName")]
    forwarding: Body = {
        "name": "forwarding",
        "image": cluster.images[Target.EMULATOR],
        "command": ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"],
        # /proc/sys is writable for privileged containers alone. This one has the pod's network,
        # not the machine's, and ends at once.
        "securityContext": {"privileged": True, "runAsUser": 0},
    }
    spec = _pod_spec(cluster, [emulator], trust="emulator-trust")
    spec["initContainers"] = [forwarding, _shared_folders(cluster)]
    return _set(cluster, "DaemonSet", "emulator", spec)


def _agents(cluster: Cluster) -> Body:
    own = [
        {
            "name": "trust",
            "mountPath": f"{POD_CREDENTIALS}.{ending}",
            "subPathExpr": f"$({POD}).{ending}",
            "readOnly": True,
        }
        for ending in ("pem", "key", "token")
    ]
    authority = {
        "name": "trust",
        "mountPath": f"{SECRETS}/ca.pem",
        "subPath": "ca.pem",
        "readOnly": True,
    }
    mounts = [
        *(one for one in _mounts() if one["name"] != "trust"),
        authority,
        *own,
        *_data_mount(cluster),
    ]
    agent = _container(cluster, "agent", Target.AGENT, f"node agent {CONFIG}/agent.json", mounts)
    agent["env"] = [_field(POD, "metadata.name")]
    seal: Body = {
        "name": "seal",
        "image": cluster.images[Target.EMULATOR],
        "args": ["node", "seal"],
        "securityContext": {
            "runAsUser": 0,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
        },
    }
    spec = _pod_spec(cluster, [agent], trust="agent-trust")
    spec["initContainers"] = [seal]
    return _set(cluster, "StatefulSet", "agent", spec, replicas=cluster.devices, service="agent")


def _only_emulators_reach_the_conductor(cluster: Cluster) -> Body:
    """Return the policy; clusters whose network heeds none are left with mutual TLS alone."""
    emulators = {"podSelector": {"matchLabels": {"fadelab/role": "emulator"}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _meta(cluster, "server"),
        "spec": {
            "podSelector": {"matchLabels": {"fadelab/role": "server"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [emulators]}],
        },
    }


def _set(
    cluster: Cluster,
    kind: str,
    role: str,
    pod: Body,
    *,
    replicas: int | None = None,
    service: str | None = None,
) -> Body:
    labels = {"fadelab/role": role}
    spec: Body = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    if replicas is not None:
        # All at once: no device waits for another.
        spec |= {"replicas": replicas, "serviceName": service, "podManagementPolicy": "Parallel"}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": _meta(cluster, role),
        "spec": spec,
    }


def _container(
    cluster: Cluster, name: str, target: Target, command: str, mounts: list[Body]
) -> Body:
    return {
        "name": name,
        "image": cluster.images[target],
        # What has ended well stays, so that it does not start again and its record can be copied.
        "command": ["sh", "-c", f"fadelab-entry {command} && exec sleep infinity"],
        "securityContext": {
            "runAsUser": USER,
            "runAsGroup": USER,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _pod_spec(cluster: Cluster, containers: list[Body], *, trust: str) -> Body:
    volumes: list[Body] = [
        {
            "name": "config",
            "projected": {
                "sources": [{"configMap": {"name": name}} for name in ("config", "model")]
            },
        },
        {"name": "trust", "secret": {"secretName": trust, "defaultMode": 0o440}},
        _host_path("out", f"{_NODE_DIR}/{cluster.name}"),
        _host_path("sockets", f"{_SOCKETS_DIR}/{cluster.name}"),
    ]
    if cluster.data_dir is not None:
        volumes.append(_host_path("data", str(cluster.data_dir), kind="Directory"))
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"fsGroup": USER},
        "terminationGracePeriodSeconds": 30,
        "containers": containers,
        "volumes": volumes,
    }


def _host_path(name: str, path: str, *, kind: str = "DirectoryOrCreate") -> Body:
    return {"name": name, "hostPath": {"path": path, "type": kind}}


def _mounts() -> list[Body]:
    return [
        {"name": "config", "mountPath": str(CONFIG), "readOnly": True},
        {"name": "trust", "mountPath": str(SECRETS), "readOnly": True},
        {"name": "out", "mountPath": str(OUT)},
        {"name": "sockets", "mountPath": str(SOCKETS)},
    ]


def _data_mount(cluster: Cluster) -> list[Body]:
    if cluster.data_dir is None:
        return []
    return [{"name": "data", "mountPath": str(DATA), "readOnly": True}]


def _shared_folders(cluster: Cluster) -> Body:
    """Return what makes the node's folders the group's, whichever pod comes first."""
    return {
        "name": "folders",
        "image": cluster.images[Target.EMULATOR],
        "command": ["sh", "-c", f"chgrp {USER} {OUT} {SOCKETS} && chmod 2775 {OUT} {SOCKETS}"],
        "securityContext": {
            "runAsUser": 0,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "FOWNER"]},
        },
        "volumeMounts": [
            {"name": "out", "mountPath": str(OUT)},
            {"name": "sockets", "mountPath": str(SOCKETS)},
        ],
    }


def _field(name: str, path: str) -> Body:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
