"""What the command lines share: flags, exit codes, and errors as one message each.

Exit codes: 0 done, 1 failed, 2 misused (wrong flags, a bad cluster file).
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from p4xos.creation import DEFAULT_BASE_PORT, DEFAULT_NODES, Wanted
from p4xos.errors import P4xosError
from p4xos.logs import FORMAT_VARIABLE, LOG_FORMATS

DONE, FAILED, MISUSED = 0, 1, 2

DEFAULT_DIRECTORY = Path("data")


class Parser(argparse.ArgumentParser):
    """Long flags in full, and one line about a wrong one."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **{**options, "allow_abbrev": False})  # type: ignore[arg-type]  # handed through

    def error(self, message: str) -> NoReturn:
        """One message that suggests the nearest flag, exit code 2."""
        flags = [flag for action in self._actions for flag in action.option_strings]
        unknown = re.findall(r"--[\w-]+", message) if "unrecognized" in message else []
        close = [match for flag in unknown for match in get_close_matches(flag, flags, n=1)]
        suggestion = f"; did you mean {' '.join(close)}?" if close else ""
        self.exit(MISUSED, f"{self.prog}: {message}{suggestion}; see {self.prog} --help\n")

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]  # overloads
        """As argparse, but the verb's own parser reports what it does not know."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            reporter: Parser = getattr(parsed, "parser", self)
            reporter.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed


def add_cluster_flag(parser: argparse.ArgumentParser) -> None:
    """--cluster FILE."""
    parser.add_argument(
        "--cluster", metavar="FILE", type=Path, required=True, help="the cluster file (TOML)"
    )


def add_log_flag(parser: argparse.ArgumentParser) -> None:
    """--log-format text|json."""
    parser.add_argument(
        "--log-format", choices=LOG_FORMATS,
        help=f"json: one object a line; default: what {FORMAT_VARIABLE} says, else text",
    )  # fmt: skip


def add_launcher_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the verb `cluster`; an existing cluster is only compared with them."""
    parser.add_argument(
        "--directory", type=Path, default=DEFAULT_DIRECTORY, help="default: %(default)s"
    )
    parser.add_argument("--nodes", type=int, help=f"odd; default: {DEFAULT_NODES}")
    parser.add_argument(
        "--base-port",
        type=int,
        help=f"ports are counted from it, 0: any free ones; default: {DEFAULT_BASE_PORT}",
    )
    parser.add_argument("--storage", choices=("disk", "memory"), help="default: disk")
    parser.add_argument(
        "--data-plane", metavar="NAME",
        help="what runs acceptors and numbers requests: numpy, p4, bmv2, xdp, or auto (xdp where "
        "the machine can, else numpy); default: numpy",
    )  # fmt: skip
    parser.add_argument(
        "--network", metavar="NAME",
        help="for xdp and auto, what the nodes are put on: star (a bridge, each acceptor behind a "
        "link of its own) or leaf-spine (switches between hosts); default: star",
    )  # fmt: skip
    add_log_flag(parser)


def wanted(arguments: argparse.Namespace) -> Wanted:
    """What the flags of `add_launcher_flags` say; nodes that are started inherit the log's form."""
    if arguments.log_format is not None:
        os.environ[FORMAT_VARIABLE] = arguments.log_format
    return Wanted(
        arguments.nodes, arguments.base_port, arguments.storage, arguments.data_plane,
        arguments.network,
    )  # fmt: skip


def print_data(data: Mapping[str, object], as_json: bool) -> None:
    """Data for scripts as one line of JSON, for people as a line a key."""
    if as_json:
        print(json.dumps(data))
    else:
        for key, value in data.items():
            print(f"{key}: {value if isinstance(value, str) else json.dumps(value)}")


def run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Run the verb that the arguments name; what goes wrong is one message on stderr.

    Args:
      parser: sets `call`, a function of the parsed arguments, for each verb.
      arguments: without the program's name; None takes the process's own.

    Returns:
      The exit code.
    """
    try:
        parsed = parser.parse_args(arguments)
    except SystemExit as leaving:  # argparse has printed help or its message
        return int(leaving.code or 0)
    call: Callable[[argparse.Namespace], int | None] = parsed.call
    try:
        return call(parsed) or DONE
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except P4xosError as error:
        return _complain(parser, str(error), FAILED)
    except OSError as error:
        return _complain(parser, _in_words(error), FAILED)
    except ValueError as error:  # a ConfigError, or what a flag said
        return _complain(parser, str(error), MISUSED)


def _complain(parser: argparse.ArgumentParser, message: str, code: int) -> int:
    print(f"{parser.prog}: {message}", file=sys.stderr)
    return code


_MENDS = {
    errno.ENOENT: "check the name",
    errno.EACCES: "change its permissions, or run as the user who owns it",
    errno.ENOSPC: "the disk is full: free some space, nothing was overwritten",
    errno.EDQUOT: "your quota is used up: free some space, nothing was overwritten",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EROFS: "name a directory on a disk that can be written",
    errno.ENOTDIR: "name a directory",
    errno.EISDIR: "name a file",
    errno.ECONNREFUSED: "nothing listens there: start the node, or name another",
}


def _in_words(error: OSError) -> str:
    """The path, what the system says, and what to do about it."""
    path = f"{error.filename}: " if error.filename is not None else ""
    mend = f"; {_MENDS[error.errno]}" if error.errno in _MENDS else ""
    return f"{path}{error.strerror or error}{mend}"
