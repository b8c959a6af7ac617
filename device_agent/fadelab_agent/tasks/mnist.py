"""``mnist``: 60 000 + 10 000 handwritten digits of 28x28 pixels (LeCun et al., 1998)."""

from pathlib import Path

from fadelab_agent.tasks.idx_files import load_idx_task
from fadelab_agent.tasks.pictures import PictureData


def load_mnist(data_dir: Path) -> PictureData:
    """Load the idx files in ``data_dir/MNIST/raw``.

    Raises:
        DataSetError: see :func:`fadelab_agent.tasks.idx_files.load_idx_task`.

    """
    return load_idx_task("mnist", data_dir / "MNIST" / "raw", "torchvision.datasets.MNIST")
