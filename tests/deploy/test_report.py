"""The report of synthetic runs of every size and shape."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from report_outline import Outline, text_of
from report_runs import (
    change,
    disobedient,
    empty_schedule,
    make_run,
    make_task,
    make_twin,
    no_contacts,
    no_devices,
    no_proof,
    no_schedule,
    not_valid,
    oracle,
    static_device,
    with_links,
)

from fadelab.report.devices import device_table
from fadelab.report.overview import key_figures
from fadelab.report.twin import twin
from fadelab.report.write import build_page, write_report
from fadelab.results.contact_schema import ContactUse

CASES = {
    "1": lambda: make_run(1),
    "8": lambda: make_run(8),
    "33": lambda: make_run(33),
    "100": lambda: make_run(100),
    "1000": lambda: make_run(1000),
    "no curve": lambda: change(make_run(2), tasks={"digits": make_task(0, points=0)}),
    "one point": lambda: change(make_run(2), tasks={"digits": make_task(0, points=1)}),
    "two tasks": lambda: change(
        make_run(3), tasks={"digits": make_task(10**7), "mnist": make_task(10**7, points=500)}
    ),
    "no contacts": no_contacts,
    "no saturated ticks": lambda: with_links(make_run(8), ratio=None),
    "no saturated ticks, 100": lambda: with_links(make_run(100), ratio=None),
    "no goodput": lambda: with_links(
        make_run(100), programmed_goodput_bps=None, achieved_goodput_bps=None
    ),
    "no schedule": no_schedule,
    "no devices": no_devices,
    "not valid": not_valid,
    "static": static_device,
    "no proof": no_proof,
    "oracle": oracle,
    "disobedient": disobedient,
    "twin": lambda: change(make_run(8), twin=make_twin(8)),
}
HOSTILE = "<script>alert('x')</script>&\"$\\frac{1}$"


@cache
def page_of(case: str) -> str:
    """Build a case's page once: charts take their time."""
    return build_page(CASES[case]())


@pytest.mark.parametrize("case", CASES)
def test_every_run_gives_one_self_contained_page(case: str) -> None:
    page = page_of(case)
    outline = Outline(page)
    assert len(page) < 3_000_000
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    assert not {"link", "img", "iframe", "object"} & set(outline.tags)
    assert outline.tags.count("script") == 1
    for _, name, value in outline.attributes:
        assert name != "src"
        if name in {"href", "xlink:href"}:
            assert value.startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"\b(nan|None|inf)\b", outline.visible)


@pytest.mark.parametrize("case", ["8", "100"])
def test_the_same_input_gives_the_same_bytes(case: str, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", CASES[case]())
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page_of(case)


def test_identifiers_are_unique_and_references_resolve() -> None:
    outline = Outline(page_of("two tasks"))
    identifiers = [value for _, name, value in outline.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers)) > 10

    targets = {
        target
        for _, _, value in outline.attributes
        for target in re.findall(r"(?:^|url\()#([^)]+)", value)
        if not re.fullmatch(r"[0-9a-fA-F]{6}", target)
    }
    assert targets == set(identifiers)


def test_eight_devices_are_named_in_charts_and_tables() -> None:
    run = make_run(8)
    page = page_of("8")
    for name in run.devices:
        in_charts = re.findall(rf"<text[^>]*>{name}</text>", page)
        assert len(in_charts) >= 4
        assert f"<td>{name}</td>" in page


def test_many_devices_are_cut_and_the_rest_counted() -> None:
    text = Outline(page_of("1000")).visible
    assert "… and 900 more in summary.json" in text


def test_devices_that_need_attention_are_listed_first() -> None:
    run = make_run(150)
    worst = run.devices["device-149"]
    broken = worst.model_copy(update={"up": worst.up.model_copy(update={"leaked_packets": 3})})
    table = device_table(change(run, devices={**run.devices, "device-149": broken}))
    first_name = re.search(r"<td>([^<]+)</td>", table)
    assert first_name is not None
    assert first_name[1] == "device-149"


