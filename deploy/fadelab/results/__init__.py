"""From a run directory to numbers: the summary, its schema and its computation."""
