"""CONFIG's parameters: what can be read, what can be changed while the server runs.

Most are facts of this program under the name that Redis has for them. To set one of these to what
it is, as tools do to be sure, succeeds; to set it to anything else is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvstore.commands.table import parse_integer
from kvstore.patterns import compile_glob
from kvstore.replies import CommandError

_GLOB_MARKS = frozenset(b"[*?")


@dataclass(frozen=True, slots=True)
class Setting:
    """One parameter; with `change`, an integer that can be set."""

    name: str
    read: Callable[[], object]
    change: Callable[[int], None] | None = None
    least: int = 0
    most: int = (1 << 63) - 1

    @property
    def text(self) -> bytes:
        """Its value as CONFIG GET shows it."""
        return str(self.read()).encode()

    def prepare(self, text: bytes) -> Callable[[], None]:
        """What sets it to this value.

        Raises:
          ValueError: the value is not allowed; the message is Redis'.
        """
        if self.change is None:
            if text.lower() != self.text.lower():
                raise ValueError("can't set immutable config")
            return _nothing
        try:
            value = parse_integer(text)
        except CommandError:
            raise ValueError("argument couldn't be parsed into an integer") from None
        if not self.least <= value <= self.most:
            raise ValueError(f"argument must be between {self.least} and {self.most} inclusive")
        change = self.change
        return lambda: change(value)


class Settings:
    """All parameters of a server."""

    def __init__(self, settings: Sequence[Setting]) -> None:
        """In the order in which they are shown."""
        self._settings = {setting.name.encode(): setting for setting in settings}

    def find(self, patterns: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values of those that match a pattern, or are named in whatever case."""
        found: dict[bytes, bytes] = {}
        for pattern in patterns:
            if _GLOB_MARKS.isdisjoint(pattern):
                setting = self._settings.get(pattern.lower())
                if setting is not None:
                    found[pattern] = setting.text  # under the name that was asked for, as in Redis
                continue
            glob = compile_glob(pattern.lower())
            for name in glob.choose(list(self._settings)):
                found[name] = self._settings[name].text
        return found

    def change(self, words: Sequence[bytes]) -> None:
        """Sets all of these, or none of them.

        Args:
          words: names and values in turn.

        Raises:
          CommandError: Redis' words for the first that cannot be set.
        """
        pairs = list(zip(words[::2], words[1::2], strict=True))
        for name, _ in pairs:
            if name.lower() not in self._settings:
                raise CommandError(
                    b"ERR Unknown option or number of arguments for CONFIG SET - '%b'" % name
                )
        seen: set[bytes] = set()
        changes: list[Callable[[], None]] = []
        for name, text in pairs:
            if name.lower() in seen:
                raise _failed(name, "duplicate parameter")
            seen.add(name.lower())
            try:
                changes.append(self._settings[name.lower()].prepare(text))
            except ValueError as error:
                raise _failed(name, str(error)) from None
        for apply in changes:
            apply()


def fixed(name: str, value: object) -> Setting:
    """A parameter that is as it is."""
    return Setting(name, lambda: value)


def _failed(name: bytes, why: str) -> CommandError:
    return CommandError(
        b"ERR CONFIG SET failed (possibly related to argument '%b') - %b" % (name, why.encode())
    )


def _nothing() -> None:
    """It has this value already."""
