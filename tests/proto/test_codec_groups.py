"""Groups of coordinates that share a scale, and their description in packets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fadelab_proto.codecs.base import CodecError
from fadelab_proto.codecs.groups import Groups, read_groups, write_groups


def test_a_vector_is_one_group_or_several() -> None:
    assert Groups().starts(10).tolist() == [0]
    assert Groups(block=4).starts(10).tolist() == [0, 4, 8]
    assert Groups(layers=(3, 2, 5)).starts(10).tolist() == [0, 3, 5]


@given(
    sizes=st.one_of(
        st.lists(st.integers(1, 1000), min_size=1, max_size=50),
        st.builds(
            lambda n, size, end: [size] * n + [end],
            st.integers(0, 50),
            st.integers(1, 9),
            st.integers(1, 9),
        ),
    ),
    first=st.integers(1, 1000),
)
def test_what_is_written_is_read(sizes: list[int], first: int) -> None:
    sizes = [first, *sizes]
    starts = np.concatenate(([0], np.cumsum(sizes)))[:-1]
    description = write_groups(starts)
    scales = bytes(8 * len(starts))
    found, rest = read_groups(memoryview(description + scales), sum(sizes), scale_bytes=8)
    assert np.array_equal(found, starts)
    assert bytes(rest) == scales


@given(st.binary(max_size=60), st.integers(1, 2**32 - 1))
def test_any_bytes_give_groups_or_a_clear_refusal(payload: bytes, count: int) -> None:
    try:
        starts, rest = read_groups(memoryview(payload), count, scale_bytes=4)
    except CodecError:
        return
    assert starts[0] == 0
    assert starts[-1] < count
    assert (np.diff(starts) > 0).all()
    assert len(starts) <= len(payload) // 4
    assert len(rest) < len(payload)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"block": 0}, "block of 0"),
        ({"layers": ()}, "at least one"),
        ({"layers": (3, 0)}, "at least one"),
        ({"block": 2, "layers": (2,)}, "not by both"),
    ],
)
def test_impossible_groups_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(CodecError, match=words):
        Groups(**wrong)  # type: ignore[arg-type]


def test_layers_must_add_up() -> None:
    with pytest.raises(CodecError, match="5 coordinates together, the vector has 6"):
        Groups(layers=(2, 3)).starts(6)
