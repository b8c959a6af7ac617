"""A real sweep: interrupted, resumed, compared."""

import json
import os
import signal
import subprocess
from pathlib import Path

import yaml
from tests.system.commands import ON_A_BUSY_MACHINE, QUICKSTART, ROOT, fadelab, wait_for_line
from tests.system.machine_state import descendants, wait_for_end
from tests.system.test_timelines_in_runs import ticks_of


def start_sweep(file: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        fadelab("sweep", str(file), "--out", str(out), "--jobs", "1", "--resume"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
    )


def wait_for_log(log: Path, text: str) -> None:
    """Wait until a file that grows holds ``text``."""
    command = ["tail", "-n", "+1", "-F", str(log)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as tail:
        wait_for_line(tail, text)
        tail.kill()


def check_paired(one: Path, two: Path) -> None:
    """Hold two runs of one seed to the same initial model and the same links."""
    first, second = (run / "checkpoints" / "digits-initial.npy" for run in (one, two))
    assert first.read_bytes() == second.read_bytes()
    short, long = sorted((ticks_of(one), ticks_of(two)), key=len)
    assert len(short) > 1000
    assert long.startswith(short)


def states(out: Path) -> dict[str, tuple[str, int]]:
    record = json.loads((out / "sweep.json").read_text())
    return {run["name"]: (run["state"], run["attempts"]) for run in record["runs"]}


def test_a_sweep_goes_on_where_it_was_interrupted_and_is_compared(tmp_path: Path) -> None:
    file, out = tmp_path / "sweep.yaml", tmp_path / "out"
    settings = dict(setting.split("=") for setting in ON_A_BUSY_MACHINE)
    tree = {
        "experiment": str(QUICKSTART),
        "settings": {key: float(value) for key, value in settings.items()}
        | {"duration_s": 3, "devices.count": 2, "training.local_steps": 5},
        "variants": {
            "dense": {"method.upload": {"kind": "dense"}},
            "tenth": {"method.upload": {"kind": "topk", "fraction": 0.1}},
        },
        "seeds": 1,
        "attempts": 3,
    }
    file.write_text(yaml.safe_dump(tree))

    first = start_sweep(file, out)
    wait_for_line(first, "1 to go")
    wait_for_log(out / "logs" / "tenth_seed=1.txt", "the run has begun")
    kept = (out / "runs" / "dense_seed=1" / "summary.json").stat()
    watched = [os.pidfd_open(pid) for pid in descendants(first.pid)]
    assert len(watched) > 5
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=120)
    assert first.returncode == 130, said
    assert "Traceback" not in said
    assert states(out) == {"dense_seed=1": ("valid", 1), "tenth_seed=1": ("interrupted", 0)}
    for descriptor in watched:
        wait_for_end(descriptor)

    second = start_sweep(file, out)
    said, _ = second.communicate(timeout=240)
    assert second.returncode == 0, said
    assert "1 need no run any more; 1 to run" in said
    assert states(out)["dense_seed=1"] == ("valid", 1)
    assert states(out)["tenth_seed=1"][0] == "valid"
    assert (out / "runs" / "dense_seed=1" / "summary.json").stat() == kept

    check_paired(*(out / "runs" / f"{variant}_seed=1" for variant in ("dense", "tenth")))

    ended = subprocess.run(
        fadelab("compare", str(out), "--json"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
    )
    assert ended.returncode == 0, ended.stderr
    comparison = json.loads(ended.stdout)
    dense, tenth = comparison["groups"]
    assert comparison["remarks"] == []
    assert tenth["results"]["final"]["difference"]["seeds"] == [1]
    up = [group["results"]["wire_up"]["mean"]["mean"] for group in (dense, tenth)]
    uploads = [group["results"]["uploads"]["mean"]["mean"] for group in (dense, tenth)]
    # An update of a tenth of the entries is far smaller than a whole one.
    assert up[1] / max(1, uploads[1]) < 0.5 * up[0] / max(1, uploads[0])
    assert "COMPLETE" in (out / "compare.html").read_text()
