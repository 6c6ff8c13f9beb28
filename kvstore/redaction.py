"""What of a command may be shown to others: everything but passwords."""

from __future__ import annotations

from collections.abc import Sequence

NEVER_SHOWN = frozenset((b"auth", b"hello"))
"""MONITOR leaves these out, as Redis does."""
_HIDDEN = b"(redacted)"
_SECRET_SETTINGS = frozenset(
    (b"requirepass", b"masterauth", b"masteruser", b"tls-key-file-pass",
     b"tls-client-key-file-pass")
)  # fmt: skip


def redacted(command: Sequence[bytes]) -> Sequence[bytes]:
    """The command, with Redis' word in the place of each secret."""
    name = command[0].lower()
    if name == b"auth":
        return [command[0], *[_HIDDEN] * (len(command) - 1)]
    if name == b"hello":
        words = [word.lower() for word in command]
        if b"auth" in words:  # behind it nothing is told: a password may stand anywhere
            known = words.index(b"auth") + 1
            return [*command[:known], *[_HIDDEN] * (len(command) - known)]
    elif name == b"config" and len(command) > 3 and command[1].lower() == b"set":
        shown = list(command)
        for position in range(2, len(shown) - 1, 2):
            if shown[position].lower() in _SECRET_SETTINGS:
                shown[position + 1] = _HIDDEN
        return shown
    return command
