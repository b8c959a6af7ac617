"""Print the requirements of one image, one a line, as pyproject.toml beside this file has them."""

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = {
    "server": ("command", "server"),
    "agent": ("agent", "command"),
    "emulator": ("command", "containers", "emulation"),
}


def requirements(project: dict[str, object], extras: tuple[str, ...]) -> set[str]:
    """Return what the project needs with these extras; extras that name extras are resolved."""
    found = set(project["dependencies"])
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            own = re.fullmatch(r"fadelab\[(.+)\]", requirement)
            found |= requirements(project, tuple(own[1].split(","))) if own else {requirement}
    return found


def main() -> None:
    """Print what the target named on the command line needs; ``build``: what builds the code."""
    tree = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text())
    if sys.argv[1] == "build":
        needed = set(tree["build-system"]["requires"])
    else:
        needed = requirements(tree["project"], EXTRAS[sys.argv[1]])
    sys.stdout.writelines(f"{line}\n" for line in sorted(needed))


if __name__ == "__main__":
    main()
