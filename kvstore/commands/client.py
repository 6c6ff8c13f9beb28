"""What a connection command may see and change: its client, and through it the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from kvstore.meter import Meter
from kvstore.monitors import Monitors
from kvstore.replies import RESP2
from kvstore.settings import Settings
from kvstore.users import DEFAULT_USER, User

if TYPE_CHECKING:
    from kvstore.authentication import Asked, Authenticator
    from kvstore.commands.permissions import View
    from kvstore.commands.queued import Execution, Transaction

Section = Mapping[str, object]
"""Fields of one section of INFO."""


def _nothing(connection: object) -> None:
    """A server that has no connections to tell."""


@dataclass(slots=True)
class ServerFacts:
    """What commands tell about the server they run in."""

    sections: Callable[[], Mapping[str, Section]]
    """INFO's sections by title, computed when asked."""
    settings: Callable[[], Settings]
    """CONFIG's parameters."""
    clients: Callable[[], list[Client]] = list
    """Those connected now."""
    meter: Meter = field(default_factory=Meter)
    """What commands took, and the slow log."""
    monitors: Monitors = field(default_factory=lambda: Monitors(_nothing, _nothing))
    """Those that see every command."""
    monitor: Callable[[Client], None] = lambda client: None
    """Makes a client one of them."""
    close: Callable[[Client], None] = lambda client: None
    """Hangs up on another client."""
    pause: Callable[[float, bool], None] = lambda seconds, writes_only: None
    """Holds all clients' commands on keys, or writes only, for so long; 0 ends it."""
    reload: Callable[[], None] = lambda: None
    """Forgets what is cached of the store: it is read from disk again."""
    copies: Callable[[], int] = lambda: 0
    """Nodes beside one that have an acknowledged write on disk, at the least."""
    applied: Callable[[], int] = lambda: 0
    """The last instance of the log that the store has."""
    access: Authenticator | None = None
    """Who may connect; None: everybody may do all."""
    forget: Callable[[Client], None] = lambda client: None
    """Makes a client one that is not known yet, where clients must authenticate."""
    transaction_bytes_max: int = 8 << 20
    """Packed commands between MULTI and EXEC."""


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
    user: User | None = None
    """Who it has shown to be."""
    view: View | None = None
    """What it may run; None: everything."""
    asked: Asked | None = None
    """An AUTH that waits for its check; nothing behind it is run before."""
    failures: int = 0
    """Wrong passwords so far."""
    transaction: Transaction | None = None
    """What is queued since MULTI."""
    execution: Execution | None = None
    """The EXEC that is under way."""
    watched: dict[tuple[int, bytes], int] = field(default_factory=dict)
    """The version of each watched key, by database and key."""
    closing: bool = False
    """Set to close the connection once the replies so far are sent."""
    muted: int = 0
    """So many replies are not sent, the one under way among them; -1: none is (CLIENT REPLY)."""
    asleep_until: float = 0.0
    """`monotonic()` until which nothing of this client is run or sent (DEBUG SLEEP)."""
    monitoring: bool = False
    """It sent MONITOR."""
    connected_at: float = field(default_factory=monotonic)

    def reset(self) -> None:
        """As if just connected; what RESET promises."""
        self.protocol = RESP2
        self.database = 0
        self.name = b""
        self.transaction = None
        self.watched.clear()
        self.muted = 0
        self.monitoring = False

    def is_plain(self) -> bool:
        """Whether it works on database 0, may run all, and its next command is run and answered."""
        return not (
            self.database or self.view or self.asked or self.transaction or self.execution
            or self.closing or self.muted or self.asleep_until or self.monitoring
        )  # fmt: skip

    @property
    def host(self) -> str:
        """Its address without the port."""
        return self.address.rpartition(":")[0]

    @property
    def user_name(self) -> str:
        """As others see it."""
        return DEFAULT_USER if self.user is None else self.user.name

    def hears(self) -> bool:
        """Whether the reply at hand is to be sent; counts it."""
        if self.muted > 0:
            self.muted -= 1
            return False
        return self.muted == 0

    def describe(self) -> bytes:
        """The line of CLIENT LIST and CLIENT INFO: Redis' fields that mean something here."""
        return (
            b"id=%d addr=%b laddr=%b name=%b age=%d flags=%b db=%d sub=0 psub=0 ssub=0 "
            b"user=%b redir=-1 resp=%d lib-name=%b lib-ver=%b\n"
        ) % (
            self.id, self.address.encode(), self.local_address.encode(), self.name,
            monotonic() - self.connected_at, b"N" if self.transaction is None else b"x",
            self.database, self.user_name.encode(), self.protocol,
            self.library.get(b"lib-name", b""), self.library.get(b"lib-ver", b""),
        )  # fmt: skip
