"""Timelines of link states beside the radio models: recorded, imported, scaled, predicted from."""
