"""What a switch that runs by itself is told: a TOML file, and flags that add to it.

    [ports.1]                      # packets are frames, each the payload of one datagram
    local = "127.0.0.1:9001"       # of this process
    peer = "127.0.0.1:9101"        # the other end of the wire; nobody else is heard

    [groups.1]                     # a multicast group: a copy for each port
    ports = [1, 2]
    rids = [1, 2]                  # what egress sees as egress_rid; 0 where left out

    [[entry]]
    table = "ingress.senders"
    match = [1, "0x0a000000/8", "5..9", "0x10&&&0xf0", "_"]     # for each key one
    action = "ingress.forward"
    arguments = [2]

    [[default]]
    table = "ingress.senders"
    action = "ingress.drop"

    [registers]
    "ingress.low" = [1]            # cells from 0 on; the others stay 0

Tables, actions and registers may be named by their last part where that is clear.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from p4xos.tables import Address, Table, list_of_tables, parse_toml
from switch.lang import ir
from switch.lang.interpreter import Copy, Interpreter
from switch.running.matches import to_match

PORTS_MAX = ir.DROP_PORT - 1

_DEFAULT = ("table", "action", "arguments")
_ENTRY = (*_DEFAULT, "match")


@dataclass(frozen=True, slots=True)
class Wire:
    """A port's two ends."""

    local: Address
    peer: Address


@dataclass(slots=True)
class Settings:
    """All of it, read but not yet compared with a program."""

    wires: dict[int, Wire] = field(default_factory=dict)
    """By port."""
    groups: dict[int, tuple[Copy, ...]] = field(default_factory=dict)
    _source: str = "flags"
    _data: Mapping[str, object] = field(default_factory=dict)

    def apply(self, switch: Interpreter) -> None:
        """Groups, entries, defaults and registers; ValueError for what the program has not."""
        for group, copies in self.groups.items():
            switch.set_group(group, copies)
        for entry in list_of_tables(self._data, self._source, "entry", _ENTRY):
            name = _named(entry, "table", switch.tables)
            matches = tuple(_matches(entry, switch.program.tables[name].keys))
            switch.tables[name].add(matches, _call(entry, switch.program))
        for entry in list_of_tables(self._data, self._source, "default", _DEFAULT):
            name = _named(entry, "table", switch.tables)
            switch.tables[name].set_default(_call(entry, switch.program))
        registers = self._data.get("registers", {})
        assert isinstance(registers, dict), "checked when it was read"
        for name, values in registers.items():
            full = full_name(name, switch.registers)
            for index, value in enumerate(values):
                switch.write_register(full, index, value)


def read(path: Path | None, ports: Iterable[str], groups: Iterable[str]) -> Settings:
    """The file, if there is one, and flags: `1=LOCAL,PEER` and `1=PORT[:RID],...`.

    Raises:
      ValueError: naming the file or flag, what is wrong with it and how to mend it.
    """
    settings = Settings() if path is None else _from_file(path)
    for flag in ports:
        port, (local, peer) = _flag("--port", flag, "1=127.0.0.1:9001,127.0.0.1:9101", 2)
        whole = Table(f"--port {flag}", "", {"local": local, "peer": peer}, ("local", "peer"))
        settings.wires[port] = Wire(whole.address("local"), whole.address("peer"))
    for flag in groups:
        group, copies = _flag("--group", flag, "1=1,2:5", None)
        settings.groups[group] = tuple(_copy(flag, copy) for copy in copies)
    for port in settings.wires:
        if not 0 <= port <= PORTS_MAX:
            raise ValueError(f"port {port}: a port is a number from 0 to {PORTS_MAX}")
    return settings


def full_name(name: str, known: Iterable[str]) -> str:
    """The one of the known names that this is, or is the last part of; else ValueError."""
    known = list(known)
    found = [each for each in known if each == name] or [
        each for each in known if each.endswith(f".{name}")
    ]
    if len(found) == 1:
        return found[0]
    what = f"it may be {' or '.join(found)}" if found else f"known are {', '.join(known) or 'none'}"
    raise ValueError(f"{name}: the program has no such name; {what}")


def _from_file(path: Path) -> Settings:
    source = str(path)
    data = parse_toml(path.read_text(encoding="utf-8", errors="replace"), source)
    known = ("ports", "groups", "entry", "default", "registers")
    Table(source, "the file", data, known)
    settings = Settings(_source=source, _data=data)
    for port, table in _numbered(data, source, "ports", ("local", "peer")):
        settings.wires[port] = Wire(table.address("local"), table.address("peer"))
    for group, table in _numbered(data, source, "groups", ("ports", "rids")):
        ports = _numbers(table, "ports")
        rids = _numbers(table, "rids") if table.has("rids") else [0] * len(ports)
        if len(rids) != len(ports):
            raise table.wrong("rids", "as many numbers as there are ports", "give each port one")
        settings.groups[group] = tuple(map(Copy, ports, rids))
    registers = data.get("registers", {})
    whole = Table(
        source, "[registers]", registers, registers if isinstance(registers, dict) else ()
    )
    assert isinstance(registers, dict)
    for name in registers:
        _numbers(whole, name)
    return settings


def _numbered(
    data: Mapping[str, object], source: str, name: str, known: tuple[str, ...]
) -> Iterator[tuple[int, Table]]:
    """The tables [name.1], [name.2] and so on."""
    tables = data.get(name, {})
    whole = Table(source, f"[{name}]", tables, tables if isinstance(tables, dict) else ())
    assert isinstance(tables, dict)
    for key, table in tables.items():
        if not key.isdecimal():
            raise whole.error(key, f"allowed is a number; write it as [{name}.1]")
        yield int(key), Table(source, f"[{name}.{key}]", table, known)


def _numbers(table: Table, key: str) -> list[int]:
    values = table.items(key, "a list of whole numbers")
    if not all(isinstance(each, int) and not isinstance(each, bool) for each in values):
        raise table.wrong(key, "a list of whole numbers", "write them without quotes")
    return [each for each in values if isinstance(each, int)]


def _named(entry: Table, key: str, known: Iterable[str]) -> str:
    try:
        return full_name(entry.text(key, "a name of the program"), known)
    except ValueError as error:
        raise entry.error(key, str(error)) from None


def _call(entry: Table, program: ir.Program) -> ir.ActionCall:
    arguments = _numbers(entry, "arguments") if entry.has("arguments") else []
    return ir.ActionCall(_named(entry, "action", program.actions), tuple(arguments))


def _matches(entry: Table, keys: tuple[ir.Key, ...]) -> Iterator[ir.Match]:
    values = entry.items("match", "a list with one match for each key")
    if len(values) != len(keys):
        raise entry.wrong("match", f"a list of {len(keys)} matches", "give each key one")
    for key, value in zip(keys, values, strict=True):
        try:
            yield to_match(value, key)
        except ValueError as error:
            raise entry.error("match", str(error)) from None


def _flag(name: str, flag: str, example: str, parts: int | None) -> tuple[int, list[str]]:
    """`NUMBER=part,part`."""
    number, equals, rest = flag.partition("=")
    found = rest.split(",") if rest else []
    if not (equals and number.isdecimal()) or (parts is not None and len(found) != parts):
        raise ValueError(f"{name} {flag}: write it as {name} {example}")
    return int(number), found


def _copy(flag: str, text: str) -> Copy:
    port, _, rid = text.partition(":")
    if not (port.isdecimal() and (rid or "0").isdecimal()):
        raise ValueError(f"--group {flag}: {text!r} is no PORT or PORT:RID; write --group 1=1,2:5")
    return Copy(int(port), int(rid or "0"))
