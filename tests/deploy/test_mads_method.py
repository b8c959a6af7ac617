"""MADS, its baselines and its ablations, as experiments name them."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from tests.deploy.run_record import QUICKSTART

from fadelab.exit_codes import FadelabError
from fadelab.experiment import Experiment, load_experiment
from fadelab.methods import MethodConfig
from fadelab.methods.mads import ALLOWANCE_J
from fadelab_agent.contact_config import ContactConfig
from fadelab_agent.policy import FixedFractionConfig, MadsConfig
from fadelab_server.config import (
    AflConfig,
    ConstantStaleness,
    FedBuffConfig,
    PolynomialStaleness,
)

QUICK = QUICKSTART.parent / "mads" / "quick.yaml"
POLYNOMIAL = {"kind": "polynomial", "exponent": 0.5}


def method(**settings: Any) -> MethodConfig:
    found: MethodConfig = TypeAdapter(MethodConfig).validate_python(settings)
    return found


def test_mads_is_its_policy_the_contact_loop_and_afl() -> None:
    pieces = method(name="mads").pieces()
    assert pieces.aggregation == AflConfig(staleness=ConstantStaleness())
    assert pieces.policy == MadsConfig()
    assert pieces.error_memory
    assert pieces.cut_updates == "discard"
    assert pieces.contacts == ContactConfig(allowance_j=ALLOWANCE_J)


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"partial_credit": True}, {"cut_updates": "keep"}),
        ({"error_memory": False}, {"error_memory": False}),
        (
            {"staleness": POLYNOMIAL, "server_rate": 2},
            {"aggregation": AflConfig(staleness=PolynomialStaleness(), server_rate=2)},
        ),
        (
            {"decision": {"power": "full", "staleness": "off", "contact": "mean", "codec": "best"}},
            {"policy": MadsConfig(power="full", staleness="off", contact="mean", codec="best")},
        ),
        (
            {"decision": {"form": "power_law"}, "contacts": {"max_local_steps": 9}},
            {
                "policy": MadsConfig(form="power_law"),
                "contacts": ContactConfig(max_local_steps=9, fits_magnitudes=True),
            },
        ),
    ],
)
def test_ablations_change_one_thing(settings: dict[str, Any], change: dict[str, Any]) -> None:
    plain, other = method(name="mads").pieces(), method(name="mads", **settings).pieces()
    for name in ("aggregation", "policy", "error_memory", "cut_updates", "contacts"):
        assert getattr(other, name) == change.get(name, getattr(plain, name))


def test_baselines_use_contacts_as_mads_does() -> None:
    upload = {"kind": "topk", "fraction": 0.05, "indices": "paper"}
    pieces = method(name="afl", upload=upload).pieces()
    assert pieces.aggregation == AflConfig()
    assert pieces.policy == FixedFractionConfig(fraction=0.05, indices="paper")
    assert (pieces.cut_updates, pieces.contacts) == ("discard", ContactConfig())
    assert method(name="afl", cut_updates="resume").pieces().cut_updates == "resume"


def test_fedbuff_takes_turns_unless_it_is_given_contacts() -> None:
    pieces = method(name="fedbuff", buffer=3).pieces()
    assert pieces.aggregation == FedBuffConfig(buffer=3)
    assert pieces.contacts is None
    assert method(name="fedbuff", contacts={}).pieces().contacts == ContactConfig()


@pytest.mark.parametrize("name", ["fedavg", "fedasync", "fedbuff", "lazy", "afl"])
def test_only_mads_decides_by_contact(name: str) -> None:
    with pytest.raises(ValidationError, match="a method of its own"):
        method(name=name, upload={"kind": "mads"})


def test_steps_that_are_never_reached_are_refused() -> None:
    with pytest.raises(ValidationError, match="never be reached"):
        ContactConfig(max_local_steps=5, again_after_steps=6)


def quick(*settings: str) -> Experiment:
    return load_experiment(QUICK, settings)


def test_a_contact_that_never_ends_needs_a_word_on_when_to_use_it_again() -> None:
    with pytest.raises(FadelabError, match="uploads once in each contact"):
        quick("radio.contact={kind: always}")
    quick("radio.contact={kind: always}", "method.contacts.again_after_steps=20")


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("radio.prediction={kind: oracle}",),
        ("radio.prediction={kind: forecast, error_std: 0.2, bias: -0.1}",),
        ("radio.contact={kind: exponential, mean_contact_s: 8, mean_gap_s: 30}",),
        ("method={name: afl}",),
        ("method={name: afl, upload: {kind: topk, fraction: 0.01, indices: paper}}",),
        ("method={name: fedbuff, buffer: 4, contacts: {max_local_steps: 50}}",),
        ("method={name: fedasync, cut_updates: discard}",),
    ],
)
def test_everything_that_is_compared_can_be_reached_from_the_example(
    settings: tuple[str, ...],
) -> None:
    assert quick(*settings).devices.count == 16


def test_the_example_lies_where_the_documents_say() -> None:
    assert Path("examples/mads/quick.yaml").name == QUICK.name
    assert quick().method.name == "mads"
