"""What compiles kernels with numba, and the types of what they take.

Numbers without sign are cast wherever they meet, since numba widens them otherwise, and loops run
from 0 over whole arrays, which is what the compiler turns into vector instructions.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit, types
from numpy.typing import NDArray

_F = TypeVar("_F", bound=Callable[..., object])


def read(kind: Any) -> Any:
    """Return the type of an array that is only read."""
    return types.Array(kind, 1, "C", readonly=True)


def anywhere(kind: Any) -> Any:
    """Return the type of an array that is only read and may begin at any byte."""
    return types.Array(kind, 1, "C", readonly=True, aligned=False)


def written(kind: Any) -> Any:
    """Return the type of an array that is written."""
    return types.Array(kind, 1, "C")


def compiled(*signatures: Any) -> Callable[[_F], _F]:
    """Compile for these types now, not at the first call: what is forked then has it already."""

    def compile_function(function: _F) -> _F:
        try:
            return cast("_F", njit(list(signatures), nogil=True, cache=True)(function))
        except RuntimeError:  # no folder for the cache can be written
            return cast("_F", njit(list(signatures), nogil=True)(function))

    return compile_function


def ready(*arrays: NDArray[Any]) -> bool:
    """Return whether arrays lie in memory as kernels expect; packets may begin at any byte."""
    return all(array.flags.c_contiguous and array.flags.aligned for array in arrays)
