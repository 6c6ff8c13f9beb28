"""All commands in one table, each family in its own file: add a file here, and it is served."""

from __future__ import annotations

from kvstore.commands import (
    acl,
    bitfields,
    bits,
    clients,
    connection,
    databases,
    debug,
    dumping,
    expiry,
    introspection,
    keys,
    lcs,
    numbers,
    scanning,
    scripts,
    slowlog,
    strings,
    transactions,
)
from kvstore.commands.table import Entry

TABLE: dict[bytes, Entry] = {
    entry.name: entry
    for family in (
        bitfields, bits, clients, connection, databases, debug, dumping, expiry, introspection,
        keys, lcs, numbers, scanning, scripts, slowlog, strings, transactions,
    )
    for entry in family.COMMANDS
}
TABLE[b"acl"] = acl.AclCommand(TABLE).entry()
TABLE[b"command"] = introspection.CommandCommand(TABLE).entry()
EXEC = TABLE[b"exec"]

_SPELLINGS_LIMIT = 4096
"""`GET`, `get`, `Get`: spellings seen are kept, so that the hot path has one look-up; a client
that tries all of them gains no memory here."""
SPELLINGS: dict[bytes, Entry] = {
    spelling: entry for name, entry in TABLE.items() for spelling in (name, name.upper())
}
"""What hot loops look in before they call `find`."""


def find(name: bytes) -> Entry | None:
    """The command of this name in any spelling, or None."""
    entry = SPELLINGS.get(name)
    if entry is None:
        entry = TABLE.get(name.lower())
        if entry is not None and len(SPELLINGS) < _SPELLINGS_LIMIT:
            SPELLINGS[name] = entry
    return entry
