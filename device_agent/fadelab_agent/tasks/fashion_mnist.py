"""``fashion_mnist``: 60 000 + 10 000 pictures of clothes, 28x28 pixels (Xiao et al., 2017)."""

from pathlib import Path

from fadelab_agent.tasks.idx_files import load_idx_task
from fadelab_agent.tasks.pictures import PictureData


def load_fashion_mnist(data_dir: Path) -> PictureData:
    """Load the idx files in ``data_dir/FashionMNIST/raw``.

    Raises:
        DataSetError: see :func:`fadelab_agent.tasks.idx_files.load_idx_task`.

    """
    folder = data_dir / "FashionMNIST" / "raw"
    return load_idx_task("fashion_mnist", folder, "torchvision.datasets.FashionMNIST")
