"""The learner's part of a checkpoint as records, which a state machine keeps beside its data.

One record holds the session table; of a command whose fragments have not all been delivered, each
batch adds a record of the pieces that came with it. A batch writes what it changed and no more, so
a value of megabytes costs its own size to keep and not its square (docs/PROTOCOL.md, section 7).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgpack

from p4xos.roles.sessions import Sessions, SessionState

if TYPE_CHECKING:
    from rocksdict import Rdict, WriteBatch

TABLE = b"table"
_PIECES = struct.Struct(">6sQQI")
_MARK = b"pieces"

Records = Mapping[bytes, bytes]
Changes = Mapping[bytes, bytes | None]
"""Records to be written, in one step with the data; None: to be removed."""


def changes_of(sessions: Sessions) -> dict[bytes, bytes | None]:
    """What changed since the last call, to be written with the state it belongs to."""
    changes: dict[bytes, bytes | None] = {
        _PIECES.pack(_MARK, *key): None if pieces is None else msgpack.packb(pieces)
        for key, pieces in sessions.piece_changes()
    }
    changes[TABLE] = msgpack.packb(sessions.table())
    return changes


def write(batch: WriteBatch, prefix: bytes, changes: Changes) -> None:
    """Adds changes to a write batch of RocksDB, under keys that begin with `prefix`."""
    for key, value in changes.items():
        if value is None:
            batch.delete(prefix + key)
        else:
            batch.put(prefix + key, value)


def read(database: Rdict, prefix: bytes) -> dict[bytes, bytes]:
    """The records that were written under `prefix`; whatever RocksDB raises where it is damaged."""
    records: dict[bytes, bytes] = {}
    iterator = database.iter()
    iterator.seek(prefix)
    while iterator.valid() and iterator.key().startswith(prefix):
        records[iterator.key()[len(prefix) :]] = iterator.value()
        iterator.next()
    iterator.status()  # an iterator that met damage is merely not valid
    return records


def merge(records: dict[bytes, bytes], changes: Changes) -> None:
    """Applies changes to records held in memory."""
    for key, value in changes.items():
        if value is None:
            records.pop(key, None)
        else:
            records[key] = value


def unpack(records: Records) -> SessionState:
    """What these records hold; none at all: the state of a learner that begins."""
    if not records:
        return [[], []], {}
    table: list[Any] = msgpack.unpackb(records[TABLE], strict_map_key=False)
    pieces = {
        _PIECES.unpack(key)[1:]: [(number, piece) for number, piece in msgpack.unpackb(value)]
        for key, value in records.items()
        if key != TABLE
    }
    return table, pieces
