"""TOML tables read key by key with precise complaints, and written again.

A message names the file, the table, the key, what was found, what is allowed and how to mend it:
`data/cluster.toml: [[acceptor]] number 2, "address": found "127.0.0.1", allowed is ...`.
Line numbers are left out: TOML readers do not keep them, and the names are found by searching.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import math
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

TEXT_BYTES_MAX = 1 << 20
"""Of a file that people write: such have some kilobytes."""
_FOUND_CHARACTERS_MAX = 60  # a message quotes so much of a wrong value at most


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says how to mend it."""

    def __init__(self, source: str, where: str, complaint: str) -> None:
        super().__init__(f"{source}: {where}: {complaint}" if where else f"{source}: {complaint}")
        self.source = source
        self.where = where


class Address(NamedTuple):
    """An IPv4 address and a port, in the order that sockets take them."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def read_text(path: Path, mend: str, bytes_max: int = TEXT_BYTES_MAX) -> str:
    """The text of a file that people write.

    Args:
      path: where it is.
      mend: what to do about one that is another: "name a cluster file".
      bytes_max: more is some other file.

    Raises:
      ConfigError: it is too long, or no UTF-8.
      OSError: it cannot be read; it carries the path.
    """
    with path.open("rb") as file:
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        most = f"{bytes_max >> 20} MiB" if bytes_max >= 1 << 20 else f"{bytes_max >> 10} KiB"
        raise ConfigError(str(path), "", f"larger than {most}; {mend}")
    try:
        return content.decode()
    except UnicodeDecodeError:
        complaint = f"not a text in UTF-8; {mend}, or save it as UTF-8"
        raise ConfigError(str(path), "", complaint) from None


def quoted(found: object) -> str:
    """A found value as the file would write it, cut to a readable length."""
    if isinstance(found, (dict, list)):
        return "a table" if isinstance(found, dict) else "a list"
    if isinstance(found, int) and abs(found) >= 1 << 64:  # str() refuses thousands of digits
        return "a number of more than 64 bits"
    text = _toml_value(found)
    return text if len(text) <= _FOUND_CHARACTERS_MAX else text[:_FOUND_CHARACTERS_MAX] + "..."


def nearest(name: str, known: Collection[str]) -> str:
    """What to do about an unknown name: the known one that resembles it, or all of them."""
    close = get_close_matches(name, known, n=1)
    return f'did you mean "{close[0]}"?' if close else f"known are {', '.join(sorted(known))}"


class Table:
    """One table of a file: takes its keys one at a time, each checked."""

    def __init__(self, source: str, where: str, data: object, known: Collection[str]) -> None:
        """Refuses what is no table, or has a key that is not in `known`."""
        self.source = source
        self.where = where
        if not isinstance(data, dict):
            raise self.error("", f"found {quoted(data)}, allowed is a table; write it as {where}")
        self._data: dict[str, object] = data
        for key in self._data:
            if key not in known:
                raise self.error(key, f"this key is unknown; {nearest(key, known)}")

    def error(self, key: str, complaint: str) -> ConfigError:
        """The error to raise about this key, or about the whole table when it is empty."""
        where = f"{self.where}, {json.dumps(key, ensure_ascii=False)}" if key else self.where
        return ConfigError(self.source, where, complaint)

    def has(self, key: str) -> bool:
        """Whether the key is given."""
        return key in self._data

    def wrong(self, key: str, allowed: str, mend: str) -> ConfigError:
        """The error about a value that is not allowed."""
        found = quoted(self._data[key])
        return self.error(key, f"found {found}, allowed is {allowed}; {mend}")

    def _get(self, key: str, allowed: str) -> object:
        if key not in self._data:
            raise self.error(key, f"the key is missing, allowed is {allowed}; add it")
        return self._data[key]

    def integer(self, key: str, lowest: int, highest: int, mend: str = "change it") -> int:
        """A whole number in [lowest, highest]."""
        allowed = f"a whole number from {lowest} to {highest}"
        value = self._get(key, allowed)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(key, allowed, "write it without quotes and without a point")
        if not lowest <= value <= highest:
            raise self.wrong(key, allowed, mend)
        return value

    def seconds(self, key: str, lowest: float, highest: float) -> float:
        """A time in seconds in [lowest, highest]."""
        allowed = f"a number of seconds from {lowest:g} to {highest:g}"
        value = self._get(key, allowed)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self.wrong(key, allowed, "write it as a number without quotes")
        if not lowest <= value <= highest:  # false for a NaN too
            raise self.wrong(key, allowed, "change it, or leave the key out for the default")
        return float(value)

    def text(self, key: str, allowed: str) -> str:
        """A string; what is in it is for the caller to check."""
        value = self._get(key, allowed)
        if not isinstance(value, str):
            raise self.wrong(key, allowed, "write it in double quotes")
        return value

    def items(self, key: str, allowed: str) -> Sequence[object]:
        """A list; what is in it is for the caller to check."""
        value = self._get(key, allowed)
        if not isinstance(value, list):
            raise self.wrong(key, allowed, "write it in brackets")
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """One of a few strings."""
        allowed = " or ".join(f'"{choice}"' for choice in choices)
        value = self.text(key, allowed)
        if value not in choices:
            raise self.wrong(key, allowed, "choose one of them")
        return value

    def address(self, key: str) -> Address:
        """An IPv4 address and port, written "127.0.0.1:7131".

        Host names are refused: a datagram is accepted by comparing its source with this address
        (docs/PROTOCOL.md, section 1), and a name may mean another address tomorrow.
        """
        allowed = 'an IPv4 address and a port, as in "127.0.0.1:7131"'
        value = self.text(key, allowed)
        host, colon, port = value.rpartition(":")
        if not colon:
            raise self.wrong(key, allowed, "add a colon and the port")
        try:
            parsed = ipaddress.IPv4Address(host)
        except ValueError:
            mend = "write the number of the interface, no host name and no IPv6"
            raise self.wrong(key, allowed, mend) from None
        if parsed.is_unspecified or parsed.is_multicast or host == "255.255.255.255":
            mend = "write the one address of the machine at which the others reach it"
            raise self.wrong(key, allowed, mend)
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
            raise self.wrong(key, allowed, "the port is a number from 1 to 65535")
        return Address(str(parsed), int(port))


def parse_toml(text: str, source: str) -> dict[str, object]:
    """The tables of a TOML text.

    Raises:
      ConfigError: whatever the text is, nothing else.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        complaint = f"this is not TOML: {error}; mend that line (https://toml.io has the rules)"
        raise ConfigError(source, "", complaint) from None
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, a date that does not exist, brackets without end.
        complaint = f"this cannot be read: {error}; look for an endless number or bracket"
        raise ConfigError(source, "", complaint) from None


