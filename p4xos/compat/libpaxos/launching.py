"""A cluster for one `paxos.conf`, made beside it and run whole: what replaces libpaxos' acceptors.

As many nodes as the file has acceptors, each a process: a minority of them may be killed, as with
libpaxos. Node k speaks for acceptor k and proposer k.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from p4xos import secret
from p4xos.compat.libpaxos.conf import PaxosConf
from p4xos.compat.libpaxos.serving import check_options, ids_of, ports_of
from p4xos.config import Cluster
from p4xos.creation import CLUSTER_NAME, LAUNCHER_LOCK, Wanted
from p4xos.launcher import LaunchError, LogApplication, launch
from p4xos.processes import NODE_LOCK, claimed, running_process
from p4xos.tables import Address

DIRECTORY = Path("paxos-data")
RETAIN_BYTES_MIN = 1 << 20


class LibpaxosApplication(LogApplication):
    """Nodes with the gateway."""

    def __init__(self, conf: PaxosConf, file: Path) -> None:
        self._conf = conf
        self._file = file.absolute()

    def complete(self, cluster: Cluster, wanted: Wanted) -> Cluster:
        """A new cluster with what the options say."""
        retained = dict(cluster.extensions)
        if "lmdb_mapsize" in self._conf.given:
            size = max(self._conf.options.lmdb_mapsize, RETAIN_BYTES_MIN)
            retained["log"] = {"retain_bytes": size}
        return replace(cluster, extensions=retained)

    def command(self, cluster_file: Path, node: str) -> Sequence[str]:
        """What starts one node."""
        files = ["--config", str(self._file), "--cluster", str(cluster_file)]
        return [sys.executable, "-m", "p4xos", "libpaxos", *files, "--node", node]

    def endpoints(self, cluster: Cluster) -> Mapping[str, Address]:
        """Where clients connect to each node, at the first address that it serves."""
        found = {}
        for node in cluster.nodes:
            ports = ports_of(self._conf, ids_of(self._conf, cluster, node.name, None))
            if ports:
                found[node.name] = ports[0].address
        return found


def run(
    conf: PaxosConf, file: Path, directory: Path | None, nodes: int | None, base_port: int | None
) -> None:
    """Makes the cluster, or finds it, and runs it until a signal asks to stop.

    Raises:
      P4xosError, ConfigError, OSError, ValueError: it could not start, or had to be killed.
    """
    options = conf.options
    on_disk = options.storage_backend == "lmdb"
    if directory is None:
        directory = Path(options.lmdb_env_path) if on_disk else DIRECTORY
    if nodes is None:
        count = len(conf.acceptors)
        nodes = count if count % 2 else max(count - 1, 1)
    _begin_anew(directory, trash=options.acceptor_trash_files)
    path = directory / CLUSTER_NAME
    if path.exists():
        check_options(conf, Cluster.load(path))
    elif base_port is None:
        base_port = 0
    wanted = Wanted(nodes, base_port, "disk" if on_disk else "memory")
    launch(directory, wanted, LibpaxosApplication(conf, file))


def refuse_trash(conf: PaxosConf) -> None:
    """A cluster that was made elsewhere is not this program's to throw away.

    Raises:
      ConfigError: the file wants that.
    """
    if conf.options.acceptor_trash_files:
        raise conf.refuse(
            "acceptor_trash_files", "yes is found, but the cluster was made elsewhere, and one "
            "node cannot begin anew for all; write no, or leave --cluster out",
        )  # fmt: skip


def _begin_anew(directory: Path, *, trash: bool) -> None:
    """Removes a cluster that nobody runs, where that is wanted, or it has forgotten all anyway.

    Acceptors that keep nothing on disk begin empty when all of them are started, as libpaxos' do;
    what learners kept of the former ones must not be taken for a part of what comes.
    """
    path = directory / CLUSTER_NAME
    if not path.exists():
        return
    with claimed(directory / LAUNCHER_LOCK, f"a launcher of the cluster in {directory}"):
        cluster = Cluster.load(path)
        if not trash and cluster.storage == "disk":
            return
        for node in cluster.nodes:
            pid = running_process(cluster.data_directory(node.name) / NODE_LOCK)
            if pid is not None:
                complaint = f"node {node.name} of the cluster in {directory} runs, as process {pid}"
                raise LaunchError(f"{complaint}; stop it first: kill {pid}")
        for node in cluster.nodes:
            shutil.rmtree(cluster.data_directory(node.name), ignore_errors=True)
        secret.path_of(cluster).unlink(missing_ok=True)
        path.unlink()
