"""The verbs `p4xos switch ...`: programs in P4-16 and what can be asked about them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from p4xos import arguments

if TYPE_CHECKING:
    from p4xos.cli import Verbs


def add_verbs(verbs: Verbs) -> None:
    """Adds `switch` to the command line of p4xos."""
    switch = verbs.add_parser("switch", help="check P4 programs, run them, tell what they cost")
    inner = switch.add_subparsers(metavar="VERB", required=True)

    verb = inner.add_parser("check", help="read a program and tell what is wrong with it")
    add_program_flags(verb)
    verb.add_argument(
        "--print", action="store_true", help="print the program as it is read, macros replaced"
    )
    verb.set_defaults(call=_check, parser=verb)

    verb = inner.add_parser("run", help="run a program on UDP sockets, or on a file of packets")
    add_program_flags(verb)
    verb.add_argument(
        "--config", metavar="FILE", type=Path,
        help="ports, multicast groups, entries of tables, registers (TOML)",
    )  # fmt: skip
    verb.add_argument(
        "--port", metavar="N=LOCAL,PEER", action="append", default=[],
        help="a port's two ends, as in 1=127.0.0.1:9001,127.0.0.1:9101: each frame is the payload "
        "of a datagram; may be given several times",
    )  # fmt: skip
    verb.add_argument(
        "--group",
        metavar="N=PORT[:RID],...",
        action="append",
        default=[],
        help="a multicast group's copies; may be given several times",
    )
    verb.add_argument(
        "--packets", metavar="FILE", type=Path,
        help="run the packets of this file instead, and compare what leaves with what it expects",
    )  # fmt: skip
    verb.add_argument("--json", action="store_true", help="one line of JSON, for scripts")
    verb.set_defaults(call=_run, parser=verb)

    verb = inner.add_parser("bill", help="tell what a program costs on a target")
    add_program_flags(verb)
    verb.add_argument(
        "--target", metavar="NAME|FILE", default="bmv2",
        help="bmv2, tofino, or a profile (TOML); default: %(default)s",
    )  # fmt: skip
    verb.add_argument("--json", action="store_true", help="one line of JSON, for scripts")
    verb.set_defaults(call=_bill, parser=verb)

    verb = inner.add_parser("verify", help="prove a program right, or show a packet that it fails")
    add_program_flags(verb)
    verb.add_argument(
        "--property", metavar="NAME", action="append", default=[],
        help="decide this one only; may be given several times",
    )  # fmt: skip
    verb.add_argument(
        "--save", metavar="DIRECTORY", type=Path,
        help="write counter-examples there as vectors, for every data plane to run",
    )  # fmt: skip
    verb.add_argument("--json", action="store_true", help="one line of JSON, for scripts")
    verb.set_defaults(call=_verify, parser=verb)


def add_program_flags(parser: argparse.ArgumentParser) -> None:
    """FILE and --define NAME=VALUE."""
    parser.add_argument("file", metavar="FILE", type=Path, help="a P4-16 program for v1model")
    parser.add_argument(
        "--define", metavar="NAME=VALUE", action="append", default=[], type=_define,
        help="a macro, as p4c takes it with -D; may be given several times",
    )  # fmt: skip


def _define(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is no macro: expected NAME or NAME=VALUE")
    return name, value or "1"


# What a verb needs is imported when it is called: `--help` and errors stay quick.


def _check(flags: argparse.Namespace) -> None:
    from switch.lang import printer
    from switch.lang.lower import lower
    from switch.lang.parser import parse

    tree = parse(flags.file, dict(flags.define))
    program = lower(tree)
    if flags.print:
        print(printer.program(tree), end="")
    else:
        arguments.print_data(
            {
                "program": program.name,
                "headers": len(program.headers),
                "tables": len(program.tables),
                "actions": len(program.actions),
                "registers": len(program.registers),
            },
            as_json=False,
        )


def _run(flags: argparse.Namespace) -> int:
    from switch.lang import load
    from switch.lang.interpreter import Interpreter
    from switch.running import exchanges, serving, settings

    read = settings.read(flags.config, flags.port, flags.group)
    switch = Interpreter(load(flags.file, dict(flags.define)))
    read.apply(switch)
    if flags.packets is not None:
        return exchanges.report(exchanges.run(switch, flags.packets), flags.json)
    arguments.print_data(serving.serve(switch, read), flags.json)
    return arguments.DONE


def _bill(flags: argparse.Namespace) -> None:
    from switch import bill
    from switch.lang import load

    cost = bill.bill(load(flags.file, dict(flags.define)), bill.load(flags.target))
    if flags.json:
        arguments.print_data(cost.to_json(), as_json=True)
    else:
        print(bill.described(cost))


def _verify(flags: argparse.Namespace) -> int:
    from switch.lang import load

    try:
        from switch.verify import telling, verifier
    except ImportError as error:
        raise ValueError(f"{error}: the solver is not installed: pip install z3-solver") from None
    program = load(flags.file, {"VERIFY": "1", **dict(flags.define)})
    report = verifier.verify(program, flags.property)
    if flags.json:
        arguments.print_data(telling.as_json(report), as_json=True)
    else:
        print(telling.described(report))
    if flags.save is not None:
        for path in telling.save(report, flags.save):
            print(path, file=sys.stderr)
    return arguments.FAILED if report.broken or report.undecided else arguments.DONE
