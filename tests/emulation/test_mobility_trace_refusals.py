"""Whatever is wrong with a trace is said in one sentence that names the file and the place."""

import os
import re
from pathlib import Path

import pytest
from scenes import make_scene

from fadelab_emulation.mobility.traces import base, ns2, sumo_fcd
from fadelab_emulation.mobility.traces.base import TraceConfig
from fadelab_emulation.mobility.traces.csv_file import CsvConfig
from fadelab_emulation.mobility.traces.ns2 import Ns2Config
from fadelab_emulation.mobility.traces.sumo_fcd import SumoFcdConfig

HEADER = "t_s,device,x_m,y_m\n"
A_NUMBER = "it must be a number from -1e+10 to 1e+10"


def fcd(*timesteps: str) -> str:
    return "<fcd-export>\n" + "\n".join(timesteps) + "\n</fcd-export>"


def step(time: str, *vehicles: str) -> str:
    return f'<timestep time="{time}">' + "".join(vehicles) + "</timestep>"


def vehicle(name: str, x: str = "1", y: str = "1") -> str:
    return f'<vehicle id="{name}" x="{x}" y="{y}"/>'


def node(number: int, x: str = "1", y: str = "1") -> str:
    return f"$node_({number}) set X_ {x}\n$node_({number}) set Y_ {y}\n"


def refusal(
    tmp_path: Path, config: type[TraceConfig], content: str | bytes, **settings: object
) -> str:
    """Return what is said of a file, in which ``trace`` stands for its path."""
    path = tmp_path / "trace"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    model = config.model_validate({"path": path, **settings})
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        model.build(make_scene(1, area_m=(600.0, 400.0)))
    assert type(caught.value) is ValueError
    assert caught.value.__cause__ is None
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence.replace(str(path), "trace")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "trace: the trace is empty"),
        (HEADER, "trace: the trace is empty"),
        (
            "t_s,device,x_m\n0,a,1\n",
            (
                "trace, line 1: the header must name the column y_m once, but it is missing: "
                "'t_s,device,x_m'"
            ),
        ),
        (
            "t_s,device,x_m,y_m,x_m\n",
            (
                "trace, line 1: the header must name the column x_m once, but it stands there more "
                "than once: 't_s,device,x_m,y_m,x_m'"
            ),
        ),
        (HEADER + "0,a,1\n", "trace, line 2: it has 3 fields, but the header has 4"),
        (HEADER + "0,a,1,1\n1,a,1,x\n", f"trace, line 3: y_m is 'x'; {A_NUMBER}"),
        (HEADER + "0,a,,1\n", f"trace, line 2: x_m is ''; {A_NUMBER}"),
        (HEADER + "0,a,nan,1\n", f"trace, line 2: x_m is 'nan'; {A_NUMBER}"),
        (HEADER + "0,a,1,-inf\n", f"trace, line 2: y_m is '-inf'; {A_NUMBER}"),
        (HEADER + "1e300,a,1,1\n", f"trace, line 2: t_s is '1e300'; {A_NUMBER}"),
        (HEADER + "1_0,a,1,1\n", f"trace, line 2: t_s is '1_0'; {A_NUMBER}"),
        (HEADER + "0,,1,1\n", "trace, line 2: the device has no name"),
        (HEADER + '0,"a,1,1\n', "trace, line 2: it is not CSV (unexpected end of data)"),
        (
            HEADER + "0,a,1,1\n1700000000.25,a,1,1\n1700000000.25,a,2,2\n",
            "trace, line 4: device 'a' has a second place at 1700000000.25 s",
        ),
        (
            HEADER + "5,a,1,1\n1,b,1,1\n4.5,a,1,1\n",
            "trace, line 4: the time of device 'a' goes back from 5 s to 4.5 s",
        ),
        (b"\xff\xfe\x00", "trace, line 1: it is not UTF-8 text"),
        (HEADER + "0,a" * 10_000, "trace, line 2: it is longer than 10000 bytes"),
        (
            HEADER + "0,a,600,400\n2.5,a,600.01,1\n",
            (
                "trace: vehicle 'a' (device 0) is at (600.01, 1) at 2.5 s, outside the area of "
                "600 m x 400 m; area_m and offset_m can be changed"
            ),
        ),
        (
            HEADER + "7,a,0,0\n7.1,a,0,200\n",
            "trace: vehicle 'a' (device 0) moves faster than 1000 m/s from 7 s to 7.1 s",
        ),
    ],
)
def test_a_malformed_csv_is_refused(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    assert refusal(tmp_path, CsvConfig, content) == sentence


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "trace, line 1: it is not well-formed XML (no element found)"),
        ("<fcd-export/>", "trace: the trace is empty"),
        (fcd(step("0")), "trace: the trace is empty"),
        ("t_s,device\n", "trace, line 1: it is not well-formed XML (syntax error)"),
        (
            fcd(step("0", vehicle("a"))).removesuffix("</fcd-export>"),
            "trace, line 3: it is not well-formed XML (no element found)",
        ),
        (
            fcd('<timestep time="0"><vehicle></timestep>'),
            "trace, line 2: a vehicle at 0 s has no id",
        ),
        (
            fcd(step("0", vehicle("a")[:-2] + "></vehicles>")),
            "trace, line 2: it is not well-formed XML (mismatched tag)",
        ),
        (b"<fcd-export>\xff</fcd-export>", "trace, line 1: it is not well-formed XML"),
        (
            "<routes>" + step("0", vehicle("a")) + "</routes>",
            (
                "trace, line 1: it begins with the tag 'routes'; floating-car data begins with "
                "'fcd-export'"
            ),
        ),
        (fcd("<timestep/>"), "trace, line 2: the timestep has no time"),
        (fcd(step("soon")), f"trace, line 2: the time is 'soon'; {A_NUMBER}"),
        (
            fcd(step("1", vehicle("a")), step("0.5", vehicle("a"))),
            "trace, line 3: the time goes back from 1 s to 0.5 s",
        ),
        (
            fcd(step("1", vehicle("a")), step("1.00", vehicle("a"))),
            "trace, line 3: there is a second timestep at 1 s",
        ),
        (
            fcd(step("1", vehicle("a"), vehicle("a", x="2"))),
            "trace, line 2: vehicle 'a' has a second place at 1 s",
        ),
        (
            fcd(step("1", '<vehicle id="a" x="1"/>')),
            "trace, line 2: vehicle 'a' at 1 s: it has no y",
        ),
        (
            fcd(step("1", vehicle("a", x="NaN"))),
            f"trace, line 2: vehicle 'a' at 1 s: x is 'NaN'; {A_NUMBER}",
        ),
        (
            fcd(step("1", vehicle("a", y="1" * 100))),
            f"trace, line 2: vehicle 'a' at 1 s: y is '{'1' * 37}...'; {A_NUMBER}",
        ),
        (fcd(vehicle("a")), "trace, line 2: a vehicle must stand directly in a timestep"),
        (
            fcd(step("0", "<person>" + vehicle("a") + "</person>")),
            "trace, line 2: a vehicle must stand directly in a timestep",
        ),
        (
            fcd('<timestep time="0"><timestep time="1"/></timestep>'),
            "trace, line 2: a timestep must stand directly in fcd-export",
        ),
        (fcd("<a>" * 20), "trace, line 2: tags are nested more than 16 deep"),
        (
            '<!DOCTYPE f [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + fcd("&b;"),
            "trace, line 1: it has a document type declaration, which is not allowed",
        ),
        (
            '<!DOCTYPE f SYSTEM "file:///etc/passwd">' + fcd(step("0", vehicle("a"))),
            "trace, line 1: it has a document type declaration, which is not allowed",
        ),
        (
            fcd(step("12.5", vehicle("a", x="-0.5"))),
            (
                "trace: vehicle 'a' (device 0) is at (-0.5, 1) at 12.5 s, outside the area of "
                "600 m x 400 m; area_m and offset_m can be changed"
            ),
        ),
    ],
)
def test_malformed_floating_car_data_is_refused(
    tmp_path: Path, content: str | bytes, sentence: str
) -> None:
    assert refusal(tmp_path, SumoFcdConfig, content).startswith(sentence)


