"""The server's journal: what was accepted, and what was made of it, before anybody is told.

Acknowledged means durable: packets and decisions are appended to a log before they are acknowledged;
a snapshot of the state and a replay of the log after it give the exact state again.
"""

from fadelab_server.journal.log import Log, replay
from fadelab_server.journal.reader import Reader
from fadelab_server.journal.segments import JournalError, Record

__all__ = ["JournalError", "Log", "Reader", "Record", "replay"]
