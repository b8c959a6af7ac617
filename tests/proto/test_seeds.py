import numpy as np

from fadelab_proto.seeds import Stream, generator


def draw(*keys: int, stream: Stream = Stream.DATA, seed: int = 7) -> int:
    return int(generator(seed, stream, *keys).integers(2**62))


def test_same_arguments_draw_the_same_numbers() -> None:
    assert draw(3, 4) == draw(3, 4)
    a, b = (generator(7, Stream.CHANNEL, 1).standard_normal(9) for _ in range(2))
    assert np.array_equal(a, b)


def test_every_difference_in_the_arguments_matters() -> None:
    draws = [
        draw(),
        draw(0),
        draw(0, 0),
        draw(1),
        draw(0, 1),
        draw(1, 0),
        draw(stream=Stream.MOBILITY),
        draw(seed=8),
    ]
    assert len(set(draws)) == len(draws)
