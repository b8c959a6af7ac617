"""Who trains which task when, and with what: the decisions of DMA-FL (arXiv 2305.13503).

Pure functions over arrays and frozen records; no I/O, no clock, no randomness.
"""
