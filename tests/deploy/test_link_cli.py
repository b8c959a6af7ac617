"""The verbs of `fadelab link` as a user meets them; what they do is tested with whole processes."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fadelab.cli.app import app
from fadelab.cli.link_options import number, outage_s, rate_bps
from fadelab.exit_codes import FadelabError
from fadelab.link.oneshot import Cast
from fadelab.link.programs import shell_code

VERBS = ["run", "create", "drive", "delete", "list", "export", "calibrate"]
RATES = ["--rate-up", "5e6", "--rate-down", "5e6"]


def call(*arguments: str) -> tuple[int, str]:
    """Return the exit code and everything that was said, as main() would end."""
    result = CliRunner().invoke(app, ["link", *arguments])
    if isinstance(result.exception, FadelabError):
        return int(result.exception.code), str(result.exception)
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    code, said = call(verb, "--help")
    assert code == 0
    assert f"Example: fadelab link {verb}" in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5e6", 5e6),
        ("64000", 64000),
        ("5Mbit/s", 5e6),
        ("0.5 Gbit/s", 5e8),
        ("70kbit/s", 7e4),
        ("9bit/s", 9),
    ],
)
def test_rates_are_bits_per_second_or_bear_a_unit_of_bits(text: str, expected: float) -> None:
    assert rate_bps(text) == expected


@pytest.mark.parametrize("text", ["5M", "5Mbps", "5MB/s", "5 mbit/s", "5Mib/s", "fast", "", "nan"])
def test_rates_whose_unit_is_in_doubt_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="bit/s, kbit/s, Mbit/s, Gbit/s"):
        rate_bps(text)


@pytest.mark.parametrize("text", ["nan", "inf", "1s", ""])
def test_numbers_are_finite(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a number"):
        number(text)


def test_outages_have_a_start_and_an_end() -> None:
    assert outage_s("3:5.5") == (3.0, 5.5)
    with pytest.raises(typer.BadParameter, match="START:END"):
        outage_s("3-5")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", *RATES], "Missing argument"),
        (["run", *RATES, "--", "no-such-program-xyz"], "there is no program 'no-such-program-xyz'"),
        (["run", *RATES, "--server", "x 'y", "--", "true"], "No closing quotation"),
        (["run", *RATES, "--server", "", "--", "true"], "a program to run is missing"),
        (["run", *RATES, "--server-port", "80", "--", "true"], "needs a server"),
        (["run", *RATES, "--window", "shut", "--", "true"], "'shut'"),
        (["drive", "lab", *RATES, "--duration", "-1"], "above 0 s, not -1"),
        (["delete"], "either a name or --all"),
        (["delete", "lab", "--all"], "either a name or --all"),
    ],
)
def test_bad_command_lines_are_refused_in_one_sentence(arguments: list[str], words: str) -> None:
    code, said = call(*arguments)
    assert code == 2
    assert words in said


def test_a_recording_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    code, said = call("run", *RATES, "--record", str(tmp_path), "--backend", "dry", "--", "true")
    assert code == 2
    assert "never overwritten" in said
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_the_back_end_cannot_do_is_refused_before_anything_begins(tmp_path: Path) -> None:
    folder = tmp_path / "record"
    options = ["--delay-up", "0.1", "--backend", "lite", "--record", str(folder)]
    code, said = call("run", *RATES, *options, "--", "touch", str(tmp_path / "begun"))
    assert code == 4
    assert "'lite' cannot do delay" in said
    assert list(tmp_path.iterdir()) == []


def test_exit_codes_are_shown_as_shells_do() -> None:
    assert [shell_code(code) for code in (0, 7, -2, -9)] == [0, 7, 130, 137]


def test_a_server_is_looked_for_as_well() -> None:
    with pytest.raises(FadelabError, match="no program 'no-such-server'"):
        Cast(["true"], server=["no-such-server"]).check()
