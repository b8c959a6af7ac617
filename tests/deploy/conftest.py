"""Lets the tests of this folder import their common helpers in ``run_record.py``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