ALLOWED = (
    "is not understood; allowed are '$node_(0) set X_ 1.0' and "
    "'$ns_ at 2.0 \"$node_(0) setdest 3.0 4.0 5.0\"'"
)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("# nothing but a comment\n", "trace: the trace is empty"),
        ("set opt(nn) 20\n", f"trace, line 1: 'set opt(nn) 20' {ALLOWED}"),
        (
            node(0) + '$ns_ at 1.0 "$node_(0) setdest 3.0 4.0"\n',
            f"trace, line 3: '$ns_ at 1.0 \"$node_(0) setdest 3.0 4.0\"' {ALLOWED}",
        ),
        (node(0, x="east"), f"trace, line 1: X_ of node 0 is 'east'; {A_NUMBER}"),
        (node(0) + node(0), "trace, line 3: X_ of node 0 is set a second time"),
        (
            "$node_(7) set X_ 1.0\n",
            "trace: node 7 is never given a place with 'set Y_'",
        ),
        (
            node(0) + '$ns_ at 1.0 "$node_(1) setdest 3.0 4.0 5.0"\n',
            "trace: node 1 is never given a place with 'set X_'",
        ),
        (
            node(0) + '$ns_ at later "$node_(0) setdest 3.0 4.0 5.0"\n',
            f"trace, line 3: the time for node 0 is 'later'; {A_NUMBER}",
        ),
        (
            node(0) + '$ns_ at 1.0 "$node_(0) setdest 3.0 inf 5.0"\n',
            f"trace, line 3: y for node 0 is 'inf'; {A_NUMBER}",
        ),
        (
            node(0) + '$ns_ at -1.0 "$node_(0) setdest 3.0 4.0 5.0"\n',
            "trace, line 3: the time for node 0 is -1 s; it must be at least 0",
        ),
        (
            node(0) + '$ns_ at 1.0 "$node_(0) setdest 3.0 4.0 -5.0"\n',
            "trace, line 3: the speed for node 0 is -5 m/s; it must be 0 or at least 1e-06 m/s",
        ),
        (
            node(0) + '$ns_ at 1.0 "$node_(0) setdest 3.0 4.0 1e-300"\n',
            "trace, line 3: the speed for node 0 is 1e-300 m/s; it must be 0 or at least 1e-06 m/s",
        ),
        (
            node(0) + '$ns_ at 2.0 "$node_(0) setdest 3 4 5"\n$ns_ at 1 "$node_(0) setdest 3 4 5"',
            "trace, line 4: the time of node 0 goes back from 2 s to 1 s",
        ),
        (
            node(0) + '$ns_ at 2.0 "$node_(0) setdest 3 4 5"\n$ns_ at 2 "$node_(0) setdest 3 4 5"',
            "trace, line 4: node 0 gets a second order at 2 s",
        ),
        (
            node(0) + '$ns_ at 0.0 "$node_(0) setdest 701.0 1.0 10.0"\n',
            (
                "trace: vehicle '0' (device 0) is at (701, 1) at 70 s, outside the area of "
                "600 m x 400 m; area_m and offset_m can be changed"
            ),
        ),
        (
            node(0) + '$ns_ at 0.0 "$node_(0) setdest 500.0 1.0 5000.0"\n',
            "trace: vehicle '0' (device 0) moves faster than 1000 m/s from 0 s to 0.0998 s",
        ),
    ],
)
def test_a_malformed_ns2_file_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    assert refusal(tmp_path, Ns2Config, content) == sentence


