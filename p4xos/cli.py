"""The command line of the log: p4xos node|role|cluster|status|recover|...; see `build_parser`.

Packages that stand above this one add verbs by an entry point of the group COMMANDS: a function
that is handed what `add_subparsers` gave, and adds parsers to it as `build_parser` does.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from p4xos import arguments
from p4xos.compat import libpaxos_command
from p4xos.config import MOVABLE, ROLE_NAMES, Cluster
from p4xos.processes import NODE_LOCK, claimed

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[arguments.Parser]
    AddVerbs = Callable[[Verbs], None]

COMMANDS = "p4xos.commands"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    return arguments.run(build_parser(installed()), argv)


def installed() -> list[AddVerbs]:
    """What adds the verbs of other packages."""
    return [entry.load() for entry in entry_points(group=COMMANDS)]


def build_parser(others: Iterable[AddVerbs] = ()) -> argparse.ArgumentParser:
    """All verbs and flags; docs/configuration.md is made from those of this package."""
    parser = arguments.Parser(prog="p4xos", description="A replicated log: Paxos, batched.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    verb = verbs.add_parser("node", help="run a node of a cluster with all its roles")
    arguments.add_cluster_flag(verb)
    verb.add_argument("--name", required=True, help="the node's name in the cluster file")
    arguments.add_log_flag(verb)
    verb.set_defaults(call=_node, parser=verb)

    verb = verbs.add_parser("role", help="run one role alone in this process")
    verb.add_argument("role", choices=ROLE_NAMES)
    verb.add_argument("id", type=int, help="its id in the cluster file")
    arguments.add_cluster_flag(verb)
    arguments.add_log_flag(verb)
    verb.set_defaults(call=_role, parser=verb)

    verb = verbs.add_parser("cluster", help="create a cluster here, or find it, and run all nodes")
    arguments.add_launcher_flags(verb)
    verb.set_defaults(call=_cluster, parser=verb)

    verb = verbs.add_parser("status", help="tell how the nodes are")
    arguments.add_cluster_flag(verb)
    verb.add_argument("--json", action="store_true", help="one line of JSON, for scripts")
    verb.set_defaults(call=_status, parser=verb)

    verb = verbs.add_parser("recover", help="tell what was chosen in an instance")
    verb.add_argument("instance", type=int)
    arguments.add_cluster_flag(verb)
    verb.add_argument("--json", action="store_true", help="one line of JSON, for scripts")
    verb.set_defaults(call=_recover, parser=verb)

    verb = verbs.add_parser(
        "reconfigure", help="move a running cluster to another data plane, under load"
    )
    arguments.add_cluster_flag(verb)
    verb.add_argument(
        "--data-plane", metavar="NAME", required=True,
        help="where acceptors and coordinators go: numpy, p4 or bmv2",
    )  # fmt: skip
    verb.add_argument(
        "--role", action="append", choices=MOVABLE,
        help="move these alone; again for each; default: both",
    )  # fmt: skip
    verb.add_argument("--json", action="store_true", help="one line of JSON, for scripts")
    verb.set_defaults(call=_reconfigure, parser=verb)

    verb = verbs.add_parser("discovery", help="run the service that Chunnels find one another by")
    verb.add_argument("--socket", metavar="FILE", type=Path, required=True, help="where it listens")
    verb.add_argument(
        "--state", metavar="FILE", type=Path,
        help="what must outlive it; default: beside the socket, ending in .state",
    )  # fmt: skip
    verb.add_argument(
        "--capacity", metavar="NAME=COUNT", action="append", default=[],
        help="a resource that is always there; may be given several times",
    )
    verb.add_argument("--show", action="store_true", help="tell what the running one knows instead")
    verb.add_argument("--json", action="store_true", help="with --show: one line of JSON")
    arguments.add_log_flag(verb)
    verb.set_defaults(call=_discovery, parser=verb)

    verb = verbs.add_parser("secret", help="draw the secret of a cluster that has none")
    arguments.add_cluster_flag(verb)
    verb.set_defaults(call=_secret, parser=verb)

    libpaxos_command.add_verbs(verbs)
    for add_verbs in others:
        add_verbs(verbs)
    return parser


# What a verb needs is imported when it is called: `--help` and errors stay quick.


def _node(flags: argparse.Namespace) -> None:
    from p4xos.chunnels.group import starting

    cluster = Cluster.load(flags.cluster)
    lock = cluster.data_directory(flags.name) / NODE_LOCK
    with claimed(lock, f"node {flags.name}"):
        starting.run(cluster, flags.name, flags.log_format)


def _role(flags: argparse.Namespace) -> None:
    from p4xos.chunnels.group import starting

    cluster = Cluster.load(flags.cluster)
    name = cluster.member(flags.role, flags.id).node
    lock = cluster.data_directory(name) / f"{flags.role}-{flags.id}.pid"
    with claimed(lock, f"{flags.role} {flags.id}"):
        starting.run_role(cluster, flags.role, flags.id, flags.log_format)


def _cluster(flags: argparse.Namespace) -> None:
    from p4xos.launcher import LogApplication, launch

    launch(flags.directory, arguments.wanted(flags), LogApplication())


def _status(flags: argparse.Namespace) -> None:
    from p4xos import inquiries

    found = inquiries.status(Cluster.load(flags.cluster))
    arguments.print_data(found if flags.json else inquiries.described(found), flags.json)


def _recover(flags: argparse.Namespace) -> None:
    from p4xos import inquiries

    found = inquiries.recover(Cluster.load(flags.cluster), flags.instance)
    arguments.print_data(found, flags.json)


def _reconfigure(flags: argparse.Namespace) -> None:
    from p4xos import inquiries

    roles = flags.role or MOVABLE
    found = inquiries.reconfigure(Cluster.load(flags.cluster), flags.data_plane, roles)
    arguments.print_data(found.data() if flags.json else inquiries.moves(found), flags.json)


def _discovery(flags: argparse.Namespace) -> None:
    from p4xos.chunnels.discovery import process

    if flags.json and not flags.show:
        raise ValueError("--json is for --show: the service itself writes a log (--log-format)")
    if flags.show:
        arguments.print_data(process.show(flags.socket), flags.json)
    else:
        capacities = process.capacities(flags.capacity)
        process.run(flags.socket, flags.state, capacities, flags.log_format)


def _secret(flags: argparse.Namespace) -> None:
    from p4xos import secret

    cluster = Cluster.load(flags.cluster)
    path = secret.path_of(cluster)
    secret.create(path)
    print(f"{path}: copy it beside the cluster file of every machine, with mode 0600, and start")
    print("its nodes again, one at a time: those with the secret and those without do not help one")
    print('another to catch up. When all have it, put secret = "file" into [cluster]: nothing will')
    print("then start without it.")
