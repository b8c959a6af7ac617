"""The experiment's downlink reaches server and agents."""

from pathlib import Path

import pytest
from tests.deploy.run_record import QUICKSTART
from tests.deploy.test_manifest import LINKS

from fadelab.exit_codes import FadelabError
from fadelab.experiment import load_experiment
from fadelab.local.plan import LocalPlan


def plan(folder: Path, *settings: str) -> LocalPlan:
    return LocalPlan.create(load_experiment(QUICKSTART, settings), LINKS, folder, folder)


@pytest.mark.parametrize(
    ("setting", "kind", "keeps"),
    [
        ("seed=9", "full", False),
        ("transport.downlink={kind: delta}", "delta", True),
        (
            "transport.downlink={kind: quantised, codec: {kind: laq, bits: 4, block: per_layer}}",
            "quantised",
            True,
        ),
    ],
)
def test_server_and_agents_agree_on_the_downlink(
    tmp_path: Path, setting: str, kind: str, keeps: bool
) -> None:
    made = plan(tmp_path, setting, "seed=9")
    server = made.server(dimension=10, layout_hash=1, layers=(4, 6))
    assert server.downlink.kind == kind
    assert server.seed == 9
    assert made.agent(0).keeps_model is keeps


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            "{kind: sparse}",
            "'transport.downlink.kind' is 'sparse'; allowed: delta, full, quantised",
        ),
        ("{kind: quantised}", "the key 'transport.downlink.codec' is missing"),
        ("{kind: quantised, codec: {kind: sign_modulus, bits: 4}}", "is 'sign_modulus'; allowed: "),
    ],
)
def test_a_mistake_is_one_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(FadelabError, match=sentence):
        load_experiment(QUICKSTART, [f"transport.downlink={setting}"])
