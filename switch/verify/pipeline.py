"""One packet's way through the whole switch: parser, ingress, egress of one copy, deparser.

The packet is a bit vector as long as the parser can take, and a length; the rest of a longer
packet is payload that no program sees. Multicast makes copies; one of them, any, is followed.
"""

from __future__ import annotations

from dataclasses import dataclass

import z3

from switch.lang import ir
from switch.verify.machine import DECIDED, EGRESS_SPEC, MULTICAST, Machine
from switch.verify.state import FALSE, TRUE, State, both, joined
from switch.verify.terms import Term, Unsupported, constant, matches, symbol

PORT = "standard_metadata.ingress_port"
PARSER_ERROR = "standard_metadata.parser_error"
PACKET_BYTES_MAX = 1514
"""What one Ethernet frame of the usual size holds."""
_STATES_MAX = 64
"""Parser states on one way: a parser that goes round has more, and no formula."""
_REPLICATED = 5
_UNKNOWN = {
    "standard_metadata.enq_timestamp", "standard_metadata.enq_qdepth",
    "standard_metadata.deq_timedelta", "standard_metadata.deq_qdepth",
    "standard_metadata.ingress_global_timestamp", "standard_metadata.egress_global_timestamp",
}  # fmt: skip
"""Of the standard metadata: what the switch itself fills in. All else is 0 at first."""


@dataclass(slots=True)
class Passage:
    """What one packet does, and what becomes of it."""

    machine: Machine
    packet: Term
    """Its first bits, the first on top."""
    length: Term
    """Of the whole packet in bytes, 32 bits."""
    port: Term
    parsed: State
    """Behind the parser."""
    decided: State
    """Behind ingress."""
    left: State
    """What leaves: behind egress and the new checksums."""
    sent: Term
    """Whether a copy leaves."""
    payload: Term
    """Where in the packet, in bits, what the parser left begins; 32 bits."""
    copied_to: Term
    """The port of the group's member that is followed."""

    @property
    def multicast(self) -> Term:
        """The group that ingress sends it to, or 0."""
        return self.decided.values[MULTICAST]

    @property
    def egress_spec(self) -> Term:
        """The port that ingress sends it to, unless it goes to a group."""
        return self.decided.values[EGRESS_SPEC]

    def before(self, register: str, index: Term) -> Term:
        """A register's cell before the packet."""
        return self.machine.registers[register](index)

    def after(self, register: str, index: Term) -> Term:
        """A register's cell behind it."""
        return self.decided.cell(register, index, self.before(register, index))


