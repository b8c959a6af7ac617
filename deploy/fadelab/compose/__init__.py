"""A testbed of containers on one machine, from an experiment file."""
