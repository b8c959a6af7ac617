"""Motion from trace files: one file per format, and the replay that all of them share."""
