"""Runs beside one another: means, paired differences and their intervals, tables and plots."""
