"""Expressions on the interpreter against the slow evaluator, and P4-16's own corner cases."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switch.lang import ir
from switch.lang.interpreter import Interpreter, arithmetic
from tests.switch.lang.programs import BOOL, const, program
from tests.switch.lang.slow import evaluate, to_bits, to_number, width_of

VARIABLES: dict[str, ir.Type] = {
    f"meta.{'s' if signed else 'u'}{width}{name}": ir.Bits(width, signed)
    for width in (1, 3, 8, 9, 32, 64, 512)
    for signed in (False, True)
    for name in "ab"
} | {"meta.yes": BOOL, "meta.no": BOOL}
WIDTHS = (1, 3, 8, 9, 32, 64, 512)

WRAPPING: tuple[Any, ...] = ("+", "-", "*", "|+|", "|-|", "&", "|", "^")
COMPARING: tuple[Any, ...] = ("==", "!=", "<", "<=", ">", ">=")


class Expressions:
    """Draws expressions, and values, the ends of a range oftener than by chance."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.pick = self.random.choice

    def value(self, width: int) -> int:
        most = (1 << width) - 1
        ends = [end for end in (0, 1, most >> 1, (most >> 1) + 1, most) if end <= most]
        return self.pick([*ends, self.random.getrandbits(width), self.random.getrandbits(width)])

    def any(self, depth: int) -> ir.Expression:
        if self.random.random() < 0.25:
            return self.bool(depth)
        return self.bits(self.pick(WIDTHS), self.pick((False, True)), depth)

    def bits(self, width: int, signed: bool, depth: int) -> ir.Expression:
        """An expression of just this type."""
        type_, below = ir.Bits(width, signed), depth - 1
        kinds = ["const", "read"]
        if depth:
            kinds += ["unary", "wrap", "shift", "cast", "choice"]
            kinds += [] if signed else ["slice", "divide"]
            kinds += ["concatenate"] if width > 1 else [] if signed else ["from bool"]
        match self.pick(kinds):
            case "read":
                paths = [path for path, each in VARIABLES.items() if each == type_]
                if paths:
                    return ir.Read(self.pick(paths), type_)
            case "unary":
                return ir.Unary(self.pick("-~"), self.bits(width, signed, below), type_)  # type: ignore[arg-type]  # one letter
            case "wrap":
                left, right = (self.bits(width, signed, below) for _ in range(2))
                return ir.Binary(self.pick(WRAPPING), left, right, type_)
            case "shift":
                by = self.bits(self.pick((3, 8, 64)), False, below)
                operator: Any = self.pick(("<<", ">>"))
                return ir.Binary(operator, self.bits(width, signed, below), by, type_)
            case "cast":
                source = self.bits(self.pick(WIDTHS), self.pick((False, True)), below)
                return ir.Cast(source, type_)
            case "choice":
                then, other = (self.bits(width, signed, below) for _ in range(2))
                return ir.Choice(self.bool(below), then, other, type_)
            case "slice":
                low, over = self.random.randrange(6), self.random.randrange(4)
                operand = self.bits(width + low + over, False, below)
                return ir.Slice(operand, low + width - 1, low, type_)
            case "divide":  # by a constant, as the language wants it, never 0
                operator = self.pick(("/", "%"))
                by = const(self.value(width) or 1, width)
                return ir.Binary(operator, self.bits(width, False, below), by, type_)
            case "concatenate":
                split = self.random.randrange(1, width)
                left = self.bits(width - split, signed, below)
                return ir.Binary("++", left, self.bits(split, False, below), type_)
            case "from bool":
                return ir.Cast(self.bool(below), type_)
        return ir.Const(self.value(width), type_)

    def bool(self, depth: int) -> ir.Expression:
        below = depth - 1
        kinds = ["const", "read", "not", "logic", "from bit", "compare", "compare"]
        match self.pick(kinds if depth else kinds[:2]):
            case "read":
                return ir.Read(self.pick(("meta.yes", "meta.no")), BOOL)
            case "not":
                return ir.Unary("!", self.bool(below), BOOL)
            case "logic":
                operator: Any = self.pick(("&&", "||", "==", "!="))
                return ir.Binary(operator, self.bool(below), self.bool(below), BOOL)
            case "from bit":
                return ir.Cast(self.bits(1, False, below), BOOL)
            case "compare":
                width, signed = self.pick(WIDTHS), self.pick((False, True))
                left, right = (self.bits(width, signed, below) for _ in range(2))
                return ir.Binary(self.pick(COMPARING), left, right, BOOL)
        return ir.Const(self.random.randrange(2), BOOL)


