"""Synchronous rounds in which the server decides what each device is given before it uploads."""
