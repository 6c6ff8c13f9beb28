"""Files of packets: what goes in, and what must come out.

    # a comment
    ! ingress.low 0 = 5          a register's cell is written
    > 1 0102 0a0b                a packet in hex comes in at port 1
    < 7 0102 0a0b                this leaves by port 7
    > 1 03
    < nothing
    = ingress.low 0 = 5          a register's cell holds this

The signs are those of the vectors of tests/vectors. Packets leave in the order given. Without any
`<` line behind a `>` line nothing is compared: the file is then a question, and what is printed
the answer.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from p4xos import arguments
from switch.lang.interpreter import Interpreter
from switch.running.settings import PORTS_MAX, full_name

Packet = tuple[int, bytes]
_CELL = re.compile(r"(\S+)\s+(\w+)\s*=\s*(\w+)")


class PacketsError(ValueError):
    """A file of packets that cannot be read, with its line."""

    def __init__(self, path: Path, line: int, message: str) -> None:
        super().__init__(f"{path}:{line}: {message}")


class Outcome(NamedTuple):
    """Of a whole file."""

    lines: list[str]
    """What happened, as lines of the same form."""
    differences: list[str]
    """What the file says that did not happen."""


def run(switch: Interpreter, path: Path) -> Outcome:
    """The file's packets through the switch, in their order.

    Raises:
      PacketsError: the file is wrong.
    """
    return _Run(switch, path).run()


def report(outcome: Outcome, as_json: bool) -> int:
    """Prints what happened, differences on stderr or with it as JSON; the exit code."""
    if as_json:
        arguments.print_data(outcome._asdict(), as_json=True)
    else:
        for line in outcome.lines:
            print(line)
        for difference in outcome.differences:
            print(difference, file=sys.stderr)
    return arguments.FAILED if outcome.differences else arguments.DONE


class _Run:
    def __init__(self, switch: Interpreter, path: Path) -> None:
        self.switch, self.path, self.line = switch, path, 0
        self.outcome = Outcome([], [])
        self.asked = 0  # the line of the last packet in
        self.out: list[Packet] = []
        self.expected: list[Packet] | None = None  # nothing was said

    def run(self) -> Outcome:
        text = self.path.read_text(encoding="utf-8", errors="replace")
        for self.line, line in enumerate(text.splitlines(), start=1):
            sign, rest = line[:1], line[1:].partition("#")[0].strip()
            if sign in ("<", "") or line.lstrip().startswith("#"):
                if sign == "<":
                    self._expect(rest)
                continue
            self._compare()
            if sign == ">":
                packet, self.asked = self._packet(rest), self.line
                self.out = self.switch.process(*packet)
                self.outcome.lines.extend([told(">", packet), *_answers(self.out)])
            elif sign in "!=":
                self._cell(sign, rest)
            else:
                raise self._error(f"found {line!r}, expected a line that begins with > < ! = or #")
        self._compare()
        return self.outcome

    def _expect(self, rest: str) -> None:
        self.expected = self.expected or []
        if rest != "nothing":
            self.expected.append(self._packet(rest))

    def _compare(self) -> None:
        if self.expected is not None and self.expected != self.out:
            wanted, found = (list(_answers(each)) for each in (self.expected, self.out))
            self.outcome.differences.append(
                f"{self.path}:{self.asked}: expected {'; '.join(wanted)}, found {'; '.join(found)}"
            )
        self.expected, self.out = None, []

    def _packet(self, rest: str) -> Packet:
        port, _, digits = rest.partition(" ")
        try:
            packet = int(port), bytes.fromhex(digits)
        except ValueError:
            raise self._error(f"found {rest!r}, expected a port and hex digits") from None
        if not 0 <= packet[0] <= PORTS_MAX:
            raise self._error(f"found port {packet[0]}, expected 0 to {PORTS_MAX}")
        return packet

    def _cell(self, sign: str, rest: str) -> None:
        parts = _CELL.fullmatch(rest)
        try:
            if parts is None:
                raise ValueError(f"found {rest!r}, expected NAME INDEX = VALUE")
            name = full_name(parts[1], self.switch.registers)
            index, value = int(parts[2], 0), int(parts[3], 0)
            if sign == "!":
                self.switch.write_register(name, index, value)
                return
            held = self.switch.read_register(name, index)
        except ValueError as error:
            raise self._error(str(error)) from None
        if held != value:
            self.outcome.differences.append(
                f"{self.path}:{self.line}: expected {name} {index} = {value}, found {held}"
            )

    def _error(self, message: str) -> PacketsError:
        return PacketsError(self.path, self.line, message)


def told(sign: str, packet: Packet) -> str:
    """A packet's line."""
    return f"{sign} {packet[0]} {packet[1].hex()}".rstrip()


def _answers(out: list[Packet]) -> Iterator[str]:
    if not out:
        yield "< nothing"
    yield from (told("<", packet) for packet in out)
