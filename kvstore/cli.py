"""The command line of the store: kvstore node, cluster, create, status, backup and the others."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvstore.users import PASSWORD_VARIABLE, RIGHTS
from p4xos import arguments
from p4xos.config import Cluster
from p4xos.creation import DEFAULT_BASE_PORT, Wanted
from p4xos.processes import NODE_LOCK, claimed

if TYPE_CHECKING:
    import ssl


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    return arguments.run(build_parser(), argv)


def build_parser() -> argparse.ArgumentParser:
    """All verbs and flags; docs/configuration.md is made from it."""
    parser = arguments.Parser(prog="kvstore", description="A replicated key-value store (RESP).")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    verb = verbs.add_parser("node", help="run one node of a cluster with its store")
    arguments.add_cluster_flag(verb)
    verb.add_argument("--name", required=True, help="the node's name in the cluster file")
    verb.add_argument(
        "--join", action="store_true",
        help="its data are lost: begin with an empty directory and fetch them from the others",
    )  # fmt: skip
    arguments.add_log_flag(verb)
    verb.set_defaults(call=_node, parser=verb)

    verb = verbs.add_parser("cluster", help="create a cluster here, or find it, and run all nodes")
    arguments.add_launcher_flags(verb)
    verb.set_defaults(call=_cluster, parser=verb)

    verb = verbs.add_parser("create", help="create a cluster of several machines; run nothing")
    verb.add_argument(
        "--at", action="append", required=True, metavar="NAME=ADDRESS",
        help="a node and the IPv4 address of its machine; again for each node",
    )  # fmt: skip
    verb.add_argument(
        "--directory", type=Path, required=True, help="gets the cluster file and the nodes' own"
    )
    verb.add_argument(
        "--base-port", type=int,
        help=f"ports are counted from it on every machine; default: {DEFAULT_BASE_PORT}",
    )  # fmt: skip
    verb.add_argument("--storage", choices=("disk", "memory"), help="default: disk")
    verb.set_defaults(call=_create, parser=verb)

    verb = verbs.add_parser("status", help="tell how the nodes and their stores are")
    arguments.add_cluster_flag(verb)
    verb.add_argument("--json", action="store_true", help="one line of JSON, for scripts")
    verb.add_argument(
        "--hash", action="store_true", help="instead: compare the states of all replicas"
    )
    verb.set_defaults(call=_status, parser=verb)

    verb = verbs.add_parser("top", help="watch all nodes: rounds, lag, drops, load, latency")
    arguments.add_cluster_flag(verb)
    verb.add_argument("--once", action="store_true", help="one interval, then end")
    verb.add_argument("--json", action="store_true", help="a line of JSON an interval, for scripts")
    verb.add_argument(
        "--interval", type=_seconds, default=1.0, metavar="SECONDS", help="default: %(default)s"
    )
    verb.set_defaults(call=_top, parser=verb)

    verb = verbs.add_parser("backup", help="copy the state of a running cluster")
    arguments.add_cluster_flag(verb)
    verb.add_argument(
        "--to", type=Path, required=True, metavar="PATH",
        help="a new directory, or one file when the name ends in .tar",
    )  # fmt: skip
    verb.add_argument("--node", help="whose replica; default: one that does not coordinate")
    verb.set_defaults(call=_backup, parser=verb)

    verb = verbs.add_parser(
        "rebuild", help="when most acceptors have forgotten: back up the newest state that is left"
    )
    arguments.add_cluster_flag(verb)
    verb.add_argument(
        "--to", type=Path, required=True, metavar="PATH", help="as for kvstore backup"
    )
    verb.add_argument(
        "--accept-loss", action="store_true",
        help="go on, though acknowledged writes may be missing; without it, only say which",
    )  # fmt: skip
    verb.set_defaults(call=_rebuild, parser=verb)

    verb = verbs.add_parser("verify", help="check a backup: checksums, keys, state hash")
    verb.add_argument("backup", type=Path, metavar="BACKUP", help="a directory or a .tar file")
    verb.set_defaults(call=_verify, parser=verb)

    verb = verbs.add_parser("restore", help="make a backup the beginning of a new cluster")
    verb.add_argument("backup", type=Path, metavar="BACKUP", help="a directory or a .tar file")
    place = verb.add_mutually_exclusive_group(required=True)
    place.add_argument(
        "--cluster", metavar="FILE", type=Path, help="the file of a cluster that has never run"
    )
    place.add_argument("--directory", type=Path, help="create a cluster there, on this machine")
    verb.add_argument("--nodes", type=int, help="with --directory; odd; default: 3")
    verb.add_argument(
        "--base-port", type=int, help="with --directory; as for kvstore cluster"
    )
    verb.add_argument(
        "--node", action="append", default=[], metavar="NAME",
        help="with --cluster: a node of this machine, again for each; default: all are",
    )  # fmt: skip
    verb.set_defaults(call=_restore, parser=verb)

    verb = verbs.add_parser(
        "check", help="use a running cluster, and tell whether its answers are linearizable"
    )
    source = verb.add_mutually_exclusive_group(required=True)
    source.add_argument("--cluster", metavar="FILE", type=Path, help="the cluster file (TOML)")
    source.add_argument(
        "--address", action="append", metavar="HOST:PORT",
        help="instead: where a node serves RESP; again for each",
    )  # fmt: skip
    source.add_argument(
        "--replay", action="append", metavar="FILE", type=Path,
        help="instead: judge a history that was recorded; again for each of its files",
    )  # fmt: skip
    verb.add_argument(
        "--seconds", type=_seconds, help="clients run for so long; default: 10, or --operations"
    )
    verb.add_argument("--operations", type=int, metavar="COUNT", help="clients do so many")
    verb.add_argument("--clients", type=int, help="at the same time; default: 8")
    verb.add_argument("--keys", type=int, help="in use at the same time; default: 16")
    verb.add_argument("--seed", type=int, help="of what clients do; default: drawn, and told")
    verb.add_argument(
        "--patience", type=_seconds, metavar="SECONDS", dest="patience_s",
        help="an answer that takes longer is unknown; default: 15",
    )  # fmt: skip
    verb.add_argument(
        "--history", metavar="FILE", type=Path, help="gets all that was done, as lines of JSON"
    )
    verb.add_argument(
        "--prefix", metavar="TEXT",
        help="of keys that several checks of one moment share; they are not removed",
    )  # fmt: skip
    verb.add_argument(
        "--first-client", type=int, metavar="NUMBER",
        help="clients are numbered from it; different for checks that share keys",
    )  # fmt: skip
    _add_admission_flags(verb)
    verb.add_argument("--json", action="store_true", help="one line of JSON, for scripts")
    verb.set_defaults(call=_check, parser=verb)

    verb = verbs.add_parser(
        "shell", help="type commands to a store, or run one: kvstore shell -p 7101 GET key"
    )
    verb.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    verb.add_argument(
        "-p", "--port", type=_port, default=DEFAULT_BASE_PORT, help="default: %(default)s"
    )
    _add_admission_flags(verb)
    # REMAINDER: what follows the first word is the command's own, dashes and all.
    verb.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="COMMAND",
        help="one command; without it commands are read from standard input",
    )  # fmt: skip
    verb.set_defaults(call=_shell, parser=verb)

    verb = verbs.add_parser("users", help="change or check the file of users of the client port")
    verb.add_argument("action", choices=("add", "remove", "list", "check"), help="what to do")
    verb.add_argument("user", nargs="?", metavar="NAME", help="whom to add or remove")
    place = verb.add_mutually_exclusive_group(required=True)
    place.add_argument("--file", type=Path, help="the users file; add makes it")
    place.add_argument(
        "--cluster", metavar="FILE", type=Path, help="the cluster file, which names the users file"
    )
    verb.add_argument(
        "--rights", choices=RIGHTS,
        help="of one who is added: to read; to write too; to administer too (must be given)",
    )  # fmt: skip
    verb.add_argument("--json", action="store_true", help="list: one line of JSON, for scripts")
    verb.set_defaults(call=_users, parser=verb)
    return parser


def _add_admission_flags(verb: argparse.ArgumentParser) -> None:
    """What a client needs to be let in: read by `_tls` and `_credentials`."""
    verb.add_argument(
        "--user", metavar="NAME",
        help=f"authenticates; the password is in {PASSWORD_VARIABLE}, or is asked for",
    )  # fmt: skip
    verb.add_argument("--tls", action="store_true", help="speak TLS; the port is then that behind")
    verb.add_argument(
        "--tls-ca", type=Path, metavar="FILE",
        help="whose certificates are trusted (PEM); default: those that this machine trusts",
    )  # fmt: skip
    verb.add_argument(
        "--tls-certificate", type=Path, metavar="FILE",
        help="the client's own, with its key in the file, where nodes want one",
    )  # fmt: skip


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no interval: give 0.1 to 3600 seconds")
    return value


# What a verb needs is imported when it is called: `--help` and errors stay quick.


def _tls(flags: argparse.Namespace) -> ssl.SSLContext | None:
    """None: the flags ask for no TLS."""
    from kvstore.tls import client_context

    if not flags.tls and flags.tls_ca is None and flags.tls_certificate is None:
        return None
    return client_context(flags.tls_ca, flags.tls_certificate)


def _credentials(flags: argparse.Namespace) -> tuple[str, str] | None:
    """A user's name and password; None: the flags name no user."""
    from kvstore.shell import password_of

    return None if flags.user is None else (flags.user, password_of(flags.user))


