"""What crosses the wire, and the few conventions every Fadelab process shares.

Everything else in the project may import this package; it imports nothing of the project.
"""
