"""When a link is open, and how long a device may expect it to stay so: one file per model."""
