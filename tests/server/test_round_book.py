"""What a server knows of rounds and their costs is the same after a restart at any moment."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fadelab_server.journal.records import Granted, decode_decision, encode_decision
from fadelab_server.rounds.book import RoundBook
from fadelab_server.rounds.config import BudgetConfig

DEVICES = 3
BUDGET = BudgetConfig(energy_j=10.0, latency_s=50.0)


def grant(version: int, now_s: float, powers_w: tuple[float, ...]) -> Granted:
    devices = tuple(range(DEVICES))
    numbers = tuple({"wire_bits": 1e6} for _ in devices)
    same = (1.0,) * DEVICES
    return Granted(
        version=version,
        now_s=now_s,
        planned_s=1.5,
        planned_j=sum(powers_w),
        compute_s=0.5,
        compute_j=0.25,
        devices=devices,
        update_ids=(version + 1,) * DEVICES,
        reports=numbers,
        coefficient=powers_w,
        power_w=powers_w,
        rate_bps=same,
        upload_s=same,
    )


steps = st.lists(
    st.one_of(
        st.tuples(st.just("granted"), st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * DEVICES)),
        st.tuples(st.just("uploaded"), st.integers(0, DEVICES)),
        st.tuples(st.just("published"), st.none()),
        st.tuples(st.just("restarted"), st.none()),
    ),
    max_size=30,
)


@given(steps)
def test_a_restart_changes_nothing(taken: list[tuple[str, Any]]) -> None:
    steady, killed = RoundBook(BUDGET), RoundBook(BUDGET)
    newest = 0
    for now_s, (what, argument) in enumerate(taken):
        for book in (steady, killed):
            if what == "granted":
                book.granted(grant(newest, float(now_s), argument))
            elif what == "uploaded":
                book.uploaded(argument, float(now_s))
            elif what == "published":
                book.ended(newest + 1)
        newest += what == "published"
        if what == "restarted":
            snapshot = json.loads(json.dumps(killed.snapshot()))
            killed = RoundBook(BUDGET)
            killed.restore(snapshot)
        as_json = [json.loads(json.dumps(book.snapshot())) for book in (steady, killed)]
        assert as_json[0] == as_json[1]
        assert killed.spending.over == steady.spending.over
        assert killed.arrived == steady.arrived


def test_a_grant_comes_back_from_the_journal_as_it_was() -> None:
    written = grant(3, 12.25, (0.0, 0.1, 1 / 3))
    found = decode_decision(Granted, memoryview(encode_decision(written)))
    books = RoundBook(BUDGET), RoundBook(BUDGET)
    for book, one in zip(books, (written, found), strict=True):
        book.granted(one)
        assert book.uploaded(2, 14.25) == (2.0, pytest.approx(2 / 3))
        cost = book.ended(4)
        assert cost is not None
        assert cost.measured_j == pytest.approx(2 / 3 + 0.25)
    assert books[0].spending.sums == books[1].spending.sums


def test_a_round_costs_once_and_only_when_it_made_a_version() -> None:
    book = RoundBook(BUDGET)
    book.granted(grant(0, 1.0, (1.0, 1.0, 1.0)))
    assert book.ended(0) is None
    assert book.spending.sums == (0.0, 0.0, 0.0, 0.0)
    assert book.ended(1) is not None
    assert book.ended(1) is None
    assert book.spending.sums[:2] == (1.5, 3.0)
    assert math.isclose(book.spending.left.energy_j, 7.0)


@pytest.mark.parametrize(
    "snapshot",
    [{}, [], {"spent": [1.0], "present": []}, {"spent": [0.0] * 4, "present": [{"version": 1}]}],
)
def test_a_snapshot_that_is_none_is_refused(snapshot: Any) -> None:
    with pytest.raises(ValueError, match=r"rounds|unpack"):
        RoundBook(BUDGET).restore(snapshot)
