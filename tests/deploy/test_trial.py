"""Back-ends are tried on this machine before one is taken."""

import pytest

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.trial import attempt, choose_backend
from fadelab_emulation.backends.choice import SKILLS, Need, Variant
from fadelab_emulation.backends.plan import ClassMark
from fadelab_emulation.sandbox import probe_sandbox
from fadelab_emulation.window import BackendChoice, WindowMode

pytestmark = pytest.mark.namespaces


@pytest.fixture(autouse=True)
def _sandbox() -> None:
    probe = probe_sandbox()
    if not probe.available:
        pytest.skip(f"needs namespaces: {probe.problem}")


def test_a_link_that_can_be_made_raises_no_objection() -> None:
    assert attempt(Variant.LITE_CBPF, frozenset({Need.LOSS}), WindowMode.HOLD) == ""
    marks = (ClassMark(dscp=46), ClassMark(port=7000))
    assert attempt(Variant.LITE_CBPF, frozenset(), WindowMode.DROP, marks) == ""


def test_what_a_variant_cannot_do_shows_when_it_is_tried() -> None:
    assert "delay" in attempt(Variant.LITE_CBPF, frozenset({Need.DELAY}), WindowMode.HOLD)


def test_every_variant_either_works_or_says_why_not() -> None:
    for variant, skill in SKILLS.items():
        problem = attempt(variant, skill.can, WindowMode.HOLD)
        assert problem == "" or len(problem.split()) > 3
        assert "Errno" not in problem


def test_a_choice_on_this_machine_is_one_that_was_tried() -> None:
    choice = choose_backend(BackendChoice.AUTO, frozenset({Need.LOSS}), WindowMode.HOLD)
    assert choice.variant in (Variant.LITE_EBPF, Variant.LITE_CBPF)
    with pytest.raises(FadelabError, match="'lite' cannot do delay") as refused:
        choose_backend(BackendChoice.LITE, frozenset({Need.DELAY}), WindowMode.HOLD)
    assert refused.value.code is ExitCode.ENVIRONMENT
