"""Container images of server, agent and emulator."""
