"""A report for people, for scripts, and its counter-examples as files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from p4xos.wire import HEADER_BYTES, HEADER_STRUCT, Type
from switch.verify.counterexample import Counterexample
from switch.verify.messages import MESSAGE_OFFSET
from switch.verify.verifier import Finding, Report


def described(report: Report) -> str:
    """A line a property, and for what is broken the packet that shows it."""
    lines: list[str] = []
    for finding in report.findings:
        lines.append(f"{_result(finding):<10} {finding.name}: {finding.text}")
        if finding.counterexample is not None:
            lines += _shown(finding, finding.counterexample)
    lines += [f"assumed    {assumption}" for assumption in report.assumptions]
    held = sum(finding.holds for finding in report.findings)
    sums = f"{held} hold, {len(report.broken)} broken, {len(report.undecided)} undecided"
    lines.append(f"{report.program}: {sums}; {report.seconds:.1f} s")
    return "\n".join(lines)


def as_json(report: Report) -> dict[str, object]:
    """For scripts."""
    return {
        "program": report.program,
        "seconds": round(report.seconds, 2),
        "broken": len(report.broken),
        "undecided": len(report.undecided),
        "findings": [
            {
                "property": finding.name,
                "text": finding.text,
                "where": str(finding.where),
                "result": _result(finding).lower(),
                **(
                    {}
                    if finding.counterexample is None
                    else {
                        "counterexample": finding.counterexample.as_json(),
                        "interpreter_agrees": not finding.differences,
                    }
                ),
            }
            for finding in report.findings
        ],
        "assumptions": report.assumptions,
    }


def save(report: Report, directory: Path) -> list[Path]:
    """Each counter-example that a vector can say, as a file of its own; returns which."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, finding in enumerate(report.broken):
        if finding.vector is not None:
            path = directory / f"{report.program}_{finding.name}_{number}.vectors"
            path.write_text(finding.vector, encoding="utf-8")
            paths.append(path)
    return paths


def _result(finding: Finding) -> str:
    if finding.counterexample is not None:
        return "BROKEN"
    return "UNDECIDED" if finding.undecided else "holds"


def _shown(finding: Finding, found: Counterexample) -> Iterator[str]:
    yield f"        at {finding.where}"
    yield f"        packet on port {found.port}: {_message(found.packet)}"
    registers = (f"{name}[{at}]={value:#x}" for (name, at), value in found.registers.items())
    yield f"        registers: {' '.join(registers)}"
    for rule in found.rules:
        keys = "default" if rule.matches is None else " ".join(hex(m.value) for m in rule.matches)
        given = ", ".join(map(hex, rule.call.arguments))
        yield f"        table {rule.table}: {keys} -> {rule.call.action}({given})"
    port = found.expected.port
    yield "        nothing leaves" if port is None else f"        leaves by port {port}"
    if finding.differences:
        yield f"        the interpreter does otherwise: {'; '.join(finding.differences)}"
    else:
        yield "        the interpreter does the same"


def _message(packet: bytes) -> str:
    """In the protocol's words where it is a message, then all of it."""
    data = packet[MESSAGE_OFFSET:]
    words = ""
    if len(data) >= HEADER_BYTES and data[1] in set(Type):
        fields = HEADER_STRUCT.unpack_from(data)
        names = ("instance", "round", "vround", "sender", "length", "incarnation", "low")
        values = " ".join(f"{n}={v}" for n, v in zip(names, fields[4:], strict=True))
        words = f"{Type(fields[1]).name} {values}; "
    return words + packet.hex()
