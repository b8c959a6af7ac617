"""Packet classes in an experiment: named once, checked together, handed to agents and server."""

from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from fadelab.exit_codes import FadelabError
from fadelab.experiment import Experiment, load_experiment
from fadelab.local.plan import SERVER, LinksOfRun, LocalPlan
from fadelab_agent.agent_config import AgentConfig
from fadelab_server.config import ServerConfig

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.yaml"
SIGN: dict[str, Any] = {
    "name": "sign",
    "dscp": 46,
    "rate_share_up": 0.3,
    "rate_share_down": 0.1,
    "packet_loss_up": 0.01,
}
KEEP = {"method": {"name": "fedasync", "cut_updates": "keep"}}


def tree(classes: Any = None, routes: Any = None, **sections: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text())
    found["radio"]["classes"] = classes or []
    found["transport"] = {"classes": routes or {}}
    return found | sections


def configs(experiment: dict[str, Any]) -> tuple[AgentConfig, ServerConfig]:
    checked = Experiment.model_validate(experiment)
    nowhere = Path("/nonexistent")
    plan = LocalPlan(
        experiment=checked,
        run_dir=nowhere,
        sockets_dir=nowhere,
        data_dir=nowhere,
        run_id=1,
        command_mono_s=0.0,
        links=cast("LinksOfRun", None),
    )
    return plan.agent(0), plan.server(dimension=10, layout_hash=1)


def complaint(folder: Path, experiment: dict[str, Any]) -> str:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(experiment))
    with pytest.raises(FadelabError) as raised:
        load_experiment(path)
    return str(raised.value).removeprefix(f"{path}: ")


def test_by_default_everything_goes_in_one_unmarked_stream() -> None:
    agent, server = configs(tree())
    assert [(name, way.kind, way.dscp) for name, way in agent.classes.items()] == [
        ("update", "stream", 0),
        ("sign", "stream", 0),
        ("modulus", "stream", 0),
    ]
    assert agent.uplink_shares.default == 1.0
    assert server.datagram_listen is None


def test_a_class_of_the_link_marks_the_packets_of_the_same_name() -> None:
    routes = {"sign": {"kind": "datagrams", "repeats": 2}, "modulus": {"kind": "stream", "dscp": 8}}
    agent, server = configs(tree([SIGN], routes))
    assert (agent.classes.sign.kind, agent.classes.sign.dscp) == ("datagrams", 46)
    assert agent.classes.modulus.dscp == 8
    assert agent.uplink_shares.default == pytest.approx(0.7)
    assert [(one.dscp, one.rate_share) for one in agent.uplink_shares.marked] == [(46, 0.3)]
    assert server.datagram_listen == SERVER


def test_even_without_a_route_of_its_own() -> None:
    agent, _ = configs(tree([SIGN]))
    assert (agent.classes.sign.kind, agent.classes.sign.dscp) == ("stream", 46)


def test_the_port_of_the_server_gives_its_class_to_what_has_no_mark() -> None:
    of_port = {"name": "data", "port": 50051, "rate_share_up": 0.6, "rate_share_down": 0.6}
    agent, _ = configs(tree([SIGN, of_port]))
    assert agent.uplink_shares.default == 0.6


def test_lost_datagrams_need_a_method_that_takes_updates_in_part() -> None:
    bare = {"sign": {"kind": "datagrams"}}
    assert configs(tree(routes=bare, **KEEP))[1].partial_updates == "keep"
    repeated = {"sign": {"kind": "datagrams", "repeats": 3}}
    assert configs(tree(routes=repeated))[1].partial_updates == "discard"


@pytest.mark.parametrize(
    ("experiment", "sentence"),
    [
        (
            tree(routes={"sign": {"kind": "datagrams"}}),
            (
                "transport.classes.sign sends datagrams without repeats, but the method takes whole "
                "updates only (cut_updates is resume): one lost datagram would cost the update; set "
                "method.cut_updates to keep, or repeats to 1 or more."
            ),
        ),
        (
            tree([SIGN], {"sign": {"kind": "stream", "dscp": 7}}),
            (
                "transport.classes.sign.dscp is 7, but radio.classes tells 'sign' by dscp 46: leave "
                "the first one out, or give both the same."
            ),
        ),
        (
            tree(
                [{k: v for k, v in SIGN.items() if k != "dscp"} | {"port": 99}],
                {"sign": {"kind": "stream"}},
            ),
            (
                "radio.classes tells 'sign' by port 99, but transport.classes.sign can mark packets "
                "by dscp alone: give the radio's class a dscp."
            ),
        ),
        (
            tree(routes={"sign": {"kind": "pigeons"}}),
            "'transport.classes.sign.kind' is 'pigeons'; allowed: datagrams, stream.",
        ),
        (
            tree(routes={"signs": {"kind": "stream"}}),
            "unknown key 'transport.classes.signs'; allowed: update, sign, modulus.",
        ),
        (
            tree(routes={"sign": {"kind": "datagrams", "deadline_s": -1}}, **KEEP),
            "'transport.classes.sign.deadline_s' is -1; it must be greater than 0.",
        ),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, experiment: dict[str, Any], sentence: str
) -> None:
    assert complaint(tmp_path, experiment) == sentence
