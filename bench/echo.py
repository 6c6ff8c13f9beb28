"""`python -m bench.echo PORTS`: sends back what comes, over TCP and UDP; the peer of `floor`.

Plain blocking calls: what is measured against it is the kernel's way there and back.
"""

import socket
import sys
import threading
from pathlib import Path

MESSAGE_BYTES = 64


def main(ports_file: Path) -> None:
    """Writes its two ports to the file, TCP's first, and serves until it is killed."""
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("127.0.0.1", 0))
        threading.Thread(target=_datagrams, args=(udp,), daemon=True).start()
        unfinished = ports_file.with_suffix(".unfinished")
        unfinished.write_text(f"{tcp.getsockname()[1]} {udp.getsockname()[1]}")
        unfinished.rename(ports_file)
        while True:
            connection, _ = tcp.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while data := connection.recv(MESSAGE_BYTES):
                    connection.sendall(data)


def _datagrams(udp: socket.socket) -> None:
    while True:
        data, peer = udp.recvfrom(MESSAGE_BYTES)
        udp.sendto(data, peer)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
