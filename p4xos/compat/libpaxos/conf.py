"""`paxos.conf`, the file that libpaxos programs are started with.

    acceptor ID IP PORT      a ...      the number is not looked at: an id is the position among
    proposer ID IP PORT      p ...      the acceptors, or the proposers, of the file
    replica  ID IP PORT      r ...      both an acceptor and a proposer
    OPTION VALUE                        see `Options`
    # comment

Words are compared without regard to case, as libpaxos does. What it reads past in silence is an
error here: a second value, a number too many, an option given twice with two values, an address
that is none.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple

from p4xos.tables import Address, ConfigError, nearest, read_text

MEMBERS_MAX = 10
"""Acceptors, and proposers, that libpaxos takes."""

Verbosity = Literal["quiet", "error", "info", "debug"]
Backend = Literal["memory", "lmdb"]

_WORD = re.compile(r"\S+")
_SIZE = re.compile(r"(\d{1,15})\s*(kb|mb|gb)?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


class Word(NamedTuple):
    """A word of a line, and the column where it begins, counted from 1."""

    text: str
    column: int


class ConfSyntaxError(ConfigError):
    """A line that cannot be used; file, line and column are told, and what to write."""

    def __init__(self, source: str, line: int, column: int, complaint: str) -> None:
        super().__init__(source, f"line {line}, column {column}", complaint)
        self.line = line
        self.column = column


@dataclass(frozen=True)
class Options:
    """The options, by libpaxos' names with `_` for `-`, at libpaxos' defaults."""

    verbosity: Verbosity = "info"
    tcp_nodelay: bool = True
    learner_catch_up: bool = True
    proposer_timeout: int = 1  # seconds
    proposer_preexec_window: int = 128  # instances
    storage_backend: Backend = "memory"
    acceptor_trash_files: bool = False
    lmdb_sync: bool = False
    lmdb_env_path: str = "/tmp/acceptor"
    lmdb_mapsize: int = 10 << 20  # bytes


@dataclass(frozen=True)
class PaxosConf:
    """A `paxos.conf` that was read."""

    acceptors: tuple[Address, ...] = ()
    """By id."""
    proposers: tuple[Address, ...] = ()
    """By id."""
    options: Options = Options()
    given: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Options that the file names, each with line and column of its value."""
    source: str = field(default="<text>", compare=False)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> PaxosConf:
        """Reads a file.

        Raises:
          ConfigError: it is no good; the message says where and how to mend it.
          OSError: it cannot be read.
        """
        return cls.parse(read_text(Path(path), "name a paxos.conf"), str(path))

    @classmethod
    def parse(cls, text: str, source: str = "<text>") -> PaxosConf:
        """Reads a text; `source` is its name in messages.

        Raises:
          ConfigError: the first problem found; nothing else, whatever the text is.
        """
        reader = _Reader(source)
        for number, line in enumerate(text.splitlines(), 1):
            reader.read(number, line.partition("#")[0])
        return reader.conf()

    def refuse(self, option: str, complaint: str) -> ConfigError:
        """An error about an option's value; at its line where the file gives it."""
        name = option.replace("_", "-")
        if option in self.given:
            return ConfSyntaxError(self.source, *self.given[option], f"{name}: {complaint}")
        return ConfigError(self.source, "", f"{name}, by default: {complaint}")


