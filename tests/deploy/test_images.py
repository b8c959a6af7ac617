"""What the images are made of, and the command that makes them."""

import contextlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent import futures
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest
from commandline import command
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.engine import TAG, Engine, wheels

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.images import ready
from fadelab.images.build import (
    CODE,
    CODE_LABEL,
    DOCKERFILE,
    MATERIAL_LABEL,
    SOURCE,
    BuildOrder,
    Built,
    Target,
    code_digest,
    image_name,
)

FOLDER = SOURCE / DOCKERFILE.parent


def requirements(folder: Path, target: str) -> str:
    """Return what the Dockerfile has pip install for a target."""
    for file in (SOURCE / "pyproject.toml", FOLDER / "requirements.py"):
        shutil.copy(file, folder)
    program = [sys.executable, str(folder / "requirements.py"), target]
    return subprocess.run(program, capture_output=True, text=True, check=True).stdout


def test_each_image_holds_only_what_its_target_needs(tmp_path: Path) -> None:
    server, agent, emulator = (
        requirements(tmp_path, target) for target in ("server", "agent", "emulator")
    )
    for heavy in ("torch", "scikit-learn", "pyroute2", "docker", "matplotlib"):
        assert heavy not in server
    assert "torch" in agent
    assert "docker" not in agent
    assert "docker" in emulator
    assert "torch" not in emulator
    assert all("grpcio>=" in needed for needed in (server, agent, emulator))


def test_requirements_cover_all_that_the_project_needs(tmp_path: Path) -> None:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    assert set(project["dependencies"]) <= set(requirements(tmp_path, "server").splitlines())
    assert requirements(tmp_path, "build").startswith("hatchling")


