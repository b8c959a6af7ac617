"""``fadelab certs``: what it writes, who may read it, what it refuses; how untrusting peers end."""

import contextlib
import hashlib
import json
import re
import ssl
import stat
from pathlib import Path

import numpy as np
import pytest
from commandline import command
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from typer.testing import CliRunner

from fadelab.certificates import CertificatesError, make_certificates
from fadelab.cli.app import app
from fadelab.exit_codes import ExitCode
from fadelab.local.children import exit_code_of
from fadelab_agent.trust import AgentTrust, HandshakeError
from fadelab_proto.tls import TrustError
from fadelab_server.config import ServerTrust


def made(folder: Path, *, devices: int = 2) -> list[Path]:
    return make_certificates(
        folder, servers=["fadelab.lab", "192.0.2.1", "2001:db8::1"], devices=devices, days=7
    )


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())


def names(of: x509.Certificate) -> list[str]:
    extension = of.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in extension.value]


def test_one_command_makes_everything(tmp_path: Path) -> None:
    folder = tmp_path / "trust"
    result = CliRunner().invoke(
        app,
        f"certs --out {folder} --server fadelab.lab --server 192.0.2.1 --devices 2 --days 9".split(),
    )
    assert result.exit_code == 0, result.output
    assert "13 files" in result.output
    assert "valid for 9 days" in result.output
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{name}.{kind}" for name in ("ca", "server", "operator") for kind in ("pem", "key")]
        + [f"device-{k}.{kind}" for k in (0, 1) for kind in ("pem", "key", "token")]
        + ["tokens.json"]
    )


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    for path in made(tmp_path):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o644 if path.suffix == ".pem" else 0o600), path


def test_certificates_say_what_they_are_for(tmp_path: Path) -> None:
    made(tmp_path)
    server, device = certificate(tmp_path, "server"), certificate(tmp_path, "device-1")
    assert names(server) == ["fadelab.lab", "192.0.2.1", "2001:db8::1"]
    assert names(device) == ["device-1"]
    for found, usage in (
        (server, ExtendedKeyUsageOID.SERVER_AUTH),
        (device, ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        found.verify_directly_issued_by(certificate(tmp_path, "ca"))
        assert list(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
            usage
        ]
        assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        # A day back for clocks that are behind, and seven ahead.
        assert (found.not_valid_after_utc - found.not_valid_before_utc).days == 8
    for name in ("server", "device-1", "operator"):
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        )


def test_the_server_keeps_hashes_of_the_tokens(tmp_path: Path) -> None:
    made(tmp_path)
    hashes = json.loads((tmp_path / "tokens.json").read_text())["sha256"]
    tokens = [(tmp_path / f"device-{k}.token").read_text().strip() for k in (0, 1)]
    assert len(set(tokens)) == 2
    assert hashes == {
        str(k): hashlib.sha256(token.encode()).hexdigest() for k, token in enumerate(tokens)
    }
    assert not any(token in (tmp_path / "tokens.json").read_text() for token in tokens)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    key = tmp_path / "device-1.key"
    key.write_text("mine")
    with pytest.raises(CertificatesError, match=r"device-1\.key exists: name another folder"):
        made(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["device-1.key"]
    assert key.read_text() == "mine"


@pytest.mark.parametrize("name", ["ä", "two words", "", "http://lab", "192.0.2.1:50051"])
def test_a_server_needs_a_name_that_can_be_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(CertificatesError, match="neither an IP address nor a host name"):
        make_certificates(tmp_path / "trust", servers=[name], devices=1, days=1)
    assert not (tmp_path / "trust").exists()


def test_mistakes_end_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = command("certs", "--out", tmp_path / "file", "--server", "lab", "--devices", 1)
    assert outcome.returncode == ExitCode.USAGE
    assert outcome.stderr.startswith("fadelab: cannot write to ")
    assert "Traceback" not in outcome.stderr


def test_a_server_whose_key_is_wrong_ends_with_a_sentence(tmp_path: Path) -> None:
    made(tmp_path)
    np.save(tmp_path / "initial.npy", np.zeros(4, dtype=np.float32))
    task = {"name": "digits", "dimension": 4, "layout_hash": 0}
    config = {
        "run_id": 1,
        "listen": "127.0.0.1:0",
        "trust": {
            "certificate": str(tmp_path / "server.pem"),
            "key": str(tmp_path / "operator.key"),
        },
        "operator_socket": str(tmp_path / "operator"),
        "events_dir": str(tmp_path / "events"),
        "checkpoint_dir": str(tmp_path / "checkpoint"),
        "devices": 1,
        "tasks": [task | {"initial": str(tmp_path / "initial.npy")}],
        "aggregation": {"kind": "fedavg"},
        "stop": {"duration_s": 1},
    }
    (tmp_path / "server.json").write_text(json.dumps(config))
    outcome = command("server", tmp_path / "server.json")
    assert outcome.returncode == ExitCode.USAGE
    assert "are not a certificate and its key: key values mismatch" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_the_how_to_shows_sections_that_can_be_used(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "trust.md").read_text()
    server, agent = (
        json.loads(f"{{{part}}}") for part in re.findall(r"```json\n(.*?)```", text, re.S)
    )
    (line,) = re.findall(r"^fadelab (certs .*)$", text, re.M)
    with contextlib.chdir(tmp_path):
        assert CliRunner().invoke(app, line.split()).exit_code == 0
        ServerTrust.model_validate(server["trust"])
        AgentTrust.model_validate(agent["trust"])
        named = [server["tokens"], agent["token"], *server["trust"].values()]
        for path in (*named, *agent["trust"].values()):
            assert Path(path).is_file(), path


def test_peers_that_do_not_trust_each_other_have_an_exit_code_of_their_own() -> None:
    assert exit_code_of(HandshakeError("")) is ExitCode.UNTRUSTED == 11
    assert exit_code_of(TrustError("")) is ExitCode.USAGE