def calculator(*expressions: ir.Expression) -> Interpreter:
    """Variables come out of registers, the expressions' values go into `result 0` and so on."""
    values = [
        ir.Cast(each, ir.Bits(1)) if isinstance(each.type, ir.Bool) else each
        for each in expressions
    ]
    reads = tuple(ir.RegisterRead(f"in {path}", path, const(0, 1)) for path in VARIABLES)
    registers = [ir.Register(f"in {path}", width_of(each), 1) for path, each in VARIABLES.items()]
    registers += [
        ir.Register(f"result {number}", width_of(value.type), 1)
        for number, value in enumerate(values)
    ]
    writes = (
        ir.RegisterWrite(f"result {number}", const(0, 1), value)
        for number, value in enumerate(values)
    )
    return Interpreter(
        program(variables=VARIABLES, ingress=(*reads, *writes), registers=tuple(registers))
    )


def calculated(switch: Interpreter, variables: dict[str, int], number: int = 0) -> int:
    for path, value in variables.items():
        switch.write_register(f"in {path}", 0, value)
    switch.process(1, b"")
    return switch.read_register(f"result {number}", 0)


@pytest.mark.parametrize("seed", range(6))
def test_expressions_are_what_the_slow_evaluator_says(seed: int) -> None:
    """Drawn at random: hypothesis would take minutes for as many."""
    draw = Expressions(seed)
    expressions = [draw.any(depth=3) for _ in range(80)]
    switch = calculator(*expressions)
    for _ in range(3):
        variables = {path: draw.value(width_of(type_)) for path, type_ in VARIABLES.items()}
        calculated(switch, variables)
        for number, expression in enumerate(expressions):
            result = switch.read_register(f"result {number}", 0)
            assert result == to_number(evaluate(expression, variables)), (expression, variables)


@pytest.mark.parametrize("operator", [*WRAPPING, *COMPARING, "<<", ">>", "/", "%"])
def test_every_operator_on_all_values_of_three_bits(operator: Any) -> None:
    for signed in (False,) if operator in "/%" else (False, True):
        type_ = ir.Bits(3, signed)
        left = ir.Read(f"meta.{'s' if signed else 'u'}3a", type_)
        shifts = operator in ("<<", ">>")
        right = ir.Read(f"meta.{'s' if signed and not shifts else 'u'}3b", type_)
        result = BOOL if operator in COMPARING else type_
        expression = ir.Binary(operator, left, right, result)
        switch = calculator(expression)
        for a in range(8):
            for b in range(1 if operator in "/%" else 0, 8):
                variables = dict.fromkeys(VARIABLES, 0) | {left.path: a, right.path: b}
                assert calculated(switch, variables) == to_number(evaluate(expression, variables))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (ir.Binary("+", const(255, 8), const(1, 8), ir.Bits(8)), 0),
        (ir.Binary("-", const(0, 32), const(1, 32), ir.Bits(32)), 0xFFFFFFFF),
        (ir.Binary("|+|", const(250, 8), const(10, 8), ir.Bits(8)), 255),
        (ir.Binary("|-|", const(3, 8), const(10, 8), ir.Bits(8)), 0),
        (ir.Binary("<<", const(1, 8), const(0xFFFFFFFF, 32), ir.Bits(8)), 0),
        (ir.Binary("<<", const(1, 8), const(8, 8), ir.Bits(8)), 0),
        (ir.Binary(">>", const(0x80, 8, True), const(1, 8), ir.Bits(8, True)), 0xC0),
        (ir.Binary(">>", const(0x80, 8, True), const((1 << 64) - 1, 64), ir.Bits(8, True)), 0xFF),
        (ir.Binary("<", const(0xFF, 8, True), const(0, 8, True), BOOL), 1),
        (ir.Binary("<", const(0xFF, 8), const(0, 8), BOOL), 0),
        (ir.Binary("++", const(0xA, 4), const(0xB, 4), ir.Bits(8)), 0xAB),
        (ir.Cast(const(0xF0, 8, True), ir.Bits(16, True)), 0xFFF0),
        (ir.Cast(const(0xF0, 8), ir.Bits(16)), 0x00F0),
        (ir.Slice(const(0xABCD, 16), 11, 4, ir.Bits(8)), 0xBC),
        (ir.Unary("-", const(0x80, 8, True), ir.Bits(8, True)), 0x80),
    ],
)
def test_the_corners_of_the_language(expression: ir.Expression, value: int) -> None:
    """P4-16, section 8: wrapping, saturation, shifts by the width and more, signs."""
    variables = dict.fromkeys(VARIABLES, 0)
    assert calculated(calculator(expression), variables) == value
    assert to_number(evaluate(expression, variables)) == value


