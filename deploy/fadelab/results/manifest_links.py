"""The manifest's facts about links, which are known only once there are links."""

import json
from pathlib import Path

from fadelab.results.links import links_result
from fadelab.results.record import RunRecord


def complete_manifest(run_dir: Path) -> None:
    """Write what carried the links, and their calibration, into ``manifest.json`` as ``links``.

    A run that ended before its links were made keeps its manifest. The file is replaced at once: a
    reader finds the old one or the new one.

    Raises:
        FadelabError: USAGE, if it is no run directory or is damaged.

    """
    record = RunRecord.load(run_dir)
    links = links_result(record)
    if links.backend is None:
        return
    manifest = {**record.manifest, "links": links.model_dump(mode="json")}
    written = run_dir / "manifest.json.new"
    written.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    written.replace(run_dir / "manifest.json")
