"""Running an experiment on one machine: a sandbox, a server, an emulator, agents."""
