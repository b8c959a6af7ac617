"""From the names in a file to open network namespaces."""

from pathlib import Path

from fadelab.emulate.config import PlaceConfig
from fadelab.emulate.engine import DockerEngine
from fadelab_emulation.attach.places import NAMED_NAMESPACES, Place, open_place


class Finder:
    """Opens places; asks the Docker engine where one is a container."""

    def __init__(self) -> None:
        self._engine: DockerEngine | None = None

    @property
    def engine(self) -> DockerEngine:
        """The Docker engine, to which nobody connects before it is needed."""
        if self._engine is None:
            self._engine = DockerEngine()
        return self._engine

    def find(self, place: PlaceConfig) -> Place:
        """Open a place.

        Raises:
            RefusedPlaceError: it does not exist.
            MissingCapabilityError: it may not be opened.
            FadelabError: the engine does not know it, or does not answer.

        """
        if place.container is not None:
            return self.find_container(place.container, place.container)
        if place.netns is not None:
            return open_place(
                f"the network namespace {place.netns}", NAMED_NAMESPACES / place.netns
            )
        if place.netns_path is not None:
            return open_place(f"the network namespace {place.netns_path}", place.netns_path)
        if place.pid is not None:
            return open_place(f"the process {place.pid}", Path(f"/proc/{place.pid}/ns/net"))
        return open_place("the network of this command", Path("/proc/self/ns/net"))

    def find_container(self, name: str, identity: str) -> Place:
        """Open the namespace of a container, which the engine knows by ``identity``."""
        return open_place(f"the container {name}", self.engine.namespace_path(identity))

    def close(self) -> None:
        """Let go of the engine."""
        if self._engine is not None:
            self._engine.close()
