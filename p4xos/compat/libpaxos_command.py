"""`p4xos libpaxos`: libpaxos programs, with their paxos.conf, on this log.

Beside its package, so that the command line need not load that to know its flags.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from p4xos import arguments, logs
from p4xos.config import Cluster
from p4xos.processes import NODE_LOCK, claimed

if TYPE_CHECKING:
    from p4xos.cli import Verbs


def add_verbs(verbs: Verbs) -> None:
    """Adds the verb `libpaxos`."""
    verb = verbs.add_parser("libpaxos", help="serve libpaxos programs at their paxos.conf")
    verb.add_argument(
        "--config", metavar="FILE", type=Path, required=True, help="the programs' paxos.conf"
    )
    verb.add_argument(
        "--cluster", metavar="FILE", type=Path,
        help="run a node of this cluster (TOML); default: make one here, and run all of it",
    )  # fmt: skip
    verb.add_argument("--node", metavar="NAME", help="with --cluster: which node of it")
    verb.add_argument(
        "--ids", metavar="K,K", type=_ids,
        help="with --cluster: for which acceptors and proposers it speaks; default: by turns",
    )  # fmt: skip
    verb.add_argument(
        "--directory", type=Path,
        help="of the cluster made here; default: lmdb-env-path with lmdb, else paxos-data",
    )
    verb.add_argument(
        "--nodes", type=int, help="of the cluster made here, odd; default: as acceptors in FILE"
    )
    verb.add_argument("--base-port", type=int, help="of the cluster made here; default: free ones")
    arguments.add_log_flag(verb)
    verb.set_defaults(call=_libpaxos, parser=verb)


def _ids(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _libpaxos(flags: argparse.Namespace) -> None:
    from p4xos.compat.libpaxos import launching, serving
    from p4xos.compat.libpaxos.conf import PaxosConf

    conf = PaxosConf.load(flags.config)
    if flags.cluster is None:
        if flags.node is not None or flags.ids is not None:
            raise ValueError("--node and --ids go with --cluster; leave them out, or name it")
        if flags.log_format is not None:
            os.environ[logs.FORMAT_VARIABLE] = flags.log_format
        launching.run(conf, flags.config, flags.directory, flags.nodes, flags.base_port)
        return
    for flag in ("directory", "nodes", "base_port"):
        if getattr(flags, flag) is not None:
            raise ValueError(f"--{flag.replace('_', '-')} is of a cluster made here; leave it out")
    if flags.node is None:
        raise ValueError("--cluster needs --node NAME: which node of it runs here")
    cluster = Cluster.load(flags.cluster)
    launching.refuse_trash(conf)
    with claimed(cluster.data_directory(flags.node) / NODE_LOCK, f"node {flags.node}"):
        serving.run(conf, cluster, flags.node, flags.ids, flags.log_format)
