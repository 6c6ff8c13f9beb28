"""The layer itself, and what is asked of its implementations."""

from __future__ import annotations

from p4xos.chunnels.levels import Level
from p4xos.chunnels.stack import Chunnel, Ordered, layer

ORDERED_MCAST = "ordered_mcast"
PROVIDES: dict[str, Level] = {
    "order": "total", "loss": "none", "duplicates": "exactly-once",
}  # fmt: skip
"""By the protocol, whatever runs it."""


def ordered_mcast(
    *, durability: str | None = None, value_bytes: int | None = None
) -> Chunnel[bytes, Ordered]:
    """Messages to all members of a group, in one order for all of them.

    Args:
      durability: where a message that was delivered survives, at least: "one" member's or a
        "majority"'s memory, or "majority-disk".
      value_bytes: the longest message that travels whole, as data planes without fragments need.

    Raises:
      ValueError: no such level.
    """
    found: Chunnel[bytes, Ordered] = layer(ORDERED_MCAST)
    asked: dict[str, Level] = {}
    if durability is not None:
        asked["durability"] = durability
    if value_bytes is not None:
        asked["value_bytes"] = value_bytes
    return found.require(**asked) if asked else found
