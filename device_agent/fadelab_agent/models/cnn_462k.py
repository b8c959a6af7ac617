"""The small CNN of the mixed-resolution papers (arXiv 2412.10878 and 2412.20785)."""

from torch import nn


def cnn_462k(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return conv 3x3x32 - ReLU - pool - dense 64 - dense; 462 410 parameters on 3x32x32.

    Raises:
        ValueError: if the pictures are smaller than 4x4.

    """
    channels, height, width = shape
    if min(height, width) < 4:
        raise ValueError(f"cnn_462k needs pictures of at least 4x4 pixels, not {height}x{width}")
    pooled = ((height - 2) // 2) * ((width - 2) // 2)
    return nn.Sequential(
        nn.Conv2d(channels, 32, kernel_size=3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * pooled, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )
