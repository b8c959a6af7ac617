"""A sweep file becomes runs, and every mistake in it a sentence before the first of them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from run_record import QUICKSTART
from sweep_runs import SPEEDS, VARIANTS, complaint, plan_of, sweep_file

from fadelab.exit_codes import FadelabError
from fadelab.experiment import load_experiment
from fadelab.sweep.plan import digest_of, load_plan

EXAMPLES = Path(__file__).parents[2] / "examples"
FEDAVG = {"name": "fedavg"}
FEDASYNC = {"name": "fedasync", "alpha": 0.4}


def test_every_grid_point_variant_and_seed_is_a_run_with_its_own_name(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, grid=SPEEDS, seeds=[7, 3])
    assert [run.name for run in plan.runs] == [
        "dense_speed_mps=5_seed=7",
        "half_speed_mps=5_seed=7",
        "dense_speed_mps=20-30_seed=7",
        "half_speed_mps=20-30_seed=7",
        "dense_speed_mps=5_seed=3",
        "half_speed_mps=5_seed=3",
        "dense_speed_mps=20-30_seed=3",
        "half_speed_mps=20-30_seed=3",
    ]
    assert plan.runs[2].point == (("radio.mobility.speed_mps", "20-30"),)
    assert plan.runs == plan_of(tmp_path, grid=SPEEDS, seeds=[7, 3]).runs
    assert (plan.name, plan.baseline, plan.attempts) == ("sweep", "dense", 2)


def test_variants_of_one_seed_differ_in_their_own_settings_alone(tmp_path: Path) -> None:
    dense, half = plan_of(tmp_path, seeds=1).runs
    assert (dense.experiment.seed, half.experiment.seed) == (1, 1)
    assert dense.experiment.method != half.experiment.method
    assert dense.experiment.model_dump(exclude={"method"}) == half.experiment.model_dump(
        exclude={"method"}
    )


def test_a_run_is_what_the_command_line_would_make_of_its_settings(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path, settings={"duration_s": 5}, grid={"devices.count": [3]}, variants=None, seeds=[4]
    )
    (run,) = plan.runs
    assert run.name == "base_count=3_seed=4"
    same = load_experiment(QUICKSTART, ["duration_s=5", "devices.count=3"], seed=4)
    assert run.experiment == same
    assert run.digest == digest_of(same)


def test_the_digest_is_of_what_has_an_effect() -> None:
    plain = load_experiment(QUICKSTART)
    assert digest_of(plain) == digest_of(load_experiment(QUICKSTART, ["name=other"]))
    assert digest_of(plain) != digest_of(load_experiment(QUICKSTART, ["method.alpha=0.41"]))
    assert digest_of(plain) == digest_of(load_experiment(QUICKSTART, ["method.missing=reweigh"]))


def test_whole_sections_come_before_the_keys_in_them(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        variants={"async": {"method": FEDASYNC}},
        grid={"method.alpha": [0.2, 0.9]},
        settings={"method.error_memory": False},
        seeds=1,
    )
    alphas = [run.experiment.method.alpha for run in plan.runs]  # type: ignore[union-attr]
    assert alphas == [0.2, 0.9]
    assert all(run.experiment.method.error_memory for run in plan.runs)  # type: ignore[union-attr]


def test_without_variants_an_axis_of_methods_is_what_is_compared(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, variants=None, grid={"method": [FEDAVG, FEDASYNC]}, seeds=1)
    assert plan.variants == ("fedavg", "fedasync")
    assert [run.point for run in plan.runs] == [(), ()]
    both = plan_of(
        tmp_path, variants={"a": {}}, grid={"method": [FEDASYNC, {**FEDASYNC, "alpha": 0.9}]}
    )
    assert [point.label for point in both.axes[0].points] == ["fedasync-1", "fedasync-2"]


def test_named_points_set_several_keys_at_once(tmp_path: Path) -> None:
    slow = {"radio.mobility.speed_mps": [2, 2], "duration_s": 100}
    fast = {"radio.mobility.speed_mps": [20, 20], "duration_s": 10}
    plan = plan_of(tmp_path, grid={"speed": {"2": slow, "20": fast}}, variants=None, seeds=1)
    assert [run.name for run in plan.runs] == ["base_speed=2_seed=1", "base_speed=20_seed=1"]
    assert [run.experiment.duration_s for run in plan.runs] == [100, 10]
    assert [point.number for point in plan.axes[0].points] == [2.0, 20.0]


def test_numbers_of_an_axis_are_known_where_there_are_any(tmp_path: Path) -> None:
    axes = plan_of(tmp_path, grid=SPEEDS | {"method.alpha": [0.1, 0.5]}).axes
    assert [[point.number for point in axis.points] for axis in axes] == [[5.0, None], [0.1, 0.5]]


def test_excluded_runs_are_left_out(tmp_path: Path) -> None:
    key = "radio.mobility.speed_mps"
    plan = plan_of(
        tmp_path,
        grid=SPEEDS,
        exclude=[{"variant": "dense", key: [20, 30]}, {"seed": 2, key: "5"}],
    )
    assert [run.name for run in plan.runs] == [
        "dense_speed_mps=5_seed=1",
        "half_speed_mps=5_seed=1",
        "half_speed_mps=20-30_seed=1",
        "half_speed_mps=20-30_seed=2",
    ]


def test_an_experiment_may_stand_in_the_sweep_file_itself(tmp_path: Path) -> None:
    tree = yaml.safe_load(QUICKSTART.read_text())
    assert plan_of(tmp_path, experiment=tree).runs[0].experiment.devices.count == 8
    assert "FILE, every run: 'devices.count' is 0; it must be at least 1." in complaint(
        tmp_path, experiment=tree | {"devices": {"count": 0}}
    )


def test_an_experiment_is_found_beside_its_sweep_file() -> None:
    assert len(load_plan(EXAMPLES / "sweep-codecs.yaml").runs) == 6


def test_long_names_are_cut_and_stay_different(tmp_path: Path) -> None:
    values = ["x" * 300, "x" * 299 + "y"]
    plan = plan_of(tmp_path, grid={"description": values}, variants=None, seeds=1)
    names = [run.name for run in plan.runs]
    assert len(set(names)) == 2
    assert all(len(name) < 200 for name in names)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"colour": 1}, "FILE: unknown key 'colour'; allowed: name, description, experiment,"),
        ({"experiment": None}, "FILE: the key 'experiment' is missing."),
        ({"experiment": 5}, "FILE: 'experiment' is 5; it must be text or a section of keys"),
        ({"experiment": "no.yaml"}, "there is no experiment file "),
        ({"seeds": None}, "FILE: the key 'seeds' is missing."),
        ({"seeds": 0}, "FILE: 'seeds' is 0; it must be at least 1 or a list."),
        (
            {"seeds": []},
            "FILE: 'seeds' is []; it must be a whole number or it must hold at least 1",
        ),
        ({"seeds": [1, 1]}, "FILE: 'seeds': a seed stands there twice."),
        ({"seeds": [-1]}, "it must be at least 0"),
        ({"attempts": 0}, "FILE: 'attempts' is 0; it must be at least 1."),
        ({"baseline": "x"}, "FILE: 'baseline' is 'x'; allowed: dense, half."),
        ({"variants": {"a b": {}}}, "FILE: the name 'a b' in variants is not allowed: at most 64"),
        ({"variants": {"a": 3}}, "FILE: 'variants.a' is 3; it must be a section of keys"),
        ({"grid": {"a": 3}}, "FILE: 'grid.a' is 3; it must be a list or a section of keys"),
        ({"grid": {"a": []}}, "FILE: 'grid.a' is []; it must hold at least 1 values, not 0"),
        ({"grid": {"a..b": [1]}}, "FILE: 'a..b' in grid is not the path of a setting."),
        ({"grid": {"seed": [1]}}, "FILE: 'seed' in grid: seeds are given by 'seeds'."),
        ({"settings": {"seed": 1}}, "FILE: 'seed' in settings: seeds are given by 'seeds'."),
        ({"name": "a/b"}, "FILE: 'name' is 'a/b'; allowed: at most 64 letters"),
        ({"exclude": [{"x": 1}]}, "FILE: 'exclude[0]': unknown key 'x'; allowed: variant, seed."),
        ({"exclude": [{}]}, "FILE: 'exclude[0]': it is empty; allowed: variant, seed."),
        ({"exclude": [{"seed": 9}]}, "FILE: 'exclude[0]' matches no run."),
        ({"exclude": [{"seed": 1}, {"seed": 2}]}, "FILE: 'exclude' leaves no run."),
        (
            {"grid": {"devices.count": [4, 0]}},
            "FILE, run dense_count=0_seed=1 and 3 more: 'devices.count' is 0; it must be at least",
        ),
        (
            {"grid": {"devices.colour": ["red"]}},
            "FILE, every run: unknown key 'devices.colour'; allowed: count, compute.",
        ),
        (
            {"grid": {"duration_s.x": [1]}},
            "FILE, every run: 'duration_s.x': 'duration_s' is a value, not a section",
        ),
        (
            {"settings": {"name.x": 1}},
            "FILE, every run: settings.name.x: 'name' is a value, not a section",
        ),
        (
            {"variants": {"a": {"duration_s": 5}}, "grid": {"duration_s": [5, 6]}},
            "FILE, run a_duration_s=6_seed=1 and 1 more: 'duration_s' is set twice, to different",
        ),
        (
            {"grid": {"radio.replay": [{"x": 1}]}},
            "FILE, every run: unknown key 'radio.replay'; allowed: ",
        ),
    ],
)
def test_a_mistake_is_a_sentence_that_names_file_and_key(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    said = complaint(tmp_path, **changes)
    assert sentence in said
    for jargon in ("pydantic", "Input", "dictionary", "instance", "tuple", "JSON", "json"):
        assert jargon not in said


def test_of_many_mistakes_the_first_are_told_and_the_others_counted(tmp_path: Path) -> None:
    said = complaint(tmp_path, grid={"devices.count": [-number for number in range(8)]})
    assert len(said.splitlines()) == 6
    assert said.endswith("... and 3 more mistakes")


def test_a_sweep_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FadelabError, match="there is no sweep file"):
        load_plan(tmp_path / "none.yaml")


def test_a_file_name_that_is_no_name(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, variants=VARIANTS).rename(tmp_path / "my sweep.yaml")
    with pytest.raises(FadelabError, match="'my sweep' is no name for a sweep: give 'name'"):
        load_plan(path)
