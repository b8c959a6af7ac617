"""DMA-FL's tables: models of the sizes that are printed, and figures of a plausible size."""

from pathlib import Path

import numpy as np
import pytest

from fadelab.presets.dma_fl import (
    PARTITIONS,
    TABLE_II,
    TABLE_II_LITERAL,
    draw_processors,
    table_i,
)
from fadelab_agent.models import model_for
from fadelab_agent.partition import partition

SHAPES = {"svhn": (3, 32, 32), "mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28)}


def test_table_i_has_the_printed_numbers_of_parameters() -> None:
    sizes = [
        sum(p.numel() for p in model_for(task.model, SHAPES[task.name], 10).parameters())
        for task in table_i(Path("data"))
    ]
    assert sizes == [466_122, 7_850, 7_850]


def test_4096_bits_would_take_minutes_on_the_way_down() -> None:
    up, down = TABLE_II.mean_rates_bps(np.array([5.0, 25.0]))
    assert up == pytest.approx([28.9e6, 21.9e6], rel=0.01)
    assert down == pytest.approx([3.09e6, 2.39e6], rel=0.01)
    bits = 466_122 * TABLE_II_LITERAL.bits_per_entry
    assert bits == pytest.approx(1.91e9, rel=1e-3)
    assert bits / down[1] > 500
    assert 466_122 * TABLE_II.bits_per_entry / down[1] < 10


def test_path_loss_by_hand() -> None:
    # -30 dB at 1 m and 30 dB a decade: -60 dB at 10 m.
    assert TABLE_II.mean_gain(np.array([0.1, 1.0, 10.0])) == pytest.approx([1e-3, 1e-3, 1e-6])


def test_processors_are_drawn_from_the_table_s_intervals() -> None:
    drawn = draw_processors(TABLE_II, np.random.default_rng(0), tasks=3)
    assert drawn.capacitance_j_s2.shape == (10,)
    assert drawn.cycles_per_sample.shape == (10, 3)
    assert (drawn.cycles_per_sample >= 500).all()
    assert (drawn.cycles_per_sample <= 5000).all()
    assert drawn.capacitance_j_s2.max() < 2e-19


@pytest.mark.parametrize("name", PARTITIONS)
def test_local_sets_have_one_size(name: str) -> None:
    labels = np.random.default_rng(1).integers(0, 10, 4000)
    parts = partition(PARTITIONS[name], labels, 10, 10, 3)
    assert len({len(part) for part in parts}) == 1
    held = [len(set(labels[part])) for part in parts]
    if name == "two_labels":
        assert held == [2] * 10
    if name == "varied":
        assert held == list(range(1, 11))
