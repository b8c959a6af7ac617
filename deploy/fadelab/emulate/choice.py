"""What carries the links of a file: refused where it could not do exactly what is asked."""

from fadelab.emulate.config import EmulateFile
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.trial import attempt
from fadelab_emulation.attach.foreign_star import REFUSED_WINDOWS
from fadelab_emulation.backends.choice import BackendRefusedError, Choice, Need, Variant, choose
from fadelab_emulation.packet_class import class_marks
from fadelab_emulation.sources import AnyRadio, needs
from fadelab_emulation.window import BackendChoice, WindowMode

_LONGEST_S = 1e6
_NOT_HERE = (BackendChoice.RELAY, BackendChoice.DRY)
_ATTACHED_WINDOWS = (WindowMode.HOLD, WindowMode.DROP)


def choose_variant(file: EmulateFile) -> Choice:
    """Return what carries the links; see :func:`fadelab_emulation.backends.choice.choose`.

    Must be called in a process with one thread: back-ends are tried in a fork.

    Raises:
        FadelabError: USAGE for what is never done in networks of others, ENVIRONMENT for what
            this machine cannot do.

    """
    radio = file.radio
    if radio.backend in _NOT_HERE:
        raise FadelabError(
            ExitCode.USAGE,
            f"radio.backend is {radio.backend.value!r}, but links of containers and interfaces are "
            "shaped by the kernel: ask for auto, lite or netem",
        )
    needed = needs_of(file)
    return _attached(radio.window, needed) if file.attaches else choose_for_others(radio, needed)


def choose_for_others(radio: AnyRadio, needed: frozenset[Need]) -> Choice:
    """Return what carries links that are made in networks of others.

    Must be called in a process with one thread: back-ends are tried in a fork.

    Raises:
        FadelabError: USAGE for a window mode that is refused there, ENVIRONMENT for what this
            machine cannot do.

    """
    if radio.window in REFUSED_WINDOWS:
        raise FadelabError(ExitCode.USAGE, REFUSED_WINDOWS[radio.window])

    def problem(variant: Variant) -> str:
        if variant is Variant.RELAY:
            return "it does not work in networks of others"
        return attempt(variant, needed, radio.window, class_marks(radio.classes))

    try:
        return choose(radio.backend, needed, problem)
    except BackendRefusedError as error:
        raise FadelabError(ExitCode.ENVIRONMENT, str(error)) from None


def needs_of(file: EmulateFile) -> frozenset[Need]:
    """Return what the links of a file have to do beside rates and windows."""
    return needs(file.radio, file.world_devices, file.seed, file.duration_s or _LONGEST_S)


def _attached(window: WindowMode, needed: frozenset[Need]) -> Choice:
    if window not in _ATTACHED_WINDOWS:
        raise FadelabError(
            ExitCode.USAGE,
            f"the window mode {window.value!r} cannot be had at an attached interface: it would "
            "take the interface's routes or the far end's firewall; use hold or drop",
        )
    if needed:
        raise FadelabError(
            ExitCode.USAGE,
            f"{' and '.join(sorted(needed))} cannot be had at an attached interface, for they "
            "belong to the far end of the link, behind the bottleneck: set them to 0, or let "
            "Fadelab make the links (give a server, and devices without attach)",
        )
    return Choice(Variant.LITE_CBPF, "an attached interface is shaped by HTB and an IFB")
