"""The command line of the store: kvstore node|cluster|shell."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from p4xos import arguments
from p4xos.config import Cluster
from p4xos.creation import DEFAULT_BASE_PORT
from p4xos.processes import NODE_LOCK, claimed


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    return arguments.run(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = arguments.Parser(prog="kvstore", description="A replicated key-value store (RESP).")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    verb = verbs.add_parser("node", help="run one node of a cluster with its store")
    arguments.add_cluster_flag(verb)
    verb.add_argument("--name", required=True, help="the node's name in the cluster file")
    verb.set_defaults(call=_node, parser=verb)

    verb = verbs.add_parser("cluster", help="create a cluster here, or find it, and run all nodes")
    arguments.add_launcher_flags(verb)
    verb.set_defaults(call=_cluster, parser=verb)

    verb = verbs.add_parser(
        "shell", help="type commands to a store, or run one: kvstore shell -p 7101 GET key"
    )
    verb.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    verb.add_argument(
        "-p", "--port", type=_port, default=DEFAULT_BASE_PORT, help="default: %(default)s"
    )
    # REMAINDER: what follows the first word is the command's own, dashes and all.
    verb.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="COMMAND",
        help="one command; without it commands are read from standard input",
    )  # fmt: skip
    verb.set_defaults(call=_shell, parser=verb)
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1 to 65535")
    return int(text)


# What a verb needs is imported when it is called: `--help` and errors stay quick.


def _node(flags: argparse.Namespace) -> None:
    from kvstore import node

    cluster = Cluster.load(flags.cluster)
    lock = cluster.data_directory(flags.name) / NODE_LOCK
    with claimed(lock, f"node {flags.name}"):
        node.run(cluster, flags.name)


def _cluster(flags: argparse.Namespace) -> None:
    from kvstore.cluster import StoreApplication
    from p4xos.launcher import launch

    launch(flags.directory, arguments.wanted(flags), StoreApplication())


def _shell(flags: argparse.Namespace) -> int | None:
    from kvstore import shell

    return shell.run(flags.host, flags.port, flags.words)
