"""How much memory this process has to itself."""

from pathlib import Path


def private_memory_mib() -> float:
    """Return the MiB of this process's pages that no other process shares (smaps_rollup)."""
    total_kib = 0
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Dirty:", "Private_Clean:")):
            total_kib += int(line.split()[1])
    return total_kib / 1024
