"""A launcher whose nodes are stand-ins: they answer PING, and misbehave as a file tells them.

python standin.py cluster [flags of kvstore cluster]
python standin.py node --cluster FILE --name NAME
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from kvstore.cluster import StoreApplication
from kvstore.config import endpoint
from p4xos import arguments
from p4xos.config import Cluster
from p4xos.launcher import launch
from p4xos.processes import NODE_LOCK, claimed

BEHAVIOUR = "behaviour"  # a file in a node's directory: "refuse" or "deaf"


class StandInApplication(StoreApplication):
    def command(self, cluster_file: Path, node: str) -> Sequence[str]:
        flags = ["--cluster", str(cluster_file), "--name", node]
        return [sys.executable, os.path.abspath(__file__), "node", *flags]


def run_node(file: str, name: str) -> None:
    cluster = Cluster.load(file)
    directory = cluster.data_directory(name)
    behaviour = (directory / BEHAVIOUR).read_text() if (directory / BEHAVIOUR).exists() else "serve"
    if behaviour == "refuse":
        print("the last words of this node")
        sys.exit(3)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "deaf" else lambda *_: sys.exit(0))
    with (
        claimed(directory / NODE_LOCK, f"node {name}"),
        socket.create_server(endpoint(cluster, name)) as server,
    ):
        while True:
            connection, _ = server.accept()
            with connection:
                if connection.recv(4096):
                    connection.sendall(b"+PONG\r\n")


def main() -> int:
    if sys.argv[1] == "node":
        run_node(sys.argv[3], sys.argv[5])
        return 0
    parser = arguments.Parser(prog="standin")
    verb = parser.add_subparsers().add_parser("cluster")
    arguments.add_launcher_flags(verb)
    verb.set_defaults(
        call=lambda flags: launch(flags.directory, arguments.wanted(flags), StandInApplication()),
        parser=verb,
    )
    return arguments.run(parser, None)


if __name__ == "__main__":
    sys.exit(main())
