"""From logs and reports to the bound and to plans: what is measured arrives where it belongs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.server.schedules import random_log

from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog, read_events
from fadelab_proto.local_period import LocalPlan
from fadelab_proto.period_report import PeriodReport
from fadelab_server.scheduler.bound import bound_terms
from fadelab_server.scheduler.estimates import DriftRates, Suprema
from fadelab_server.scheduler.event_log import EventLogError, Received, Uploaded
from fadelab_server.scheduler.knowledge import (
    CompletedPeriod,
    LocalKnowledge,
    ProcessorTerms,
    completed_periods,
    period_terms,
    task_constants,
)
from fadelab_server.scheduler.log_lines import RECEIVED, UPLOADED, task_log_of
from fadelab_server.scheduler.objective import CostWeights, TaskWeights

SEEN = Suprema().with_report(PeriodReport(0.5, 2.0, 3.0, 4.0, 6.0))


def test_a_log_survives_its_file_bit_for_bit(tmp_path: Path) -> None:
    made = random_log(np.random.default_rng(4), devices=3, aggregations=8, mixing=0.1 + 0.2)
    with EventLog(tmp_path, "server", "0", SystemClock()) as log:
        log.set_start(0.0)
        log.write("something_else", task=0)
        for event in made.events:
            fields = {"task": 1, "device": event.device, "version": event.version}
            if isinstance(event, Uploaded):
                extra = {"aggregation": event.aggregation, "mixing": event.mixing}
                log.write(UPLOADED, **fields, **extra)
            else:
                log.write(RECEIVED, **fields)
    lines = read_events(tmp_path / "server-0.jsonl")
    found = task_log_of(lines, task=1, devices=3)
    assert [replace(event, t_s=0.0) for event in found.events] == [
        replace(event, t_s=0.0) for event in made.events
    ]
    assert task_log_of(lines, task=0, devices=3).events == ()


@pytest.mark.parametrize("value", [None, "1", 1.5, True])
def test_lines_without_numbers_are_refused(value: object) -> None:
    line = {"event": RECEIVED, "task": 0, "device": value, "version": 0, "t_s": 0.0}
    with pytest.raises(EventLogError, match="device"):
        task_log_of([json.loads(json.dumps(line))], task=0, devices=2)
    assert isinstance(task_log_of([line | {"device": 1}], task=0, devices=2).events[0], Received)


def test_measured_periods_give_the_bound() -> None:
    period = CompletedPeriod(
        learning_rate=0.1,
        plan=LocalPlan(cpu_hz=1e6, batch_size=64, steps=3, idle_s=1.0),
        samples=10,
        dissimilarity=0.5,
        data_variance=2.0,
        idle_drift=0.3,
        active_drift=0.1,
    )
    constants = task_constants(SEEN, proximal=1.0, mixing=[0.3, 0.2], staleness=1)
    assert (constants.mixing_min, constants.mixing_max, constants.coupling) == (0.2, 0.3, 0.3)
    found = bound_terms(
        completed_periods([period, period]), constants, loss_first=2.0, loss_last=1.0
    )
    assert found.initial_error == pytest.approx(2 / (2 * 0.1 * 0.2))
    assert found.dissimilarity == pytest.approx(3 * 0.5)
    # The batch is all there is.
    assert found.minibatch_noise == 0
    assert found.local_drift == pytest.approx(2 * 0.1 * 3 * 4.0 * (0.1 + 3))
    assert found.concept_drift == pytest.approx(2 * 0.4 / 0.1)


def test_weights_and_measurements_become_the_terms_of_a_period() -> None:
    terms = period_terms(
        SEEN,
        LocalKnowledge(50, 0.25, 7.0, DriftRates(0.4, 0.2)),
        ProcessorTerms(1000.0, 1e-20, 1e4, 1e7),
        (CostWeights(1e-3, 2.0, 1.0), TaskWeights(importance=5.0, energy=3.0)),
        learning_rate=0.1,
        learning_rate_min=0.05,
        proximal=1.0,
        steps=(1, 20),
    )
    assert terms.learning == pytest.approx(1e-3 * 5 / 0.05)
    assert terms.per_j == 6.0
    assert terms.haste == pytest.approx(2 * terms.learning * (0.2 - 0.4))
    assert (terms.variability, terms.smoothness, terms.regularised_gradient_sq) == (0.5, 6.0, 4.0)
    assert (terms.samples, terms.data_variance, terms.steps_max) == (50, 7.0, 20)
