"""What every runtime has: the implementations of this package."""

from __future__ import annotations

from p4xos.chunnels import nearest, reliability, serialization, sharding, transport
from p4xos.chunnels.implementations import Implementation

IMPLEMENTATIONS: tuple[Implementation, ...] = (
    *serialization.IMPLEMENTATIONS,
    *reliability.IMPLEMENTATIONS,
    *nearest.IMPLEMENTATIONS,
    *sharding.IMPLEMENTATIONS,
    transport.udp,
    transport.memory,
    transport.unix,
)