def _node(flags: argparse.Namespace) -> None:
    from kvstore import node

    cluster = Cluster.load(flags.cluster)
    lock = cluster.data_directory(flags.name) / NODE_LOCK
    with claimed(lock, f"node {flags.name}"):
        node.run(cluster, flags.name, flags.log_format, join=flags.join)


def _cluster(flags: argparse.Namespace) -> None:
    from kvstore.cluster import StoreApplication
    from p4xos.launcher import launch

    launch(flags.directory, arguments.wanted(flags), StoreApplication())


def _create(flags: argparse.Namespace) -> None:
    from kvstore import placing

    places = placing.parse_places(flags.at)
    cluster = placing.create(flags.directory, places, flags.base_port, flags.storage)
    print(f"cluster {cluster.id:08x} in {cluster.directory}; copy cluster.toml and")
    print("cluster.secret (mode 0600) to every machine, and of the directories each node's own to")
    print("its machine, beside them; then start it:")
    for name in places:
        print(f"  kvstore node --cluster cluster.toml --name {name}")


def _status(flags: argparse.Namespace) -> int:
    from kvstore import comparison, status

    cluster = Cluster.load(flags.cluster)
    if flags.hash:
        compared = comparison.compare(cluster)
        arguments.print_data(compared.data() if flags.json else compared.lines(), flags.json)
        return arguments.DONE if compared.good else arguments.FAILED
    found = status.status(cluster)
    arguments.print_data(found if flags.json else status.described(found), flags.json)
    return arguments.DONE


