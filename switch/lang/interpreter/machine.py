"""A v1model switch with one program loaded: packets in, packets out, and the control plane's view.

What happens to a packet is what bmv2 does: the parser (a packet that it rejects goes on, with
`parser_error` set), checksums verified, ingress; then, where `mcast_grp` is not 0, a copy for each
member of that group, else nothing where `egress_spec` is 511, else one to that port; for each copy
egress, which may drop it, checksums updated, the deparser, and behind the headers what the parser
left.

The program is run as generated Python (`source`). What it must not do (an index out of bounds,
an assert that fails) is counted in `faults` and never harms the switch itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from switch.lang import ir
from switch.lang.interpreter import arithmetic
from switch.lang.interpreter.faults import AssertionFailed, Fault
from switch.lang.interpreter.generated import generate
from switch.lang.interpreter.statements import Statements
from switch.lang.interpreter.tables import Table, Variables

REPLICATED = 5
"""bmv2's `instance_type` of a copy for multicast."""


class Exited(Exception):
    """The statement `exit`: ends a control, from within an action too."""


class Rejected(Exception):
    """The parser's state `reject`."""

    def __init__(self, error: int) -> None:
        self.error = error


Control = Callable[[Variables, int, int], None]
"""Of the generated module: its variables, the payload as a number, the payload's bits."""


def _run(control: Control, v: Variables, payload: int, left: int) -> None:
    try:
        control(v, payload, left)
    except Exited:
        return


class Copy(NamedTuple):
    """One member of a multicast group."""

    port: int
    rid: int = 0
    """What egress sees as `egress_rid`."""


class Cells:
    """An indexed counter."""

    def __init__(self, size: int) -> None:
        self.packets = [0] * size
        self.bytes = [0] * size

    def reset(self) -> None:
        """All zero."""
        self.packets[:] = self.bytes[:] = [0] * len(self.packets)

    def count(self, index: int, length: int) -> None:
        """One packet more."""
        self.packets[index] += 1
        self.bytes[index] += length


class Statistics(NamedTuple):
    """What became of packets."""

    packets_in: int
    packets_out: int
    dropped: int
    """By ingress, by egress, or by a multicast group without members."""
    parser_errors: dict[str, int]
    """Packets that the parser rejected, by error; they are not dropped by that alone."""
    faults: dict[Fault, int]


