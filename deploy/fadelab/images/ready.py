"""Images for a run: those that are there if they hold this code, else built."""

from collections.abc import Callable
from importlib.metadata import version

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.images.build import (
    CODE_LABEL,
    DOCKERFILE,
    MATERIAL_LABEL,
    SOURCE,
    BuildOrder,
    Target,
    build_images,
    code_digest,
    image_name,
)
from fadelab.images.docker_command import DockerCommand


def images_for_run(tag: str | None, tell: Callable[[str], None]) -> str:
    """Return the tag of images that a run may use, all of which are there then.

    Images of this version that hold other code than this checkout are built anew, of what they were
    built of before. Images with a tag of the user's own are used as they are.

    Args:
        tag: the user's own; None: Fadelab's version.
        tell: hears what is built.

    Raises:
        FadelabError: ENVIRONMENT without an engine, USAGE for a tag that images lack or without
            sources, COMPONENT_FAILED if a build fails.

    """
    docker = DockerCommand()
    name = tag or version("fadelab")
    found = {target: docker.labels(image_name(target, name)) for target in Target}
    missing = [image_name(target, name) for target, labels in found.items() if labels is None]
    if tag is not None:
        if missing:
            raise FadelabError(
                ExitCode.USAGE,
                f"--tag {tag}: there is no image {missing[0]}; `fadelab images build --tag {tag}` "
                "makes it",
            )
        return name
    known = [labels for labels in found.values() if labels is not None]
    if not (SOURCE / DOCKERFILE).is_file() and not missing:
        return name
    digest = code_digest(SOURCE)
    if not missing and all(labels.get(CODE_LABEL) == digest for labels in known):
        return name
    material = next(
        (built_of for labels in known if (built_of := labels.get(MATERIAL_LABEL))), None
    )
    order = (
        BuildOrder(SOURCE, name) if material is None else BuildOrder.again(material, SOURCE, name)
    )
    tell("building images: " + ("they are missing" if missing else "the code has changed"))
    for built in build_images(order, list(Target), lambda _: None):
        tell(f"  {built.image}  {built.size_bytes / 1e6:.0f} MB  {built.seconds:.1f} s")
    return name
