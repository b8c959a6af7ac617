"""The scheduling of local periods in a run: devices ask and report, both levels decide (DMA-FL)."""
