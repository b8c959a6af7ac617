"""The user-space back-end: a relay process that moves packets between TUN interfaces.

For kernels without the queueing disciplines that shape, delay or lose packets. It can do all that
the others can, at some microseconds of processor time for each packet.

    device i's namespace              relay process                server's namespace (hub)
    eth0 (TUN) 10.77.a.b  ---- uplink:   Pipe ---------------->  fl<i> (TUN)   lo 10.77.0.1
                          <--------------- downlink: Pipe -----

    Pipe:  classifier > gate > lanes (queue and serialiser, one per class) > loss > delay line

The units of :mod:`.lane`, :mod:`.delay_line` and :mod:`.pipe` know no clock and no file: time is
an argument. Only :mod:`.engine` reads the clock and moves bytes.
"""

from fadelab_emulation.backends.relay.backend import RelayBackend

__all__ = ["RelayBackend"]