def list_of_tables(
    data: Mapping[str, object], source: str, name: str, known: Collection[str]
) -> Iterator[Table]:
    """The tables [[name]] of a file in their order; none when there are none."""
    entries = data.get(name, [])
    if not isinstance(entries, list):
        complaint = f"found {quoted(entries)}, allowed is a list; write each as [[{name}]]"
        raise ConfigError(source, name, complaint)
    for number, entry in enumerate(entries, start=1):
        yield Table(source, f"[[{name}]] number {number}", entry, known)


def _toml_text(text: str) -> str:
    # JSON's escapes are TOML's, but TOML escapes DEL as well.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_value(value: object) -> str:
    """A value as TOML on one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _toml_text(value)
        case int():  # str() refuses thousands of digits, which TOML can only have in hex
            return str(value) if value < 1 << 64 else hex(value)
        case float():
            return repr(value) if math.isfinite(value) else str(value)
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case list() | tuple():
            return f"[{', '.join(map(_toml_value, value))}]"
        case dict():
            pairs = (f"{_toml_text(key)} = {_toml_value(item)}" for key, item in value.items())
            return f"{{{', '.join(pairs)}}}"
        case _:
            raise AssertionError(f"no TOML value: {value!r}")


def _toml_key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else _toml_text(key)


def write_table(header: str, values: Mapping[str, object], remarks: Mapping[str, str]) -> str:
    """One table as text, a key on each line.

    Args:
      header: as written, "[cluster]" or "[[node]]".
      values: keys and values in order; None leaves the key out.
      remarks: a remark to write behind a key.
    """
    lines = [header]
    for key, value in values.items():
        if value is not None:
            remark = f"  # {remarks[key]}" if key in remarks else ""
            lines.append(f"{_toml_key(key)} = {_toml_value(value)}{remark}")
    return "\n".join(lines) + "\n"
