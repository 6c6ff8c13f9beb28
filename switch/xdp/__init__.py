"""Acceptor and coordinator in the kernel: XDP programs, and what loads and controls them."""

from pathlib import Path

FOLDER = Path(__file__).parent
"""Where the programs are."""
