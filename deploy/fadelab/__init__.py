"""From an experiment file to processes, and back to a report."""

__version__ = "0.1.0"
