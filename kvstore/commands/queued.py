"""MULTI to EXEC: what a client has queued, and the one entry of the log that it becomes.

Commands for the store are packed as they come. Connection commands (PING, SELECT, ...) run where
the client is, at their place among the replies, once the log has answered; only SELECT is followed
at once, since the database of the commands behind it is part of what is packed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from kvstore.commands.client import Client
from kvstore.commands.table import Entry, parse_integer
from kvstore.packing import DATABASES, Watched, pack_commands, pack_transaction
from kvstore.replies import CommandError, Error, NoArray, Raw, Reply, Status, encode, internal_error
from kvstore.resp import Command

COMMANDS_MAX = 1 << 17
"""Commands of one transaction: even the smallest costs memory before it is run."""
_QUEUED = Status(b"QUEUED")
LOCAL_MAX = 1024
"""Connection commands of one transaction. They run one behind the other, and nobody else meanwhile;
some reply a thousand times what they are."""
LOCAL_REPLY_BYTES = 4 << 20
"""Of their replies, which are in memory before the client takes any: what it may leave untaken."""
BYTES_EACH = 5
"""Most of what a packed command takes beside its own bytes."""
_NO_ROOM = Error(
    b"ERR replies to commands that concern no key are over %d bytes in this transaction; this one "
    b"was not run, send it apart" % LOCAL_REPLY_BYTES
)


class Local(NamedTuple):
    """A queued command that the log does not see."""

    entry: Entry
    command: Command


@dataclass(slots=True, eq=False)
class Transaction:
    """What a client has queued since its MULTI."""

    database: int
    """The one that the next command works on."""
    bytes_max: int
    """Of all packed commands together."""
    items: list[bytes | Local] = field(default_factory=list)
    size: int = 0
    local: int = 0
    """Connection commands among them."""
    failed: bool = False
    """A command was refused: EXEC will not run the others."""

    def add(self, entry: Entry, command: Command) -> Reply:
        """Queues a command.

        Raises:
          CommandError: the transaction would be too long; EXEC will refuse it.
        """
        item: bytes | Local
        if entry.connects:
            item, size = Local(entry, command), sum(map(len, command))
            if entry.name == b"select":
                self._select(command[1])
        else:
            (item,) = pack_commands([command], self.database)
            size = len(item)
        self.size += size + BYTES_EACH
        if self.size > self.bytes_max:
            self._refuse(f"ERR transaction is over the limit of {self.bytes_max} bytes; split it")
        if len(self.items) >= COMMANDS_MAX:
            self._refuse(f"ERR transaction is over the limit of {COMMANDS_MAX} commands; split it")
        self.local += entry.connects
        if self.local > LOCAL_MAX:
            self._refuse(
                f"ERR transaction is over the limit of {LOCAL_MAX} commands that concern no key; "
                "send them apart from it"
            )
        self.items.append(item)
        return _QUEUED

    def _select(self, text: bytes) -> None:
        try:
            database = parse_integer(text)
        except CommandError:
            return  # SELECT itself will answer so
        if 0 <= database < DATABASES:
            self.database = database

    def _refuse(self, complaint: str) -> None:
        self.failed = True
        self.items.clear()
        raise CommandError(complaint)


class Execution:
    """A transaction under way."""

    def __init__(self, transaction: Transaction, watched: list[Watched]) -> None:
        self._items = transaction.items
        packed = [item for item in self._items if isinstance(item, bytes)]
        self.command = pack_transaction(watched, packed) if packed or watched else []
        """What travels in the log; empty when nothing needs to."""

    def finish(self, client: Client, answer: Reply) -> Reply:
        """The reply to EXEC.

        Args:
          client: whose transaction it is; its connection commands run now.
          answer: what the log gave: the replies of its commands, None when a watched key had
            changed, or an error.
        """
        if isinstance(answer, Error):
            return answer
        if answer is None:
            return NoArray()
        assert isinstance(answer, list), "a transaction gives an array"
        from_log = iter(answer)
        replies: list[Reply] = []
        room = LOCAL_REPLY_BYTES
        for item in self._items:
            if isinstance(item, bytes):
                replies.append(next(from_log))
            elif room > 0:
                reply = encode(_run(item, client), client.protocol)
                replies.append(Raw(reply, reply))
                room -= len(reply)
            else:
                replies.append(_NO_ROOM)
        return replies


def _run(item: Local, client: Client) -> Reply:
    try:
        return item.entry.handler(client, item.command)
    except CommandError as error:
        return error.reply
    except Exception as bug:  # inside of the log's call: it must not end there
        return internal_error(item.entry.full_name, bug)