def passage(program: ir.Program) -> Passage:
    """Runs a packet of which nothing is known through a program."""
    machine = Machine(program)
    length = z3.BitVec("packet.length", 32)
    # A symbol a byte: a formula that fixes one byte fixes it everywhere before the search begins.
    octets = [z3.BitVec(f"packet.{n}", 8) for n in range((_deepest(program) + 15) // 8)]
    packet = z3.Concat(*octets)
    machine.assumptions.append(z3.ULE(length, PACKET_BYTES_MAX))
    start = _first_state(machine, length)
    port = start.values[PORT]
    machine.assumptions += [port != 0, port != ir.DROP_PORT]
    parsed, payload = _Parser(machine, packet, length).run(start)
    state = machine.control(program.verify, parsed.under(TRUE), "verify")
    decided = machine.control(program.ingress, state, "ingress")
    _check_fate(machine, decided)
    copied = _copied(machine, decided)
    left = machine.control(program.egress, copied, "egress")
    sent = both(left.guard, left.values[EGRESS_SPEC] != ir.DROP_PORT)
    left = machine.control(program.update, left.under(sent), "update")
    machine.control(program.deparser, left.under(TRUE), "deparser")
    return Passage(
        machine, packet, length, port, parsed, decided, left, sent, payload,
        copied.values[EGRESS_SPEC],
    )  # fmt: skip


def _first_state(machine: Machine, length: Term) -> State:
    """Before the first byte: v1model's metadata is 0, variables of a control are not set."""
    program = machine.program
    values: dict[str, Term] = {}
    unset: dict[str, Term] = {}
    own = tuple(
        f"{control.name}."
        for control in (program.verify, program.ingress, program.egress, program.update)
    )
    for path, type_ in (ir.STANDARD_METADATA | program.variables).items():
        if path == PORT or path in _UNKNOWN:
            values[path] = symbol(path, type_)
        elif path.startswith(own):
            values[path] = machine.open(path, type_)
            unset[path] = TRUE
        else:
            values[path] = constant(0, type_)
    for header in program.headers.values():
        values[header.valid] = FALSE
        for name, type_ in header.fields:
            values[f"{header.path}.{name}"] = machine.open(f"{header.path}.{name}", type_)
    values["standard_metadata.packet_length"] = length
    values[DECIDED] = FALSE
    valid_of = {
        f"{header.path}.{name}": header.valid
        for header in program.headers.values()
        for name, _ in header.fields
    }
    return State(TRUE, values, unset, valid_of)


def _check_fate(machine: Machine, decided: State) -> None:
    """At the end of ingress: something has said where the packet goes, and only one thing."""
    where = ir.Where(machine.program.name, 1, 1)
    group, port = decided.values[MULTICAST], decided.values[EGRESS_SPEC]
    text = "every packet dropped, sent to a port or sent to a group"
    machine.oblige("fate", where, text, z3.Not(decided.values[DECIDED]))
    text = "no packet both dropped (egress_spec 511) and sent to a group"
    machine.oblige("fate", where, text, z3.And(group != 0, port == ir.DROP_PORT))
    text = "no packet sent to port 0, where those go that nobody decides on"
    machine.oblige("fate", where, text, z3.And(group == 0, port == 0))


def _copied(machine: Machine, decided: State) -> State:
    """One copy at the beginning of egress; its guard says that there is one."""
    group, port = decided.values[MULTICAST], decided.values[EGRESS_SPEC]
    state = decided.under(z3.Or(group != 0, port != ir.DROP_PORT))
    member = machine.fresh("multicast.port", ir.Bits(9))
    machine.assumptions += [member != 0, member != ir.DROP_PORT]
    rid = machine.fresh("multicast.rid", ir.Bits(16))
    out = z3.If(group != 0, member, port)
    state.values["standard_metadata.egress_port"] = state.values[EGRESS_SPEC] = out
    state.values["standard_metadata.egress_rid"] = z3.If(group != 0, rid, 0)
    state.values["standard_metadata.instance_type"] = z3.If(
        group != 0, z3.BitVecVal(_REPLICATED, 32), z3.BitVecVal(0, 32)
    )
    return state


class _Parser:
    """Follows every way through the parser; on each of them all offsets are numbers."""

    def __init__(self, machine: Machine, packet: Term, length: Term) -> None:
        self.machine, self.packet, self.length = machine, packet, length
        self.ends: list[tuple[Term, State]] = []
        self.offsets: list[tuple[Term, int]] = []
        self.offset = 0
        machine.lookahead = self._bits
        machine.extract = self._extract

    def run(self, start: State) -> tuple[State, Term]:
        """Where all ways meet, behind the parser, and where the payload begins."""
        program = self.machine.program
        self.machine.stage = "parser"
        self._state(next(iter(program.states)), start, 0, 0)
        self.machine.lookahead = None
        parsed = joined(self.ends, TRUE)
        assert parsed is not None, "a parser ends somewhere"
        payload = z3.BitVecVal(self.offsets[-1][1], 32)
        for guard, offset in self.offsets[:-1]:
            payload = z3.If(guard, z3.BitVecVal(offset, 32), payload)
        return parsed, payload

    def _state(self, name: str, state: State, offset: int, depth: int) -> None:
        self.offset = offset
        if name in ("accept", "reject"):  # v1model goes on either way
            self._end(state)
            return
        here = self.machine.program.states[name]
        if depth > _STATES_MAX:
            raise Unsupported(here.where, f"a parser that passes {_STATES_MAX} states")
        after = state
        for statement in here.body:
            after = self.machine.body((statement,), self._seen_ahead(statement, after))
        after = self._seen_ahead(here.select, after)
        offset = self.offset
        keys = [self.machine.value(e, after, here.where) for e in here.select]
        left = TRUE
        for case in here.cases:
            found = [matches(m, key) for m, key in zip(case.matches, keys, strict=True)]
            taken = both(left, z3.And(found) if found else TRUE)
            self._state(case.state, after.under(taken), offset, depth + 1)
            self.offset = offset
            if all(match.kind == "any" for match in case.matches):
                return
            left = both(left, z3.Not(z3.And(found)))
        self._reject(after.under(left), "NoMatch")

    def _end(self, state: State) -> None:
        self.ends.append((state.guard, state))
        self.offsets.append((state.guard, self.offset))

    def _reject(self, state: State, error: str) -> None:
        """v1model lets ingress have the packet all the same."""
        number = self.machine.program.errors.index(error)
        state.values[PARSER_ERROR] = z3.BitVecVal(number, 32)
        self._end(state)

    def _bits(self, width: int) -> Term:
        top = self.packet.size() - self.offset
        return z3.Extract(top - 1, top - width, self.packet)

    def _seen_ahead(self, node: object, state: State) -> State:
        """The way on from where a statement or select looks at what lies ahead."""
        width = _lookahead(node)
        return self._long_enough(state, width) if width else state

    def _long_enough(self, state: State, bits: int) -> State:
        """The way on; the other one, of a packet that is too short, ends here."""
        need = (self.offset + bits + 7) // 8
        enough = z3.UGE(self.length, need)
        self._reject(state.under(z3.Not(enough)), "PacketTooShort")
        return state.under(enough)

    def _extract(self, s: ir.Extract | ir.Advance | ir.Verify, state: State) -> State:
        match s:
            case ir.Verify():
                holds = self.machine.value(s.condition, state, s.where)
                self._reject(state.under(z3.Not(holds)), s.error)
                return state.under(holds)
            case ir.Advance():
                bits = z3.simplify(self.machine.value(s.bits, state, s.where))
                if not z3.is_bv_value(bits):
                    raise Unsupported(s.where, "an advance that depends on the packet")
                state = self._long_enough(state, bits.as_long())
                self.offset += bits.as_long()
                return state
            case ir.Extract():
                header = self.machine.program.headers[s.header]
                state = self._long_enough(state, header.bits)
                for name, type_ in header.fields:
                    state.values[f"{header.path}.{name}"] = self._bits(type_.width)
                    self.offset += type_.width
                state.values[header.valid] = TRUE
                return state


def _deepest(program: ir.Program) -> int:
    """The most bits that any way through the parser looks at."""

    def from_state(name: str, depth: int) -> int:
        if name not in program.states or depth > _STATES_MAX:
            return 0
        state = program.states[name]
        own = ahead = 0
        for statement in state.body:
            match statement:
                case ir.Extract():
                    own += program.headers[statement.header].bits
                case ir.Advance(bits=ir.Const(value=value)):
                    own += value
                case ir.Assign() | ir.Verify():
                    ahead = max(ahead, own + _lookahead(statement))
        ahead = max([ahead, *(own + _lookahead(e) for e in state.select)])
        return max([ahead, *(own + from_state(case.state, depth + 1) for case in state.cases)])

    return from_state(next(iter(program.states)), 0)


def _lookahead(node: object) -> int:
    """The widest lookahead in an expression or statement."""
    if isinstance(node, ir.Lookahead):
        return node.type.width
    if isinstance(node, tuple):
        return max((_lookahead(part) for part in node), default=0)
    names = getattr(type(node), "__dataclass_fields__", ())
    return max((_lookahead(getattr(node, name)) for name in names), default=0)
