"""Common to all tests."""

import os

# gRPC wakes its threads again in every forked child, where a process with threads may not enter a
# sandbox: every namespace test after the first gRPC test would be skipped. Read at its import.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