class _Reader:
    """Collects what the lines say."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._line = 0
        self._acceptors: list[Address] = []
        self._proposers: list[Address] = []
        self._values: dict[str, object] = {}
        self._given: dict[str, tuple[int, int]] = {}

    def read(self, number: int, line: str) -> None:
        """Takes one line, without its comment."""
        self._line = number
        words = [Word(match.group(), match.start() + 1) for match in _WORD.finditer(line)]
        if not words:
            return
        keyword, *values = words
        lists = _MEMBERS.get(keyword.text.lower())
        if lists is not None:
            address = self._address(keyword, values)
            for name in lists:
                self._append(name, address, keyword)
            return
        option = keyword.text.lower().replace("-", "_")
        if option not in _OPTIONS or "_" in keyword.text:
            known = nearest(keyword.text.lower(), [*_KEYWORDS, *map(_spelled, _OPTIONS)])
            raise self._error(keyword, f'"{_short(keyword.text)}" is unknown; {known}')
        self._set(option, keyword, values)

    def conf(self) -> PaxosConf:
        """What was read, whole."""
        if not self._acceptors:
            complaint = "no acceptor and no replica; write one line each: acceptor ID IP PORT"
            raise ConfigError(self._source, "", complaint)
        options = Options(**self._values)  # type: ignore[arg-type]  # each read by its own reader
        return PaxosConf(
            tuple(self._acceptors), tuple(self._proposers), options, self._given, self._source
        )

    def _error(self, word: Word, complaint: str) -> ConfSyntaxError:
        return ConfSyntaxError(self._source, self._line, word.column, complaint)

    def _append(self, name: str, address: Address, keyword: Word) -> None:
        members = self._acceptors if name == "acceptor" else self._proposers
        if len(members) == MEMBERS_MAX:
            complaint = f"one {name} too many; {MEMBERS_MAX} are allowed, as in libpaxos"
            raise self._error(keyword, complaint)
        if address in members:
            raise self._error(
                keyword, f"{address} is {name} {members.index(address)} already; give each its own"
            )
        members.append(address)

    def _address(self, keyword: Word, values: Sequence[Word]) -> Address:
        form = f"write {keyword.text} ID IP PORT"
        if len(values) < 3:
            last = values[-1] if values else keyword
            raise self._error(last, f"the line ends too early; {form}")
        if len(values) > 3:
            raise self._error(values[3], f'"{_short(values[3].text)}" is too much; {form}')
        number, host, port = values
        if not _is_number(number.text):
            raise self._error(number, f'"{_short(number.text)}" is no number; {form}')
        try:
            ipaddress.IPv4Address(host.text)
        except ValueError:
            complaint = f'"{_short(host.text)}" is no IPv4 address, as 192.0.2.1; names are not'
            raise self._error(host, f"{complaint} looked up, as in libpaxos") from None
        if not _is_number(port.text) or not 1 <= int(port.text) <= 65535:
            raise self._error(port, f'"{_short(port.text)}" is no port; allowed is 1 to 65535')
        return Address(host.text, int(port.text))

    def _set(self, option: str, keyword: Word, values: Sequence[Word]) -> None:
        allowed, read = _OPTIONS[option]
        if not values:
            raise self._error(keyword, f"{keyword.text} has no value; allowed is {allowed}")
        text = " ".join(word.text for word in values)
        value = read(text)
        if value is None:
            raise self._error(values[0], f'"{_short(text)}" is found, allowed is {allowed}')
        if self._values.get(option, value) != value:
            line = self._given[option][0]
            raise self._error(values[0], f"{keyword.text} has another value in line {line}")
        self._values[option] = value
        self._given[option] = self._line, values[0].column


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "..."


def _spelled(option: str) -> str:
    return option.replace("_", "-")


def _boolean(text: str) -> object:
    return {"yes": True, "no": False}.get(text.lower())


def _one_of(*words: str) -> Callable[[str], object]:
    return lambda text: text.lower() if text.lower() in words else None


def _count(text: str) -> object:
    return int(text) if _is_number(text) and int(text) else None


def _path(text: str) -> object:
    return text


def _size(text: str) -> object:
    match = _SIZE.fullmatch(text)
    if match is None or not int(match[1]):
        return None
    return int(match[1]) * _UNITS[(match[2] or "").lower()]


_MEMBERS = {
    "a": ("acceptor",), "acceptor": ("acceptor",),
    "p": ("proposer",), "proposer": ("proposer",),
    "r": ("proposer", "acceptor"), "replica": ("proposer", "acceptor"),
}  # fmt: skip
_KEYWORDS = ("acceptor", "proposer", "replica")
_OPTIONS: dict[str, tuple[str, Callable[[str], object]]] = {
    "verbosity": ("quiet, error, info or debug", _one_of("quiet", "error", "info", "debug")),
    "tcp_nodelay": ("yes or no", _boolean),
    "learner_catch_up": ("yes or no", _boolean),
    "proposer_timeout": ("a number of seconds, at least 1", _count),
    "proposer_preexec_window": ("a number of instances, at least 1", _count),
    "storage_backend": ("memory or lmdb", _one_of("memory", "lmdb")),
    "acceptor_trash_files": ("yes or no", _boolean),
    "lmdb_sync": ("yes or no", _boolean),
    "lmdb_env_path": ("a path", _path),
    "lmdb_mapsize": ("a number of bytes, kb, mb or gb", _size),
}
assert set(_OPTIONS) == {option.name for option in fields(Options)}
