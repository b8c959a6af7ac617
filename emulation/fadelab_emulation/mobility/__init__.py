"""How devices move: one file per model, all in emulated seconds and metres."""
