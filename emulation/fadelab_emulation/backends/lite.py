"""The kernel back-end for any kernel: no netem, no eBPF, hence independent losses and no delay."""

from fadelab_emulation.backends.impairment.cbpf import CbpfLoss
from fadelab_emulation.backends.kernel import KernelBackend
from fadelab_emulation.backends.plan import LinkPlan
from fadelab_proto.clock import Clock


def lite_backend(plan: LinkPlan, clock: Clock) -> KernelBackend:
    """Return links as :class:`KernelBackend` makes them, with losses drawn by classic BPF."""
    return KernelBackend(plan, CbpfLoss(plan.classes), clock)
