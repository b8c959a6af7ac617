"""Writing a testbed that spans machines."""

from enum import StrEnum
from pathlib import Path

from fadelab.experiment import Experiment
from fadelab.manifest import Deployment
from fadelab.stack.kubernetes import POD_CREDENTIALS, manifests
from fadelab.stack.plan import AGENT_CREDENTIALS, plan_cluster
from fadelab.stack.swarm import stack_file


class Kind(StrEnum):
    """Who runs the containers."""

    SWARM = "swarm"
    KUBERNETES = "kubernetes"


def write_stack(
    experiment: Experiment, folder: Path, kind: Kind, *, tag: str, registry: str, days: int
) -> Path:
    """Write a testbed into a new folder and return the file that describes it.

    Args:
        experiment: what to run.
        folder: must not exist.
        kind: who runs the containers.
        tag: of the images.
        registry: what stands before the images' names.
        days: how long certificates are valid.

    Raises:
        FadelabError: USAGE, if the folder cannot be made or the experiment needs what a cluster
            has not got; DATA_MISSING without the task's data.

    """
    swarm = kind is Kind.SWARM
    cluster = plan_cluster(
        experiment,
        folder,
        tag=tag,
        registry=registry,
        days=days,
        deployment=Deployment.SWARM if swarm else Deployment.KUBERNETES,
        credentials=AGENT_CREDENTIALS if swarm else POD_CREDENTIALS,
    )
    path = folder / ("stack.yaml" if swarm else "kubernetes.yaml")
    path.touch(mode=0o600)  # Kubernetes' file holds keys
    path.write_text(stack_file(cluster) if swarm else manifests(cluster))
    return path