def test_the_dockerfile_names_no_registry_and_keeps_no_settings_of_pip() -> None:
    lines = (SOURCE / DOCKERFILE).read_text().splitlines()
    stages = {line.split(" AS ")[1] for line in lines if line.startswith("FROM ")}
    for line in lines:
        if line.startswith("FROM "):
            base = line.split()[1]
            assert base in {"${BASE}", "${WHEELS}"} | stages
        assert "://" not in line
        assert "pip.conf" not in line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--offline"], "everything must come from --wheels"),
        (["--wheels", "empty"], "there are no *.whl files"),
        (["--source", "empty"], "images are built from a checkout"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    ended = command("images", "build", *arguments)
    assert ended.returncode == ExitCode.USAGE
    assert sentence in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command")
def test_without_an_engine_there_is_one_sentence(tmp_path: Path) -> None:
    ended = command("images", "build", DOCKER_HOST=f"unix://{tmp_path}/nobody")
    assert ended.returncode == ExitCode.ENVIRONMENT
    assert "no Docker engine answers" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_without_a_docker_command_there_is_one_sentence(tmp_path: Path) -> None:
    ended = command("images", "build", PATH=str(tmp_path))
    assert ended.returncode == ExitCode.ENVIRONMENT
    assert "there is no `docker` command" in ended.stderr


def without(package: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run ``fadelab`` where a package is not installed."""
    program = f"import sys; sys.modules[{package!r}] = None; from fadelab.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_verb_that_lacks_a_package_says_so_and_others_work() -> None:
    ended = without("scipy", "run", "x.yaml")
    assert ended.returncode == ExitCode.ENVIRONMENT
    assert "`fadelab run` needs the Python package scipy" in ended.stderr
    verbs = without("scipy", "--help").stdout
    assert "  server" in verbs
    assert "  run" not in verbs


def test_an_agent_needs_no_health_service(tmp_path: Path) -> None:
    ended = without("grpc_health", "agent", str(tmp_path / "none.json"))
    assert ended.returncode == ExitCode.USAGE
    assert "cannot read" in ended.stderr


@contextlib.contextmanager
def serving(path: Path, status: int) -> Iterator[None]:
    """Serve gRPC's health on a unix socket."""
    servicer = health.HealthServicer()
    servicer.set("", status)
    server = grpc.server(futures.ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()


def test_health_is_what_the_process_says(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(path, health_pb2.HealthCheckResponse.SERVING):
        ended = command("health", path)
    assert (ended.returncode, ended.stdout) == (0, "SERVING\n")
    with serving(path, health_pb2.HealthCheckResponse.NOT_SERVING):
        ended = command("health", path)
    assert ended.returncode == ExitCode.COMPONENT_FAILED
    assert "NOT_SERVING" in ended.stderr
    ended = command("health", tmp_path / "nobody")
    assert ended.returncode == ExitCode.COMPONENT_FAILED
    assert "nobody serves at" in ended.stderr


_AGENT_HEALTH = [
    "unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c",
]  # fmt: skip
_LOCAL_ALONE = """
import socket
with socket.create_server(("{address}", 0)) as server:
    client = socket.create_connection(server.getsockname())
    import subprocess, sys
    sys.exit(subprocess.run(["{script}"]).returncode)
"""


@pytest.mark.namespaces
@pytest.mark.usefixtures("_needs_sandbox")
@pytest.mark.parametrize(("address", "code"), [("127.0.0.1", 1), ("10.77.1.1", 0)])
def test_an_agent_is_healthy_while_it_is_connected(address: str, code: int) -> None:
    program = _LOCAL_ALONE.format(address=address, script=FOLDER / "agent-health.sh")
    script = 'ip addr add 10.77.1.1/32 dev lo && ip link set lo up && exec "$0" -c "$1"'
    ended = subprocess.run(
        [*_AGENT_HEALTH, script, sys.executable, program],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout) == (code, "no connection to a server\n" * code)


@pytest.mark.docker
@pytest.mark.timeout(900)
def test_images_run_as_nobody_and_the_servers_has_no_torch(
    docker_engine: Engine, images: str
) -> None:
    sys.stdout.write(images)
    sizes_mb = dict(re.findall(r"fadelab-(\w+):test +(\d+) MB", images))
    assert set(sizes_mb) == {"server", "emulator", "agent"}
    assert int(sizes_mb["server"]) < int(sizes_mb["agent"])
    inside = ("run", "--rm", "--network", "none")
    image = image_name(Target.SERVER, TAG)
    assert docker_engine.docker(*inside, "--entrypoint", "id", image, "-u") == "10001\n"
    packages = ("--entrypoint", "ls", image, "/opt/venv/lib/python3.11/site-packages")
    listed = docker_engine.docker(*inside, *packages)
    assert "grpc_health" in listed
    assert "torch" not in listed
    assert "  server" in docker_engine.docker(*inside, image)
    sick = docker_engine.docker(*inside, image, "health", "/run/fadelab/sockets/operator")
    assert "nobody serves" in sick


@pytest.mark.docker
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("images")
def test_a_change_of_code_installs_no_package_again(docker_engine: Engine, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for part in CODE:
        (source / part).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (SOURCE / part).is_dir() else shutil.copy
        copy(SOURCE / part, source / part)
    with (source / "proto" / "fadelab_proto" / "clock.py").open("a") as file:
        file.write(f"\n# {tmp_path}\n")
    order = ("--tag", "test-changed", "--wheels", str(wheels()), "--offline", "--verbose")
    ended = docker_engine.fadelab("images", "build", *order, "--source", str(source))
    try:
        assert ended.returncode == 0, ended.stderr
        said = ended.stdout.splitlines()
        installs = [n for n, line in enumerate(said) if " install " in line and "-r /" in line]
        assert len(installs) >= 4
        for number in installs:
            nearby = "\n".join(said[number : number + 3])
            assert "Using cache" in nearby or "CACHED" in nearby, nearby
        assert "--no-deps --no-build-isolation" in ended.stdout
    finally:
        docker_engine.docker("rmi", *(image_name(target, "test-changed") for target in Target))


class Shelf:
    """Images of an engine, by what their labels say."""

    def __init__(self, labels: dict[str, str] | None) -> None:
        self.found = labels

    def labels(self, image: str) -> dict[str, str] | None:
        return self.found


@pytest.mark.parametrize(
    ("code", "material", "built"),
    [("same", None, None), ("other", None, False), ("other", "offline", True), (None, None, False)],
    ids=["this code", "other code", "other code, built offline", "no images"],
)
def test_a_run_builds_images_of_other_code_anew_of_the_same_material(
    code: str | None, material: str | None, built: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = None
    if code is not None:
        labels = {CODE_LABEL: code_digest(SOURCE) if code == "same" else code}
    if labels is not None and material is not None:
        order = BuildOrder(SOURCE, "0", wheels=Path("/some/wheels"), offline=True)
        labels[MATERIAL_LABEL] = order.material()
    orders: list[BuildOrder] = []

    def build(order: BuildOrder, *_: object) -> list[Built]:
        orders.append(order)
        return []

    monkeypatch.setattr(ready, "DockerCommand", lambda: Shelf(labels))
    monkeypatch.setattr(ready, "build_images", build)
    assert ready.images_for_run(None, lambda _: None) == version("fadelab")
    assert [order.offline for order in orders] == ([] if built is None else [built])
    assert all(order.wheels == (Path("/some/wheels") if built else None) for order in orders)


def test_a_tag_of_ones_own_is_used_as_it_is_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "DockerCommand", lambda: Shelf({}))
    assert ready.images_for_run("mine", pytest.fail) == "mine"
    monkeypatch.setattr(ready, "DockerCommand", lambda: Shelf(None))
    with pytest.raises(FadelabError, match="images build --tag mine") as refused:
        ready.images_for_run("mine", pytest.fail)
    assert refused.value.code == ExitCode.USAGE
