"""What the report says of links: proof, throughput, places, oracle."""

import re

from report_outline import text_of
from report_runs import cell_free, disobedient, imported_trace, make_run, no_proof, oracle

from fadelab.report.coverage import field_map
from fadelab.report.overview import heading, marks
from fadelab.report.proof import proof
from fadelab.report.throughput import throughput


def test_the_proof_tells_back_end_matrix_loss_delay_and_calibration() -> None:
    text = text_of(proof(make_run(8)))
    assert "Back-end netem/cbpf: the cheapest that this machine has" in text
    assert "lite/cbpf: cannot do delay" in text
    # 8 devices of 120 open and 80 closed intervals in each direction.
    assert "uplinks open 960 0 0.00 % uplinks closed 0 640 0.00 %" in text
    assert "both open 1 920 0 0.00 % both closed 0 1 280 0.00 %" in text
    assert "11.696 11.708 0.10 %" in text


def test_what_is_not_allowed_is_marked_in_the_proof() -> None:
    marked = re.findall(r'<td class="(?:num )?bad"[^>]*>([^<]*)</td>', proof(disobedient()))
    # Connectivity of uplinks, downlinks and both; z and delay of four links; the calibration.
    assert marked[:6] == ["14", "6", "14", "6", "28", "12"]
    assert marked[6:10] == ["10.10"] * 4
    assert marked[10:14] == ["4.000"] * 4
    assert marked[14:] == ["-30.00\u202f%", "–", "no"]


def test_a_run_without_proof_says_so_in_sentences() -> None:
    text = text_of(proof(no_proof()))
    for sentence in (
        "The run ended before its links were made.",
        "The run recorded no readings of its links.",
        "Lost packets were not counted.",
        "No delay was programmed or timed.",
        "No link was measured before the run.",
    ):
        assert sentence in text


def test_an_oracle_and_a_time_scale_stand_on_the_first_screen() -> None:
    assert "Oracle: devices knew the true future" in text_of(marks(oracle()))
    assert "10 of them per second of the wall clock" in text_of(heading(oracle()))
    assert marks(make_run(2)) == ""


def test_throughput_is_drawn_per_link_while_there_is_room() -> None:
    few = text_of(throughput(make_run(8)))
    assert "uplink; at the right: top of each lane (Mbit/s)" in few
    assert "device-7" in few
    many = text_of(throughput(make_run(33)))
    assert "downlink, all links (Mbit/s)" in many
    assert "device-7" not in many


def test_a_trace_without_places_has_no_map_and_sites_are_all_drawn() -> None:
    assert "has no places" in text_of(field_map(imported_trace()))
    assert "base stations" in text_of(field_map(cell_free()))