@pytest.mark.parametrize("config", [CsvConfig, SumoFcdConfig, Ns2Config])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, config: type[TraceConfig]) -> None:
    scene = make_scene(1)
    missing = tmp_path / "missing"
    with pytest.raises(ValueError, match=f"^there is no trace file {re.escape(str(missing))}$"):
        config(path=missing).build(scene)
    with pytest.raises(ValueError, match=f"^the trace {re.escape(str(tmp_path))} is not a file$"):
        config(path=tmp_path).build(scene)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match=r"is not a file$"):
        config(path=pipe).build(scene)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(ValueError, match=str(loop)) as caught:
        config(path=loop).build(scene)
    assert type(caught.value) is ValueError


def test_a_trace_of_too_few_vehicles_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text(HEADER + "0,a,1,1\n9,b,1,1\n")
    with pytest.raises(
        ValueError, match=r"few.csv: the trace has 2 vehicles, but the experiment has 3 devices$"
    ):
        CsvConfig(path=path).build(make_scene(3))
    with pytest.raises(ValueError, match=r"has 1 vehicles from 4.5 s on, but the experiment has 2"):
        CsvConfig(path=path, start_s=4.5).build(make_scene(2))


def test_a_loop_of_no_length_is_refused(tmp_path: Path) -> None:
    sentence = refusal(tmp_path, CsvConfig, HEADER + "3,a,1,1\n", loop=True)
    assert sentence == "trace: a trace of a single instant cannot be looped"


def test_a_fault_is_found_behind_all_vehicles_that_are_used(tmp_path: Path) -> None:
    content = HEADER + "0,a,1,1\n0,b,1,1\n1,b,x,1\n"
    assert refusal(tmp_path, CsvConfig, content) == f"trace, line 4: x_m is 'x'; {A_NUMBER}"


def test_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_MOST_SIGHTINGS", 2)
    rows = "".join(f"{t},a,1,1\n" for t in range(3))
    assert "more than 2 places of the devices" in refusal(tmp_path, CsvConfig, HEADER + rows)
    monkeypatch.setattr(ns2, "_MOST_ORDERS", 1)
    orders = "".join(f'$ns_ at {t} "$node_(0) setdest 3 4 5"\n' for t in range(2))
    assert refusal(tmp_path, Ns2Config, node(0) + orders) == (
        "trace, line 4: more than 1 orders are not supported"
    )
    long_tag = step("0", vehicle("a" * (2 * sumo_fcd._LONGEST_TAG_BYTES)))
    assert refusal(tmp_path, SumoFcdConfig, fcd(long_tag)) == (
        "trace, line 2: a tag is longer than 1048576 bytes"
    )
