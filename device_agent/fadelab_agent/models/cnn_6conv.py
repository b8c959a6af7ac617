"""The CNN of the mobility papers for CIFAR-10: six convolutions, one dense layer.

FedPGT (Yan, Chen, Sun, Zhou, Niu), whose authors also wrote MADS (arXiv 2506.07328), names the
layers without their widths. Normalisation is over groups of channels (Wu and He, ECCV 2018): batch
normalisation keeps running averages, which do not travel with the parameters, and fails on devices
that hold few classes (Hsieh et al., "The non-IID data quagmire", ICML 2020).
"""

from torch import nn

_GROUPS = 8


def cnn_6conv(shape: tuple[int, ...], classes: int, *, channels: int) -> nn.Module:
    """Return three times two 3x3 convolutions and pooling, then one dense layer.

    With 32 channels it has 308 394 parameters on 3x32x32.

    Args:
        shape: channels, height and width of a picture.
        classes: scores that it gives.
        channels: of the first two convolutions, a multiple of 8; the next pairs have twice and
            four times as many.

    Raises:
        ValueError: if the pictures are smaller than 8x8.

    """
    wide, height, width = shape
    if min(height, width) < 8:
        raise ValueError(f"cnn_6conv needs pictures of at least 8x8 pixels, not {height}x{width}")
    layers: list[nn.Module] = []
    for block in (channels, 2 * channels, 4 * channels):
        for before in (wide, block):
            layers += [
                nn.Conv2d(before, block, kernel_size=3, padding=1),
                nn.GroupNorm(_GROUPS, block),
                nn.ReLU(),
            ]
        # Averages at the end: thousands of maxima would make the dense layer's inputs so large
        # that steps of the papers' size diverge.
        layers.append(nn.AvgPool2d(2) if block == 4 * channels else nn.MaxPool2d(2))
        wide = block
    pooled = (height // 8) * (width // 8)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(wide * pooled, classes))
