"""Who gets how much power and bandwidth in a round: one file for each way to decide.

Pure functions over arrays; what they know of the radio comes as arrays, too.
"""
