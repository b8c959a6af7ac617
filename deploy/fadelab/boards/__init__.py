"""A testbed of boards that are reached over SSH: check, push, run, collect."""
