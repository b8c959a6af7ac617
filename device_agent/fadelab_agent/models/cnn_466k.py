"""The CNN that DMA-FL (arXiv 2305.13503) trains on SVHN."""

from torch import nn


def cnn_466k(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return two 5x5 convolutions with pooling and two dense layers.

    Conv 5x5x32 - ReLU - pool - conv 5x5x64 - ReLU - pool - dense 256 - ReLU - dense: 466 122
    parameters on 3x32x32.

    Raises:
        ValueError: if the pictures are smaller than 16x16.

    """
    channels, height, width = shape
    if min(height, width) < 16:
        raise ValueError(f"cnn_466k needs pictures of at least 16x16 pixels, not {height}x{width}")
    pooled = _after_two_blocks(height) * _after_two_blocks(width)
    return nn.Sequential(
        nn.Conv2d(channels, 32, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * pooled, 256),
        nn.ReLU(),
        nn.Linear(256, classes),
    )


def _after_two_blocks(length: int) -> int:
    """Return the side of a picture after two unpadded 5x5 convolutions, each pooled by two."""
    return ((length - 4) // 2 - 4) // 2
