"""The programs, in P4-16 for v1model: `coordinator.p4` and `acceptor.p4`, and what they include."""

from pathlib import Path

FOLDER = Path(__file__).parent
"""Where the programs are."""
