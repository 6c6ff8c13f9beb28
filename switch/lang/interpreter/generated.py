"""A whole program as the text of a Python module.

parse(v, raw, left) -> left          the states; what is left is the payload
verify, update(v, payload, left)     checksums
ingress, egress(v, payload, left)
deparse(v) -> out, bits              the headers as one number
action_...(v), apply_...(v)          of the actions and tables
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from switch.lang import ir
from switch.lang.interpreter.statements import Statements, indented

STATES_MAX = 1024
"""States that one packet may pass: a parser that goes round without end rejects with
ParserTimeout. Far more than a packet has headers."""

PARSER_ERROR = "standard_metadata.parser_error"


def generate(statements: Statements) -> str:
    """The module's text; what can go wrong in it is then in `statements.faults`."""
    program = statements.program
    lines = [f"# {program.name}: made from the program; v holds its variables by path.", ""]
    for header in program.headers.values():
        lines += [f"{statements.names('zeros', header.path)} = {_zeros(header)!r}"]
    for action in program.actions.values():
        lines += _function(
            f"{statements.names('action', action.name)}(v)", statements.block(action.body)
        )
    for table in program.tables.values():
        lines += _function(f"{statements.names('apply', table.name)}(v)", _apply(statements, table))
    lines += _function("parse(v, raw, left)", _parse(statements))
    for name, control in (
        ("verify", program.verify), ("ingress", program.ingress),
        ("egress", program.egress), ("update", program.update),
    ):  # fmt: skip
        lines += _function(f"{name}(v, payload, left)", statements.block(control.body))
    result = "return out, bits"
    body = statements.block(program.deparser.body, leave=result)
    lines += _function("deparse(v)", ["out = bits = 0", *body, result])
    return "\n".join(lines) + "\n"


def _function(signature: str, body: Sequence[str]) -> list[str]:
    return ["", "", f"def {signature}:", *indented(body)]


def _zeros(header: ir.Header) -> dict[str, int]:
    fields = {f"{header.path}.{name}": 0 for name, _ in header.fields}
    return fields | {header.valid: 1}


def _apply(statements: Statements, table: ir.Table) -> list[str]:
    keys = [statements.expressions.stored(key.expression) for key in table.keys]
    python = statements.names("table", table.name)
    return [
        f"found = {python}.lookup(({''.join(f'{key}, ' for key in keys)}))",
        "v.update(found.arguments)",
        "found.run(v)",
        "return found",
    ]


def _parse(statements: Statements) -> list[str]:
    program = statements.program
    timeout = program.errors.index("ParserTimeout")
    lines = [f"for _ in range({STATES_MAX}):"]
    for number, state in enumerate(program.states.values()):
        body = [*statements.block(state.body), *_transition(statements, state)]
        lines += indented([f"{'elif' if number else 'if'} state == {state.name!r}:"])
        lines += indented(indented(body))
    lines += [f"raise Rejected({timeout})  # ParserTimeout"]
    first = next(iter(program.states))
    return [
        f"state = {first!r}",
        "try:",
        *indented(lines),
        "except Rejected as rejected:",
        f"    v[{PARSER_ERROR!r}] = rejected.error",
        "return left",
    ]


def _transition(statements: Statements, state: ir.State) -> Iterator[str]:
    for number, expression in enumerate(state.select):
        yield f"key{number} = {statements.expressions.stored(expression)}"
    word = "if"
    for case in state.cases:
        tests = [
            test
            for number, match in enumerate(case.matches)
            if (test := _test(f"key{number}", match))
        ]
        go = _go(statements.program, case.state)
        if not tests:  # what stands behind it is never reached
            yield from [go] if word == "if" else ["else:", f"    {go}"]
            return
        yield f"{word} {' and '.join(tests)}:"
        yield f"    {go}"
        word = "elif"
    no_match = f"raise Rejected({statements.program.errors.index('NoMatch')})  # NoMatch"
    yield from [no_match] if word == "if" else ["else:", f"    {no_match}"]


def _go(program: ir.Program, state: str) -> str:
    if state == "accept":
        return "return left"
    if state == "reject":  # explicitly: there is no error to tell
        return f"raise Rejected({program.errors.index('NoError')})  # reject"
    return f"state = {state!r}"


def _test(key: str, match: ir.Match) -> str:
    """Whether a key matches, or nothing for always."""
    match match.kind:
        case "exact":
            return f"{key} == {match.value}"
        case "ternary" | "lpm":
            return f"{key} & {hex(match.mask)} == {match.value & match.mask}"
        case "range":
            return f"{match.value} <= {key} <= {match.high}"
        case "any":
            return ""
