"""Faults injected into every command: `python -m tests.faults`, or `make faults`."""

import os

# Read by the Hub's client when it is imported: the local Hub has no Xet.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
