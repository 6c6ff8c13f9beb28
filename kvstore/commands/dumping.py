"""DUMP and RESTORE: a key as bytes, to take to another server or bring from one."""

from __future__ import annotations

from kvstore.commands.table import SYNTAX_ERROR, Entry, Kind, parse_integer
from kvstore.dump import BadFormat, BadPayload, dump, restore_untrusted
from kvstore.keyspace import MAX_VALUE_BYTES, Keyspace
from kvstore.replies import OK, CommandError, Reply
from kvstore.resp import Command

_MOST_MS = (1 << 63) - 1
_MOST_FREQUENCY = 255


def _dump(keys: Keyspace, command: Command) -> Reply:
    value = keys.get(command[1])
    return None if value is None else dump(value)


def _restore(keys: Keyspace, command: Command) -> Reply:
    replace, absolute = _options(command)
    key = command[1]
    if keys.contains(key) and not replace:
        raise CommandError("BUSYKEY Target key name already exists.")
    ttl = parse_integer(command[2])
    at = ttl if absolute or not ttl else ttl + keys.now
    if ttl < 0 or at > _MOST_MS:
        raise CommandError("ERR Invalid TTL value, must be >= 0")
    try:
        value = restore_untrusted(command[3], MAX_VALUE_BYTES)
    except BadPayload as error:
        why = f": {error}" if error.args else ""
        raise CommandError(f"ERR DUMP payload version or checksum are wrong{why}") from None
    except BadFormat:
        raise CommandError("ERR Bad data format") from None
    keys.put(key, value, at or None)
    return OK


def _options(command: Command) -> tuple[bool, bool]:
    """Whether REPLACE and ABSTTL are there; IDLETIME and FREQ are checked, and mean nothing."""
    replace = absolute = False
    position = 4
    while position < len(command):
        option, more = command[position].lower(), position + 1 < len(command)
        if option == b"replace":
            replace = True
        elif option == b"absttl":
            absolute = True
        elif option == b"idletime" and more:
            position += 1
            if parse_integer(command[position]) < 0:
                raise CommandError("ERR Invalid IDLETIME value, must be >= 0")
        elif option == b"freq" and more:
            position += 1
            if not 0 <= parse_integer(command[position]) <= _MOST_FREQUENCY:
                raise CommandError("ERR Invalid FREQ value, must be >= 0 and <= 255")
        else:
            raise CommandError(SYNTAX_ERROR)
        position += 1
    return replace, absolute


COMMANDS: list[Entry] = [
    Entry(b"dump", 2, Kind.READ, _dump, "Return a serialized version of the value stored at the "
          "specified key.", "2.6.0", "generic", ("readonly",), (1, 1, 1)),
    Entry(b"restore", -4, Kind.WRITE, _restore, "Create a key using the provided serialized "
          "value, previously obtained using DUMP.", "2.6.0", "generic", ("write", "denyoom"),
          (1, 1, 1)),
]  # fmt: skip
