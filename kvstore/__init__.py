"""A replicated key-value store that speaks Redis' protocol, on a P4xos log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore.client import Client as Client


def __getattr__(name: str) -> object:
    # `kvstore.Client` without what it costs to import trio, for those who only ask for --help.
    if name == "Client":
        from kvstore.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
