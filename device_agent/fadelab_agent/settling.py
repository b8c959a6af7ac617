"""What of an update counts at the server, as its device knows it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fadelab_proto.codecs import Chunk
from fadelab_proto.joining import JoinedUpdate, stand_in
from fadelab_proto.substitutes import SubstituteConfig

F32 = NDArray[np.float32]


def settled(chunks: Sequence[Chunk], waiting: F32, substitute: SubstituteConfig | None) -> F32:
    """Return what the server made of an update: the part that is no longer waiting.

    For entries whose sign arrived without the modulus, this is sign times what stood in for it at
    the server: 0 if nothing did, and the very same number for a constant and for the mean of the
    moduli that arrived. The model's last step a device cannot know: the step that the server used
    may be one that the device never downloaded. Such entries are settled as a whole. To keep them
    would be to send them a second time after the model has moved for them; where moduli hardly ever
    arrive, the memory would grow without end and its signs would tell of the past alone.

    Args:
        chunks: the packets that count, by the server's word.
        waiting: what the device wanted to send, shape ``(dimension,)``.
        substitute: what stands in for missing moduli.

    """
    joined = JoinedUpdate(
        lambda: chunks,
        len(waiting),
        stand_in(substitute, lambda first, last: np.abs(waiting[first:last])),
    )
    vector = np.zeros(len(waiting), dtype=np.float32)
    for segment in joined:
        segment.add_to(vector)
    return vector
