"""Loss and delay, applied where packets arrive: after the bottleneck, unseen by the sender."""