@pytest.mark.parametrize("operator", ["/", "%"])
def test_a_division_by_zero_is_a_fault_and_yields_zero(operator: Any) -> None:
    left, right = ir.Read("meta.u8a", ir.Bits(8)), ir.Read("meta.u8b", ir.Bits(8))
    where = ir.Where("a.p4", 3, 9)
    switch = calculator(ir.Binary(operator, left, right, ir.Bits(8), where))
    assert calculated(switch, {"meta.u8a": 7, "meta.u8b": 0}) == 0
    (fault,) = switch.statistics.faults
    assert (fault.kind, str(fault)) == ("division", "a.p4:3:9: a division by zero")


def test_a_long_chain_is_no_trouble() -> None:
    """Python bounds how deep brackets nest; what people write stays well below."""
    expression: ir.Expression = ir.Read("meta.u32a", ir.Bits(32))
    for _ in range(90):
        expression = ir.Binary("+", expression, const(1, 32), ir.Bits(32))
    assert calculated(calculator(expression), {"meta.u32a": 5}) == 95


@settings(max_examples=30)
@given(st.binary(max_size=41))
def test_the_internet_checksum_of_a_packet_that_carries_it_is_zero(data: bytes) -> None:
    """RFC 1071: and it is that of the words added up one by one."""
    value, bits = int.from_bytes(data, "big"), len(data) * 8
    total = 0
    padded = data + bytes(len(data) % 2)
    for high, low in zip(padded[::2], padded[1::2], strict=True):
        total += high << 8 | low
        total = (total & 0xFFFF) + (total >> 16)
    checksum = arithmetic.internet_checksum(value, bits)
    assert checksum == total ^ 0xFFFF
    carrying = padded + checksum.to_bytes(2, "big")
    assert arithmetic.internet_checksum(int.from_bytes(carrying, "big"), len(carrying) * 8) == 0


@pytest.mark.parametrize(
    ("algorithm", "value"), [("crc32", 0xCBF43926), ("crc16", 0xBB3D), ("identity", None)]
)
def test_hashes_of_the_usual_check_string(algorithm: str, value: int | None) -> None:
    data = int.from_bytes(b"123456789", "big")
    assert arithmetic.hashed(algorithm, data, 72) == (data if value is None else value)


def test_the_slow_evaluator_itself() -> None:
    assert to_number(to_bits(0x5A, 8)) == 0x5A
    seven_by_two = ir.Binary("/", const(7, 8), const(2, 8), ir.Bits(8))
    assert to_number(evaluate(seven_by_two, {})) == 3
