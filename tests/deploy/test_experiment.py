"""An experiment file becomes a model, and every mistake in it a sentence."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import load_experiment

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.yaml"
LISTED = "{kind: static, placement: {kind: listed, positions_m: [[1, 1], [2, 2]]}}"


def complaint(path: Path, *overrides: str, seed: int | None = None) -> str:
    with pytest.raises(FadelabError) as caught:
        load_experiment(path, overrides, seed=seed)
    assert caught.value.code == ExitCode.USAGE
    text = str(caught.value)
    for jargon in ("pydantic", "Input", "dictionary", "tag", "instance", "validation", "tuple"):
        assert jargon not in text
    return text


def without(key: str, folder: Path) -> Path:
    tree: Any = yaml.safe_load(QUICKSTART.read_text())
    *parents, last = key.split(".")
    node = tree
    for part in parents:
        node = node[part]
    del node[last]
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_the_quickstart_is_a_valid_experiment() -> None:
    experiment = load_experiment(QUICKSTART)
    assert experiment.devices.count == 8
    assert experiment.seed == 2
    assert experiment.radio.mobility.kind == "random_waypoint"


def test_settings_replace_and_add_keys_and_the_seed_comes_last() -> None:
    overrides = ["devices.count=3", "transport.stall_s=4", "name=other", "seed=5"]
    experiment = load_experiment(QUICKSTART, overrides, seed=9)
    assert (experiment.devices.count, experiment.transport.stall_s) == (3, 4.0)
    assert (experiment.name, experiment.seed) == ("other", 9)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("devices.colour=red", "unknown key 'devices.colour'; allowed: count, compute."),
        (
            "radio.mobility.colour=red",
            "unknown key 'radio.mobility.colour'; allowed: kind, speed_mps, pause_s.",
        ),
        (
            "method.upload.colour=red",
            "unknown key 'method.upload.colour'; allowed: kind, fraction, indices.",
        ),
        ("duration_s=long", "'duration_s' is 'long'; it must be a number."),
        ("duration_s=0", "'duration_s' is 0; it must be greater than 0."),
        ("duration_s=.nan", "'duration_s' is nan; it must be a finite number."),
        ("devices.count=8.5", "'devices.count' is 8.5; it must be a whole number."),
        ("devices.count=0", "'devices.count' is 0; it must be at least 1."),
        ("devices=8", "'devices' is 8; it must be a section of keys and values."),
        ("duration_s={a: 1}", "'duration_s' is {'a': 1}; it must be a number."),
        (
            "method.error_memory=maybe",
            "'method.error_memory' is 'maybe'; it must be true or false.",
        ),
        ("method.upload.fraction=2", "'method.upload.fraction' is 2; it must be at most 1."),
        (
            "radio.rate.bandwidth_hz=-5",
            "'radio.rate.bandwidth_hz' is -5; it must be greater than 0.",
        ),
        (
            "radio.rate={kind: fixed, rate_up_bps: -1, rate_down_bps: 1e+6}",
            "'radio.rate.rate_up_bps' is -1; it must be at least 64000.",
        ),
        (
            "radio.mobility.kind=walk",
            (
                "'radio.mobility.kind' is 'walk'; allowed: csv, gauss_markov, highway, manhattan, "
                "ns2, random_direction, random_waypoint, static, sumo_fcd."
            ),
        ),
        (
            "radio.mobility={kind: static, placement: {kind: nowhere}}",
            "'radio.mobility.placement.kind' is 'nowhere'; allowed: listed, ring, uniform.",
        ),
        (
            "method.name=magic",
            "'method.name' is 'magic'; allowed: afl, dma_fl, emq, fedasync, fedavg, fedbuff, lazy, mads, sp_fl.",
        ),
        (
            "radio={timeline: {kind: tape}}",
            "'radio.timeline.kind' is 'tape'; allowed: csv, mahimahi, replay.",
        ),
        (
            "radio={timeline: {kind: replay, path: x}, speed: 3}",
            (
                "unknown key 'radio.speed'; allowed: tick_s, time_scale, uplink_power_w, "
                "downlink_power_w, packet_loss_up, packet_loss_down, delay_up_s, delay_down_s, "
                "jitter_up_s, jitter_down_s, classes, window, backend, timeline."
            ),
        ),
        ("radio=fast", "'radio' is 'fast'; it must be a section of keys and values."),
        (
            "radio.jitter_up_s=0.01",
            (
                "'radio': a jitter of 0.01 s needs a delay of at least three times as much: "
                "delay_up_s is 0."
            ),
        ),
        (
            "radio.mobility=walk",
            "'radio.mobility' is 'walk'; it must be a section of keys and values.",
        ),
        (
            "radio.path_loss.kind=free",
            (
                "'radio.path_loss.kind' is 'free'; allowed: cost_hata_three_slope, free_space, "
                "log_distance, tr37885, tr38901_uma, tr38901_umi."
            ),
        ),
        (
            "task.name=dogs",
            (
                "'task.name' is 'dogs'; "
                "it must be 'digits', 'mnist', 'fashion_mnist', 'cifar10', 'svhn', "
                "'synthetic_tracks' or 'argoverse'."
            ),
        ),
        ("radio.area_m=[600]", "'radio.area_m[1]' is missing: [600] is too short a list."),
        (
            "radio.area_m=[1, 2, 3]",
            "'radio.area_m' is [1, 2, 3]; it must hold at most 2 values, not 3.",
        ),
        ("radio.area_m=600", "'radio.area_m' is 600; it must be a list."),
        ("radio.area_m=[600, tall]", "'radio.area_m[1]' is 'tall'; it must be a number."),
        ("radio.area_m=[600, -1]", "'radio.area_m[1]' is -1; it must be greater than 0."),
        (
            "partition={kind: classes_per_device, counts: all}",
            "'partition.counts' is 'all'; it must be 'varied' or a list.",
        ),
        (
            "name=a/b",
            (
                "'name' is 'a/b'; allowed: at most 64 letters, digits, '_', '.' and '-'; "
                "a letter or digit first."
            ),
        ),
        ("name=", "'name' is empty; it must be text."),
        ("task.data_dir=5", "'task.data_dir' is 5; it must be text."),
        (
            "task.name=synthetic_tracks",
            (
                "'task': synthetic_tracks consists of tracks, which a model of kind mlp cannot take; "
                "allowed are track_mlp, track_lstm."
            ),
        ),
        (
            "radio.base_station_m=[700, 1]",
            "'radio': the base station at (700, 1) stands outside the area of 600 m x 600 m.",
        ),
        (
            "radio.mobility.speed_mps=[30, 20]",
            "'radio.mobility.speed_mps': the smaller bound comes first, but 30 is greater than 20.",
        ),
        (
            f"radio.mobility={LISTED}",
            "the placement lists 2 positions but the experiment has 8 devices.",
        ),
        (
            "training.local_epochs=3",
            "'training': give either local_steps or local_epochs, not both and not neither.",
        ),
        (
            "validity.rate_ratio=[1.1, 1.2]",
            "'validity': rate_ratio is [1.1, 1.2]; 1 must lie inside, above 0.",
        ),
        (
            "method={name: fedavg, quorum: 9}",
            "method.quorum is 9, but there are only 8 devices: no round would ever end.",
        ),
    ],
)
def test_a_mistake_becomes_one_sentence_with_file_key_value_and_rule(
    override: str, sentence: str
) -> None:
    assert complaint(QUICKSTART, override) == f"{QUICKSTART}: {sentence}"


def test_an_unknown_key_at_the_top_is_answered_with_those_that_there_are() -> None:
    text = complaint(QUICKSTART, "static=1")
    assert text.startswith(f"{QUICKSTART}: unknown key 'static'; allowed: name, description, seed")


def test_a_seed_from_the_command_line_is_checked_like_one_in_the_file() -> None:
    assert complaint(QUICKSTART, seed=-1).endswith("'seed' is -1; it must be at least 0.")


@pytest.mark.parametrize("key", ["devices", "devices.count", "training.batch_size"])
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    path = without(key, tmp_path)
    assert complaint(path) == f"{path}: the key '{key}' is missing."


def test_a_missing_kind_is_answered_with_those_that_there_are(tmp_path: Path) -> None:
    path = without("radio.mobility.kind", tmp_path)
    assert complaint(path) == (
        f"{path}: the key 'radio.mobility.kind' is missing; allowed: csv, gauss_markov, highway, "
        "manhattan, ns2, random_direction, random_waypoint, static, sumo_fcd."
    )


def test_every_mistake_gets_a_line_of_its_own() -> None:
    text = complaint(QUICKSTART, "devices.count=0", "colour=1", "radio.tick_s=-1")
    assert len(text.splitlines()) == 3
    assert all(line.startswith(f"{QUICKSTART}: ") for line in text.splitlines())


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("devices.count", "--set devices.count: expected key.path=value"),
        ("=5", "--set =5: expected key.path=value"),
        ("devices..count=5", "--set devices..count=5: expected key.path=value"),
        ("name.first=5", "--set name.first: 'name' is a value, not a section"),
        ("name=[1", "--set name: '[1' is not a YAML value"),
        ("name=2024-13-45", "--set name: '2024-13-45' is not a YAML value"),
    ],
)
def test_a_setting_that_cannot_be_applied_is_explained(override: str, sentence: str) -> None:
    assert complaint(QUICKSTART, override) == sentence


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "must hold keys and values, not nothing: it is empty"),
        (b"- 1\n- 2\n", "must hold keys and values, not a list"),
        (b"hello", "must hold keys and values, not text"),
        (b"5", "must hold keys and values, not a single value"),
        (b"a: [1\nb: }", "is not YAML: line 2, column 2: expected ',' or ']', but got ':'"),
        (b"name: a\nname: b\n", "is not YAML: line 2, column 1: the key 'name' stands there twice"),
        (b"a: \x01", "is not YAML: character 4: special characters are not allowed"),
        (b"a: 2024-13-45", "is not YAML: month must be in 1..12"),
    ],
)
def test_a_file_that_holds_no_keys_and_values_is_refused(
    content: bytes, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_bytes(content)
    assert complaint(path) == f"{path} {sentence}"


def test_a_key_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(QUICKSTART.read_text() + "\n5: 6\n")
    assert complaint(path) == f"{path}: every key must be text, not 5."


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    missing, binary = tmp_path / "missing.yaml", tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    assert complaint(missing) == f"there is no experiment file {missing}"
    assert complaint(tmp_path) == f"cannot read {tmp_path}: Is a directory"
    assert complaint(binary) == f"cannot read {binary}: it is not UTF-8 text"
