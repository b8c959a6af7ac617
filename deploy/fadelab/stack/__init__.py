"""A testbed that spans machines: written for Docker Swarm or Kubernetes, run by its own processes.

On every node an emulator makes and shapes the links of the agents there; a conductor beside the
server tells all of them when emulated time begins. docs/cluster.md draws it.
"""
