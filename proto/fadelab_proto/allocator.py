"""What the C library's allocator does with large blocks."""

import ctypes

# mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Have this process keep large blocks that it frees, instead of asking for them anew.

    Pages that are given back are zeroed and mapped again by the kernel: about a millisecond in every
    tick of a thousand devices and 64 sites, and most of the time that it takes to copy a model.
    Where the C library has no such setting, nothing changes.

    All threads allocate from one arena, since only the first keeps large blocks: the others are made
    of pieces of 64 MiB, which go back to the kernel as soon as they are empty.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_ARENA_MAX, 1)