def test_verdict_and_every_reason_are_shown() -> None:
    valid = Outline(page_of("8")).text
    assert "VALID" in valid
    assert "NOT VALID" not in valid

    run = not_valid()
    text = Outline(page_of("not valid")).text
    assert "NOT VALID" in text
    assert set(run.summary.invalid_reasons) <= set(text)


def test_names_and_reasons_are_text_and_never_markup() -> None:
    names = [HOSTILE, "</text></svg><b>", "Gerät 设备", "a\x07b", "x" * 200]
    run = make_run(names=names)
    run = change(run, valid=False, invalid_reasons=[HOSTILE], name=HOSTILE)
    run = replace(run, manifest={"experiment": {HOSTILE: HOSTILE}, HOSTILE: HOSTILE})
    page = build_page(run)
    outline = Outline(page)
    assert outline.tags.count("script") == 1
    assert outline.tags.count("b") == Outline(page_of("8")).tags.count("b")
    assert "alert('x')" not in page
    assert HOSTILE in outline.text
    assert "Gerät 设备" in outline.text
    assert "\x07" not in re.sub(r"<td>.*?</td>", "", page)


def test_the_schedule_refuses_arrays_of_different_shapes() -> None:
    with pytest.raises(ValueError, match="is_open has shape"):
        replace(empty_schedule(("a", "b"), 5), is_open=np.zeros((5, 3), dtype=bool))


def test_only_writing_a_report_loads_matplotlib() -> None:
    code = "import sys, fadelab.report.model; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_what_became_of_contacts_is_told_where_devices_upload_in_each() -> None:
    use = ContactUse(
        used=50,
        skipped=2,
        sent=48,
        acknowledged=45,
        predicted_to_fit=48,
        covered=40,
        covered_acknowledged=39,
        mean_predicted_s=6.0,
        mean_kept_share=0.3,
        mean_energy_j=0.09,
        allowance_j=0.1,
        mean_queue_j=0.02,
    )
    visible = Outline(key_figures(change(make_run(1), contacts=use))).visible
    assert "97.5" in visible
    assert "of 40 whose contact lasted as counted on" in visible
    assert re.search(r"0\.1\S*\sJ allowed", visible)
    unbound = change(make_run(1), contacts=use.model_copy(update={"allowance_j": None}))
    assert "no allowance" in Outline(key_figures(unbound)).visible
    assert "allow" not in Outline(key_figures(make_run(1))).visible


def test_sockets_and_formula_twin_stand_side_by_side() -> None:
    run = change(make_run(3), twin=make_twin(3))
    section = twin(run)
    visible = text_of(section)
    assert "0 of 40 decisions made again" in visible
    assert "2.5 % off in the median of 30 uploads" in visible
    assert section.count("<svg") == 1
    assert section.count("<tr>") == 1 + 3 + 1
    assert "more than 50 wire packets" in visible


def test_a_twin_that_decides_otherwise_or_is_far_off_is_marked() -> None:
    found = make_twin(1)
    assert 'class="bad"' not in twin(change(make_run(1), twin=found))
    other = found.decisions.model_copy(update={"mismatches": 1})
    assert 'class="bad"' in twin(
        change(make_run(1), twin=found.model_copy(update={"decisions": other}))
    )
    slow = found.durations.model_copy(update={"median_deviation": 0.051})
    assert 'class="bad"' in twin(
        change(make_run(1), twin=found.model_copy(update={"durations": slow}))
    )


def test_a_twin_without_uploads_or_second_run_says_so() -> None:
    found = make_twin(1, uploads=0).model_copy(update={"run": None})
    section = twin(change(make_run(1), twin=found))
    assert "No upload was acknowledged" in text_of(section)
    assert "<table" not in section
    assert twin(make_run(1)) == ""