class Interpreter:
    """One switch. Not for several threads at once."""

    def __init__(self, program: ir.Program, *, strict: bool = False) -> None:
        """Loaded, with the state of a switch that was just switched on.

        Args:
          program: what it runs.
          strict: an `assert` that fails raises AssertionFailed; it is counted either way.
        """
        self.program = program
        self.strict = strict
        self.registers = {name: [0] * each.size for name, each in program.registers.items()}
        """By name; the lists stay the same ones. Values are ints in [0, 2**width)."""
        self.counters = {
            name: Cells(each.size) for name, each in program.counters.items() if not each.table
        }
        self.groups: dict[int, tuple[Copy, ...]] = {}
        """Multicast groups; 0 is none."""
        statements = Statements(program)
        self.source = generate(statements)
        self._places = statements.faults
        self._module = self._namespace(statements)
        exec(compile(self.source, f"<{program.name}>", "exec"), self._module)  # our own text
        names = statements.names
        runs = {name: self._module[names("action", name)] for name in program.actions}
        self.tables = {name: Table(program, each, runs) for name, each in program.tables.items()}
        """By name."""
        self._module |= {names("table", name): each for name, each in self.tables.items()}
        self._parse, self._deparse = self._module["parse"], self._module["deparse"]
        self._verify, self._update = self._module["verify"], self._module["update"]
        self._ingress, self._egress = self._module["ingress"], self._module["egress"]
        variables = ir.STANDARD_METADATA | program.variables
        self._first: Variables = dict.fromkeys(variables, 0)
        self._in = self._out = self._dropped = 0
        self._parser_errors: Counter[int] = Counter()
        self._faults: Counter[int] = Counter()

    def _namespace(self, statements: Statements) -> dict[str, Any]:
        """The globals of the generated module, but for its tables."""
        names = statements.names
        helpers = {name: value for name, value in vars(arithmetic).items() if callable(value)}
        return helpers | {
            "Exited": Exited, "Rejected": Rejected, "fault": self._fault,
            "lookahead": self._lookahead, "advanced": self._advanced,
            **{names("register", name): cells for name, cells in self.registers.items()},
            **{names("counter", name): cells for name, cells in self.counters.items()},
        }  # fmt: skip

    def reset(self) -> None:
        """Off and on again: everything is as at first, statistics too."""
        for cells in self.registers.values():
            cells[:] = [0] * len(cells)
        for counter in self.counters.values():
            counter.reset()
        for table in self.tables.values():
            table.reset()
        self.groups.clear()
        self._in = self._out = self._dropped = 0
        self._parser_errors.clear()
        self._faults.clear()

    def set_group(self, group: int, copies: Iterable[Copy]) -> None:
        """Which ports a multicast group reaches, each with its `egress_rid`; group 0 is none."""
        if not 0 < group < 1 << 16:
            raise ValueError(f"multicast group {group}: it must be 1 to 65535")
        self.groups[group] = tuple(copies)

    def write_register(self, name: str, index: int, value: int) -> None:
        """One cell; ValueError where it is not there or the value does not fit."""
        self.read_register(name, index)
        width = self.program.registers[name].width
        if not 0 <= value < 1 << width:
            raise ValueError(f"{value} does not fit into register {name}, of bit<{width}>")
        self.registers[name][index] = value

    def read_register(self, name: str, index: int) -> int:
        """One cell; ValueError where it is not there."""
        cells = self.registers.get(name)
        if cells is None:
            raise ValueError(f"no register {name}: there is {', '.join(self.registers) or 'none'}")
        if not 0 <= index < len(cells):
            raise ValueError(f"register {name} has cells 0 to {len(cells) - 1}, not {index}")
        return cells[index]

    @property
    def statistics(self) -> Statistics:
        """Since it was switched on."""
        errors = {self.program.errors[error]: n for error, n in self._parser_errors.items()}
        faults: Counter[Fault] = Counter()
        for place, n in self._faults.items():  # several may be of one line
            faults[self._places[place]] += n
        return Statistics(self._in, self._out, self._dropped, errors, dict(faults))

    def process(self, port: int, packet: bytes, now_us: int = 0) -> list[tuple[int, bytes]]:
        """One packet through the switch.

        Args:
          port: where it comes in.
          packet: all of it.
          now_us: the switch's clock, which programs see as timestamps.

        Returns:
          What leaves: port and packet, in the order of the group's members.
        """
        self._in += 1
        v = self._first.copy()
        v["standard_metadata.ingress_port"] = port
        v["standard_metadata.packet_length"] = len(packet)
        v["standard_metadata.ingress_global_timestamp"] = now_us & (1 << 48) - 1
        raw = int.from_bytes(packet, "big")
        left = self._parse(v, raw, len(packet) * 8)
        if v["standard_metadata.parser_error"]:
            self._parser_errors[v["standard_metadata.parser_error"]] += 1
        payload = raw & (1 << left) - 1
        _run(self._verify, v, payload, left)
        _run(self._ingress, v, payload, left)
        copies = self._copies(v)
        out = []
        for copy in copies:
            copied = v if len(copies) == 1 else v.copy()
            sent = self._send(copied, copy, payload, left, now_us)
            if sent is not None:
                out.append((copy.port, sent))
        self._out += len(out)
        if not out:
            self._dropped += 1
        return out

    def _copies(self, v: Variables) -> tuple[Copy, ...]:
        """Whom ingress sends the packet to: multicast wins over drop."""
        if group := v["standard_metadata.mcast_grp"]:
            v["standard_metadata.instance_type"] = REPLICATED
            return self.groups.get(group, ())
        if (port := v["standard_metadata.egress_spec"]) == ir.DROP_PORT:
            return ()
        return (Copy(port),)

    def _send(self, v: Variables, copy: Copy, payload: int, left: int, now_us: int) -> bytes | None:
        """A copy through egress and the deparser; None where egress drops it."""
        v["standard_metadata.egress_port"] = v["standard_metadata.egress_spec"] = copy.port
        v["standard_metadata.egress_rid"] = copy.rid
        v["standard_metadata.egress_global_timestamp"] = now_us & (1 << 48) - 1
        _run(self._egress, v, payload, left)
        if v["standard_metadata.egress_spec"] == ir.DROP_PORT:
            return None
        _run(self._update, v, payload, left)
        headers, bits = self._deparse(v)
        bits += left
        whole: int = (headers << left | payload) << -bits % 8
        return whole.to_bytes((bits + 7) // 8, "big")

    def _fault(self, place: int) -> int:
        """Counted; 0 is what a division by zero yields."""
        self._faults[place] += 1
        fault = self._places[place]
        if self.strict and fault.kind == "assert":
            raise AssertionFailed(fault)
        return 0

    def _lookahead(self, raw: int, left: int, width: int) -> int:
        return raw >> self._advanced(left, width) & (1 << width) - 1

    def _advanced(self, left: int, bits: int) -> int:
        if left < bits:
            raise Rejected(self.program.errors.index("PacketTooShort"))
        return left - bits
