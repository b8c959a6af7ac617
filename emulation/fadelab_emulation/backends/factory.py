"""From a chosen variant to the links."""

from collections.abc import Callable, Sequence

from fadelab_emulation.backends.base import LinkBackend
from fadelab_emulation.backends.choice import Variant
from fadelab_emulation.backends.dry import DryBackend
from fadelab_emulation.backends.impairment.base import Impairment
from fadelab_emulation.backends.impairment.cbpf import CbpfLoss
from fadelab_emulation.backends.impairment.ebpf import EbpfLoss
from fadelab_emulation.backends.impairment.netem import NetemDelay, NetemLoss
from fadelab_emulation.backends.kernel import KernelBackend
from fadelab_emulation.backends.kernel_links import KernelLinks
from fadelab_emulation.backends.plan import LinkPlan
from fadelab_emulation.backends.relay import RelayBackend
from fadelab_proto.clock import Clock

_IMPAIRMENTS: dict[Variant, Callable[[LinkPlan], Impairment]] = {
    Variant.LITE_EBPF: EbpfLoss,
    Variant.LITE_CBPF: lambda plan: CbpfLoss(plan.classes),
    Variant.NETEM_EBPF: lambda plan: NetemDelay(EbpfLoss(plan)),
    Variant.NETEM_CBPF: lambda plan: NetemDelay(CbpfLoss(plan.classes)),
    Variant.NETEM: lambda plan: NetemDelay(NetemLoss(plan)),
}


def make_kernel_backend(
    variant: Variant, plan: LinkPlan, clock: Clock, links: KernelLinks
) -> KernelBackend:
    """Make ``links``, closed, shaped by the kernel. Raises as :func:`make_backend` does."""
    return KernelBackend(plan, _IMPAIRMENTS[variant](plan), clock, links=links)


def make_backend(
    variant: Variant, plan: LinkPlan, clock: Clock, given: Sequence[int] | None = None
) -> LinkBackend:
    """Make the links of ``plan``, closed, in the sandbox that this process is in.

    Args:
        variant: what carries them.
        plan: what they are.
        clock: the monotonic time.
        given: descriptors of the devices' namespaces, where these are not to be made.

    Raises:
        ForeignNamespaceError: outside a sandbox.
        OSError: if the kernel refuses something; NetlinkError says which request.

    """
    if variant is Variant.RELAY:
        return RelayBackend(plan, clock, given)
    if variant is Variant.DRY:
        return DryBackend(plan, clock, given)
    return KernelBackend(plan, _IMPAIRMENTS[variant](plan), clock, given)
