"""Which packet classes of an update have arrived as a whole, and what of them counts."""

from collections import Counter
from collections.abc import Callable, Iterable

from fadelab_proto.joining import JoinedUpdate
from fadelab_proto.packet import Packet
from fadelab_server.aggregation.sp_fl import SpFl
from fadelab_server.assembly import UpdateAssembly


def whole_classes(packets: Iterable[Packet], dimension: int) -> frozenset[int]:
    """Return the classes whose packets cover every coordinate of the model."""
    covered: Counter[int] = Counter()
    for packet in packets:
        covered[packet.packet_class] += packet.count
    # Packets of a class do not overlap: whoever joins them refuses those that do.
    return frozenset(number for number, count in covered.items() if count >= dimension)


def joined_classes(
    rule: SpFl, assembly: UpdateAssembly, packets: Callable[[], Iterable[Packet]]
) -> JoinedUpdate:
    """Return what counts of an update under a rule that takes classes for themselves.

    Raises:
        CodecError: if a packet cannot be decoded.

    """
    dimension = assembly.header.dimension
    usable = rule.usable(assembly.device, whole_classes(packets(), dimension), assembly.base.number)
    stands_in = rule.modulus_of(assembly.device)
    return JoinedUpdate(
        lambda: (packet for packet in packets() if packet.packet_class in usable),
        dimension,
        lambda _: stands_in,
    )
