"""Back-ends: what carries a LinkTick out."""
