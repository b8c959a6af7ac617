#!/bin/sh
# Sockets and records are for the whole group: the emulator is root, agents and server are not.
umask 0002
exec fadelab "$@"
