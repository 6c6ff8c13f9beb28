"""What a runtime knows of the world beyond itself: a picture of the discovery service's state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from p4xos.chunnels.choosing import Free
from p4xos.chunnels.places import Place

Address = tuple[str, int]


class Instance(NamedTuple):
    """One server that is announced under a name."""

    address: Address
    place: Place


@dataclass(frozen=True)
class View:
    """At one moment."""

    registered: Mapping[tuple[str, str], Mapping[str, object]] = field(default_factory=dict)
    """Implementations of which somebody holds a registration, by type and name; its parameters."""
    free: Free = field(default_factory=lambda: Free({}))
    names: Mapping[str, tuple[Instance, ...]] = field(default_factory=dict)
    note: str = ""
    """Why there is nothing in it."""
    key: bytes = field(default=b"", repr=False)
    """What the service tells to who may speak with it; see `passes`."""


NO_DISCOVERY = View(note="no discovery service is asked; P4XOS_DISCOVERY names its socket")
