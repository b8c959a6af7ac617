"""What the terminal says of a run's links."""

from pathlib import Path

import pytest
from rich.console import Console
from run_record import RunWriter, radio, write_whole_run

from fadelab.cli.links_outcome import link_rows
from fadelab.cli.view import RunView
from fadelab.experiment import Experiment
from fadelab.results.compute import compute_summary
from fadelab.results.record import RunRecord
from fadelab_emulation.backends.choice import Variant


def rows(run: RunWriter) -> dict[str, str]:
    write_whole_run(run)
    return dict(link_rows(compute_summary(run.folder)))


def test_a_run_whose_links_obey_needs_two_lines(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.ready()
    run.achieved({"through_packets": [[0, 0], [3, 0], [5, 0], [5, 0], *[[9, 4]] * 4]})
    assert rows(run) == {
        "back-end": "lite/cbpf: the cheapest that this machine has for rates and contact windows",
        "links": "achieved / programmed 0.988 to 0.988, 0 leaked packets",
    }


def test_oracle_wrong_connectivity_loss_and_delay_are_told_where_there_are_any(
    tmp_path: Path,
) -> None:
    run = RunWriter(tmp_path, radio=radio(prediction={"kind": "oracle", "horizon_s": 20}))
    run.achieved({"through_packets": [[t, t] for t in range(8)]})
    run.delay_probe(0, 1)
    run.delay_probe(1, 1, achieved_s=0.049)
    write_whole_run(run)
    run.account(0, up_arrived_packets=1000, up_lost_packets=30, up_expected_losses=20.0)
    found = dict(link_rows(compute_summary(tmp_path)))
    assert found["prediction"] == "oracle: devices knew the true future"
    assert found["connectivity"] == "wrong intervals: 1 of closed links, 0 of open ones"
    assert found["packet loss"] == "30 packets, 20 expected; worst link +2.3 standard deviations"
    assert found["delay"] == "off by -1.00 to +0.20 ms (link medians)"
    assert "back-end" not in found


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_view_says_which_back_end_was_chosen(is_terminal: bool, tmp_path: Path) -> None:
    console = Console(record=True, force_terminal=is_terminal, width=120)
    RunView(experiment(tmp_path), console).links(Variant.RELAY, "asked for [and] able")
    assert "links by relay: asked for [and] able" in console.export_text()


def experiment(folder: Path) -> Experiment:
    RunWriter(folder)
    return RunRecord.load(folder).experiment
