"""What modules of Fadelab import, read from their source: at once, and altogether."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

OWN = ("fadelab", "fadelab_agent", "fadelab_emulation", "fadelab_proto", "fadelab_server")


def packages(module: str, *, deferred: bool) -> set[str]:
    """Return the top-level packages of others that importing a module imports.

    Args:
        module: one of Fadelab's.
        deferred: whether imports inside functions count.

    """
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        top = name.partition(".")[0]
        if top not in OWN:
            found.add(top)
        elif (path := _source(name)) is not None:
            waiting += name.rpartition(".")[:1] if "." in name else []
            waiting += [one for one, late in _imports(path) if deferred or not late]
    return found - sys.stdlib_module_names


@cache
def _source(module: str) -> Path | None:
    """Return a module's file; None for what is a name in a module."""
    top, *rest = module.split(".")
    spec = find_spec(top)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0], *rest)
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file
    return None


@cache
def _imports(path: Path) -> tuple[tuple[str, bool], ...]:
    """Return every import of a file, and whether it waits inside a function."""
    return tuple(_walk(ast.parse(path.read_text(encoding="utf-8")), late=False))


def _walk(node: ast.AST, *, late: bool) -> Iterator[tuple[str, bool]]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from ((alias.name, late) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.module is not None
        yield node.module, late
        # The names may be modules themselves.
        yield from (
            (f"{node.module}.{alias.name}", late)
            for alias in node.names
            if node.module.partition(".")[0] in OWN
        )
    inside = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, late=inside)
