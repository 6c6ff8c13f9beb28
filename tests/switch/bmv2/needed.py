"""What the tests on a real bmv2 need."""

import os

from switch.bmv2 import programs


def why_not() -> str | None:
    """Why nothing can be run on bmv2 here; None where it can."""
    if os.geteuid() != 0:
        return "a switch needs a network namespace of its own: run as root"
    return programs.missing()