def _top(flags: argparse.Namespace) -> None:
    from kvstore import top

    cluster = Cluster.load(flags.cluster)
    top.run(cluster, interval_s=flags.interval, once=flags.once, as_json=flags.json)


def _backup(flags: argparse.Namespace) -> None:
    from kvstore import backup

    _tell_progress()
    manifest = backup.take(Cluster.load(flags.cluster), flags.to, flags.node)
    print(f"{flags.to}: {manifest.summary()}")


def _rebuild(flags: argparse.Namespace) -> None:
    from kvstore import rebuilding

    _tell_progress()
    manifest = rebuilding.rebuild(
        Cluster.load(flags.cluster), flags.to, accept_loss=flags.accept_loss
    )
    print(f"{flags.to}: {manifest.summary()}")
    print(f"stop the nodes, and make a new cluster of it: kvstore restore {flags.to} ...")


def _verify(flags: argparse.Namespace) -> None:
    from kvstore import archive

    with archive.unpacked(flags.backup) as directory:
        print(f"{flags.backup} is good: {archive.check(directory).summary()}")


def _restore(flags: argparse.Namespace) -> None:
    from kvstore import restore

    _tell_progress()
    if flags.directory is None:
        if flags.nodes is not None or flags.base_port is not None:
            raise ValueError("--nodes and --base-port belong to --directory: the file says both")
        cluster = Cluster.load(flags.cluster)
    else:
        cluster = restore.create(flags.directory, Wanted(flags.nodes, flags.base_port))
    manifest = restore.restore(flags.backup, cluster, flags.node)
    print(f"restored into cluster {cluster.id:08x}: {manifest.summary()}")
    if flags.directory is not None:
        print(f"start it: kvstore cluster --directory {flags.directory}")


def _tell_progress() -> None:
    """What takes long says how far it is, on stderr."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")


def _check(flags: argparse.Namespace) -> int:
    from kvstore.checking import running
    from kvstore.client.dialing import Greeting

    given = {
        name: value
        for name in running.Wanted.__dataclass_fields__
        if (value := getattr(flags, name)) is not None
    }
    admission = (flags.user, flags.tls or None, flags.tls_ca, flags.tls_certificate)
    if flags.replay is None:
        wanted, tls = running.Wanted(**given), _tls(flags)
        nodes = (
            running.addresses_in(Cluster.load(flags.cluster), tls=tls is not None)
            if flags.cluster is not None
            else running.parse_addresses(flags.address)
        )
        name, password = _credentials(flags) or ("", None)
        greeting = Greeting(2, 0, "", name, password, tls)
        report = running.run(nodes, wanted, flags.history, greeting)
    elif given or flags.history is not None or any(admission):
        raise ValueError("--replay takes no other flag but --json: it runs nothing")
    else:
        report = running.replay(flags.replay)
    if flags.json:
        arguments.print_data(report.data(), as_json=True)
    else:
        print("\n".join(report.lines()))
    return arguments.DONE if report.judged.good else arguments.FAILED


def _shell(flags: argparse.Namespace) -> int | None:
    from kvstore import shell

    with_whom = shell.Shell(
        flags.host, flags.port, tls=_tls(flags), credentials=_credentials(flags)
    )
    return shell.run(with_whom, flags.words)


def _users(flags: argparse.Namespace) -> None:
    from kvstore import userfile

    path = flags.file or userfile.named_in(Cluster.load(flags.cluster))
    if flags.action in ("add", "remove") and flags.user is None:
        raise ValueError(f"users {flags.action}: the name is missing: users {flags.action} NAME")
    if flags.action == "add":
        print(userfile.add(path, flags.user, flags.rights))
    elif flags.action == "remove":
        print(userfile.remove(path, flags.user))
    else:
        found = userfile.listed(path)
        if flags.action == "list":
            arguments.print_data(found, flags.json)
        else:
            print(f"{path} is good: {len(found)} users")
