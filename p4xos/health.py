"""Whether a node can serve now, in words, and which of its counters tell of dropped messages."""

from __future__ import annotations

from collections.abc import Mapping

STALL_S = 3.0
"""Something outstanding and nothing delivered for so long: longer than a takeover and its retries
take, shorter than a client waits for its deadline."""
_LED = ("following", "serving")


_DROPS = frozenset(
    (
        "stale_round", "out_of_window", "round_zero", "low_jump", "value_too_long", "malformed",
        "malformed_value", "ignored", "inactive", "window_full", "queue_full", "beyond_window",
        "refused",
    )
)  # fmt: skip
"""Counters of roles that say why a message was not acted on."""


def drop_reason(counter: str) -> str | None:
    """Why messages were dropped that a role's counter counts; None when it counts no drops."""
    if counter.startswith("dropped_"):
        return counter.removeprefix("dropped_")
    return counter if counter in _DROPS else None


class Health:
    """Remembers when the replica last moved; everything else is in a node's status."""

    def __init__(self) -> None:
        self._delivered = -1
        self._moved_at: float | None = None  # or nothing was outstanding then

    def note(self, delivered: int, outstanding: bool, now: float) -> None:
        """Takes how far the replica is and whether something is known to be beyond.

        Called about once a second, and before each question.
        """
        if self._moved_at is None or delivered != self._delivered or not outstanding:
            self._delivered = delivered
            self._moved_at = now

    def stalled_s(self, now: float) -> float:
        """For how long something has been outstanding while nothing was delivered."""
        return 0.0 if self._moved_at is None else now - self._moved_at

    def problems(self, status: Mapping[str, object], now: float) -> list[str]:
        """Why clients should be sent to another node, a sentence each; none: it is ready.

        Args:
          status: as `Node.status` builds it.
          now: as in `note`.
        """
        found: list[str] = []
        silent = status.get("silent")
        if isinstance(silent, list):
            found += map(str, silent)
        coordinator = status.get("coordinator")
        if isinstance(coordinator, dict):
            if coordinator["phase"] not in _LED or coordinator["leader"] is None:
                found.append(f"no coordinator is known; this one is {coordinator['phase']}")
            if coordinator["blocked"]:
                found.append(f"writes wait: {coordinator['blocked']}")
        learner = status.get("learner")
        if isinstance(learner, dict):
            if learner["behind"]:
                found.append(
                    f"the replica is behind: it has delivered through instance "
                    f"{learner['delivered']}, and the acceptors have forgotten what is below "
                    f"{learner['low']}"
                )
            stalled_s = self.stalled_s(now)
            if stalled_s >= STALL_S:
                found.append(
                    f"no progress for {stalled_s:.0f} s: delivered through instance "
                    f"{learner['delivered']}, heard of {learner['heard']}, "
                    f"{learner['in_flight']} submissions wait"
                )
        return found
