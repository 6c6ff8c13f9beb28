"""What makes a run void."""

from __future__ import annotations

from p4xos.errors import P4xosError


class BenchError(P4xosError):
    """Nothing could be measured, or what was measured does not count; the message says why."""
