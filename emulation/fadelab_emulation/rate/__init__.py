"""From channel gains to bits per second: one file per model."""
