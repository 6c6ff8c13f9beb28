"""Whether the node of this container answers: exit code 0 or 1, for Docker's HEALTHCHECK.

PING, and not /readyz: it is about this process. A node that waits for a majority is healthy, and to
start it again would not help.
"""

from __future__ import annotations

import os
import socket
import sys

from kvstore.config import serves_at
from p4xos.config import Cluster

LIMIT_S = 3.0


def main() -> int:
    """Asks once."""
    name = os.environ.get("P4XOS_NODE")
    if name is None:
        return 0
    try:
        cluster = Cluster.load(os.environ["P4XOS_CLUSTER"])
        served = serves_at(cluster, name)
        with socket.create_connection(served.first, LIMIT_S) as connection:
            if served.address is None:
                return 0  # behind TLS: it listens, and this has no password to say more
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
    except (OSError, ValueError) as error:
        print(error)
        return 1
    print(answer.decode(errors="replace").strip())
    return 0 if answer.startswith((b"+PONG", b"-NOAUTH")) else 1


if __name__ == "__main__":
    sys.exit(main())
