"""The verbs `p4xos switch ...`: programs in P4-16 and what can be asked about them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from p4xos import arguments

if TYPE_CHECKING:
    from p4xos.cli import Verbs


def add_verbs(verbs: Verbs) -> None:
    """Adds `switch` to the command line of p4xos."""
    switch = verbs.add_parser("switch", help="check P4 programs and print them")
    inner = switch.add_subparsers(metavar="VERB", required=True)

    verb = inner.add_parser("check", help="read a program and tell what is wrong with it")
    add_program_flags(verb)
    verb.add_argument(
        "--print", action="store_true", help="print the program as it is read, macros replaced"
    )
    verb.set_defaults(call=_check, parser=verb)


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
