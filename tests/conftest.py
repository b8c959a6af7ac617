"""Common to all tests."""

import os
import sys
from pathlib import Path

from hypothesis import settings

# gRPC wakes its threads again in every forked child, where a process with threads may not enter a
# sandbox: every namespace test after the first gRPC test would be skipped. Read at its import.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# Processes of tests find the tests' modules by the same names as pytest does.
sys.path.insert(0, str(Path(__file__).parents[1]))

# How long an example takes says more about the machine than about the code.
settings.register_profile("fadelab", deadline=None)
settings.load_profile("fadelab")
