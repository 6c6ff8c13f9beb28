"""What a connection command may see and change: its client, and through it the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kvstore.replies import RESP2

Section = Mapping[str, object]
"""Fields of one section of INFO."""


@dataclass(slots=True)
class ServerFacts:
    """What commands tell about the server they run in."""

    sections: Callable[[], Mapping[str, Section]]
    """INFO's sections by title, computed when asked."""
    settings: Callable[[], Mapping[str, str]]
    """CONFIG GET's parameters."""
    clients: Callable[[], list[Client]] = list
    """Those connected now."""


@dataclass(slots=True, eq=False)
class Client:
    """One connection, as far as commands are concerned."""

    id: int
    address: str
    server: ServerFacts
    local_address: str = ""
    protocol: int = RESP2
    database: int = 0
    name: bytes = b""
    library: dict[bytes, bytes] = field(default_factory=dict)
    """CLIENT SETINFO's lib-name and lib-ver."""
    closing: bool = False
    """Set to close the connection once the replies so far are sent."""

    def reset(self) -> None:
        """As if just connected; what RESET promises."""
        self.protocol = RESP2
        self.database = 0
        self.name = b""

    def describe(self) -> bytes:
        """The line of CLIENT LIST and CLIENT INFO."""
        library = b" lib-name=%b lib-ver=%b" % (
            self.library.get(b"lib-name", b""),
            self.library.get(b"lib-ver", b""),
        )
        return b"id=%d addr=%b laddr=%b name=%b db=%d resp=%d%b\n" % (
            self.id, self.address.encode(), self.local_address.encode(), self.name,
            self.database, self.protocol, library,
        )
