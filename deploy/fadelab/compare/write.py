"""Write a comparison's files."""

from collections.abc import Sequence
from pathlib import Path

from fadelab.compare.found import FoundRun
from fadelab.compare.markdown import write_markdown
from fadelab.compare.schema import Comparison


def write_comparison(folder: Path, comparison: Comparison, runs: Sequence[FoundRun]) -> None:
    """Write ``compare.json``, ``compare.md`` and ``compare.html``; raises ``OSError``."""
    # matplotlib takes half a second to import; only now is it needed.
    from fadelab.compare.page import build_comparison  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compare.json").write_text(comparison.model_dump_json(indent=2) + "\n")
    (folder / "compare.md").write_text(write_markdown(comparison), encoding="utf-8")
    page = build_comparison(comparison, runs)
    (folder / "compare.html").write_text(page, encoding="utf-8")
