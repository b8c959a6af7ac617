from pathlib import Path
from typing import Any

import pytest
import yaml
from emulate_bench import steady

from fadelab.emulate.choice import choose_variant
from fadelab.emulate.config import load_emulation
from fadelab.exit_codes import FadelabError

STAR: dict[str, Any] = {
    "radio": steady(1e6),
    "record": "out",
    "server": {"container": "server"},
    "devices": [{"container": "agent-0"}, {"netns": "dev1", "interface": "fl3"}],
}
ATTACHED: dict[str, Any] = {
    "radio": steady(1e6),
    "record": "out",
    "devices": [{"attach": "eth0", "container": "agent-0"}, {"attach": "eth1"}],
}


def loaded(tmp_path: Path, content: dict[str, Any]) -> str:
    """Return what is wrong with a file, or nothing."""
    path = tmp_path / "emulation.yaml"
    path.write_text(yaml.safe_dump(content))
    try:
        load_emulation(path)
    except FadelabError as error:
        return f"{error.code.name}: {error}"
    return ""


@pytest.mark.parametrize("text", ["", "radio: [", "radio: {}\nradio: {}"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "emulation.yaml"
    path.write_text(text)
    with pytest.raises(FadelabError, match=r"emulation\.yaml"):
        load_emulation(path)


def test_both_kinds_of_files_are_read(tmp_path: Path) -> None:
    assert loaded(tmp_path, STAR) == ""
    assert loaded(tmp_path, ATTACHED) == ""
    star = load_emulation(tmp_path / "emulation.yaml")
    assert star.attaches
    path = tmp_path / "emulation.yaml"
    path.write_text(yaml.safe_dump(STAR))
    assert [d.new_interface for d in load_emulation(path).devices] == ["fl0", "fl3"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (STAR | {"devices": [*STAR["devices"], ATTACHED["devices"][0]]}, "must be of one kind"),
        ({k: v for k, v in STAR.items() if k != "server"}, "new links need a server"),
        (STAR | {"server": {}}, "new links need a server"),
        (ATTACHED | {"server": {"netns": "a"}}, "leave it out"),
        (STAR | {"start": "on_begin"}, "needs a radio_socket"),
        (STAR | {"devices": [{}]}, "a new link needs a place"),
        (STAR | {"devices": [{"pid": 3, "netns": "a"}]}, "netns and pid name one place twice"),
        (STAR | {"devices": [{"attach": "eth0", "interface": "fl0"}]}, "give one of them"),
        (STAR | {"devices": [{"pid": 3, "interface": "a b"}]}, "A letter, a digit or '_'"),
        (STAR | {"devices": [{"netns": "../mnt"}]}, "A name without '/'"),
        (STAR | {"devices": []}, "at least 1 values"),
        (STAR | {"network": "10.777"}, "such as 10.77"),
        (STAR | {"network": "10.77.0"}, "such as 10.77"),
        (STAR | {"server": {"contaner": "x"}}, "unknown key 'server.contaner'"),
        ({k: v for k, v in STAR.items() if k != "record"}, "the key 'record' is missing"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    tmp_path: Path, content: dict[str, Any], sentence: str
) -> None:
    said = loaded(tmp_path, content)
    assert said.startswith("USAGE: ")
    assert sentence in said
    assert said.count("\n") == 0


@pytest.mark.parametrize(
    ("content", "radio", "sentence"),
    [
        (ATTACHED, {"packet_loss_up": 0.1}, "packet loss cannot be had at an attached interface"),
        (ATTACHED, {"packet_loss_down": 0.1}, "let Fadelab make the links"),
        (ATTACHED, {"delay_down_s": 0.01}, "delay cannot be had at an attached interface"),
        (ATTACHED, {"window": "reject"}, "use hold or drop"),
        (ATTACHED, {"window": "down"}, "use hold or drop"),
        (ATTACHED, {"backend": "relay"}, "ask for auto, lite or netem"),
        (STAR, {"window": "reject"}, "use hold, drop or down"),
        (STAR, {"backend": "dry"}, "ask for auto, lite or netem"),
        (STAR, {"backend": "relay"}, "ask for auto, lite or netem"),
        (STAR, {"backend": "lite", "delay_up_s": 0.1}, "cannot do delay"),
    ],
)
def test_what_links_cannot_do_exactly_is_refused_with_what_to_do_instead(
    tmp_path: Path, content: dict[str, Any], radio: dict[str, object], sentence: str
) -> None:
    path = tmp_path / "emulation.yaml"
    path.write_text(yaml.safe_dump(content | {"radio": steady(1e6, **radio)}))
    with pytest.raises(FadelabError, match=sentence):
        choose_variant(load_emulation(path))
