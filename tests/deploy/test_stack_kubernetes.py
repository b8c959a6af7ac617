"""The Kubernetes manifests, held against the API's own models (package ``kubernetes``)."""

import base64
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from commandline import command
from kubernetes.client import models
from run_record import QUICKSTART

_PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}


def problems(value: Any, kind: str, where: str) -> list[str]:
    """Return what the API would not take: unknown fields, missing ones, values of another type."""
    if listed := re.fullmatch(r"List\[(.+)\]", kind):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [p for i, one in enumerate(value) for p in problems(one, listed[1], f"{where}[{i}]")]
    if mapped := re.fullmatch(r"Dict\[str, (.+)\]", kind):
        if not isinstance(value, dict):
            return [f"{where} is no map"]
        return [p for key, one in value.items() for p in problems(one, mapped[1], f"{where}.{key}")]
    if kind == "bytes":
        base64.b64decode(value, validate=True)
        return []
    if kind in _PLAIN:
        return [] if isinstance(value, _PLAIN[kind]) else [f"{where} is {value!r}, no {kind}"]
    model = getattr(models, kind)
    names = {there: here for here, there in model.attribute_map.items()}
    found = [f"{where}.{key} is unknown to {kind}" for key in value if key not in names]
    fields = {names[key]: one for key, one in value.items() if key in names}
    try:
        model(**fields)  # required fields, allowed values
    except ValueError as error:
        found.append(f"{where}: {error}")
    for name, one in fields.items():
        found += problems(one, model.openapi_types[name], f"{where}.{model.attribute_map[name]}")
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return manifests for three agents."""
    folder = tmp_path_factory.mktemp("kubernetes") / "t"
    options = ("--kind", "kubernetes", "--registry", "lab:5000", "--set", "devices.count=3")
    ended = command("stack", QUICKSTART, "-o", folder, *options)
    assert ended.returncode == 0, ended.stderr
    return folder / "kubernetes.yaml"


def read(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def test_the_api_takes_all_of_it(path: Path) -> None:
    documents, found = read(path), []
    for one in documents:
        assert one["apiVersion"] in {"v1", "apps/v1", "networking.k8s.io/v1"}
        found += problems(one, f"V1{one['kind']}", one["kind"])
    assert found == []
    assert path.stat().st_mode & 0o077 == 0
    spoilt = documents[-2] | {"spce": {}}
    assert problems(spoilt, f"V1{spoilt['kind']}", "x") == ["x.spce is unknown to V1StatefulSet"]


def test_who_may_do_what_and_sees_which_key(path: Path) -> None:
    documents = {(one["kind"], one["metadata"]["name"]): one for one in read(path)}
    agents = documents["StatefulSet", "agent"]["spec"]
    assert (agents["replicas"], agents["podManagementPolicy"]) == (3, "Parallel")
    (agent,) = agents["template"]["spec"]["containers"]
    assert agent["image"].startswith("lab:5000/fadelab-agent:")
    assert agent["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    paths = {one["mountPath"]: one for one in agent["volumeMounts"]}
    assert paths["/run/secrets/own.key"]["subPathExpr"] == "$(FADELAB_POD).key"
    assert "/run/secrets" not in paths
    secret = documents["Secret", "agent-trust"]["data"]
    assert {"agent-2.key", "agent-2.pem", "agent-2.token", "ca.pem"} <= secret.keys()
    emulator = documents["DaemonSet", "emulator"]["spec"]["template"]["spec"]
    (container,) = emulator["containers"]
    assert "SYS_PTRACE" not in container["securityContext"]["capabilities"]["add"]
    assert "hostPID" not in emulator
    assert "hostNetwork" not in emulator
    everything = base64.b64decode(documents["Secret", "server-trust"]["data"]["ca.pem"])
    assert b"PRIVATE" not in everything
    assert not any(name.startswith("ca.key") for name in secret)
    policy = documents["NetworkPolicy", "server"]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
