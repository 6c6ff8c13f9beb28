"""A gateway without a cluster: it serves the dialect of the C library, and fails as it is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import trio

from p4xos.errors import BadPacket, P4xosError
from p4xos.framing import Frame, FrameStream, encode_frame, integer_untrusted
from p4xos.packing import pack_delivered, pack_instances, unpack_payloads_untrusted
from p4xos.remote_errors import error_head
from p4xos.service import OPEN_VERSION
from tests.libpaxos_c.building import environment

PATIENCE_S = 60.0
"""Until a test gives up; never part of what is tested."""
CLUSTER = 0x1234
BATCH = 50
"""Values of a frame of deliveries at most, so that there are many frames."""

Attack = Callable[[trio.SocketStream], Awaitable[None]]
"""What a connection gets instead of service."""


class Cut(Exception):
    """The connection ends here, without a word."""


class StandIn:
    """One log behind several ports."""

    def __init__(self, random: Random | None = None, cut: float = 0.0, unanswered: int = 0) -> None:
        """An empty log.

        Args:
          random: decides on faults.
          cut: how likely a connection is lost at each frame, in all the ways there are.
          unanswered: so many of the first values that are taken are never answered: the
            connection is lost just then, whatever chance says.
        """
        self.values: list[bytes] = []
        self.taken: dict[tuple[int, int], int] = {}  # client and number: the first iid
        self.attacks: list[Attack] = []
        """One for each of the next connections."""
        self.counts = dict.fromkeys(
            ("connections", "submits", "again", "cuts", "trims", "delivers"), 0
        )
        self.refuse: Callable[[int, int], P4xosError | None] = lambda client, number: None
        self.low = 1
        self.first_asked: list[int] = []
        self._random = random or Random(0)
        self._cut = cut
        self._unanswered = unanswered
        self._more = trio.Event()

    @asynccontextmanager
    async def serving(self, directory: Path, ports: int = 3) -> AsyncIterator[Path]:
        """Serves; yields a paxos.conf with its ports as replicas."""
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                lines = []
                for k in range(ports):
                    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
                    port = listener.socket.getsockname()[1]
                    lines.append(f"replica {k} 127.0.0.1 {port}")
                    nursery.start_soon(trio.serve_listeners, self._serve, [listener])
                config = directory / "paxos.conf"
                config.write_text("\n".join(lines) + "\n")
                yield config
                nursery.cancel_scope.cancel()

    def append(self, *values: bytes) -> None:
        """Puts values of others into the log."""
        self.values += values
        self._more.set()
        self._more = trio.Event()

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.counts["connections"] += 1
        async with stream:
            try:
                if self.attacks:
                    await self.attacks.pop(0)(stream)
                else:
                    await self._converse(stream)
            except* Cut:
                self.counts["cuts"] += 1
            except* (trio.BrokenResourceError, trio.ClosedResourceError, BadPacket):
                pass  # the other side has gone, perhaps inside of a frame

    def _may_cut(self) -> None:
        if self._random.random() < self._cut:
            raise Cut

    async def _converse(self, stream: trio.SocketStream) -> None:
        frames, sending = FrameStream(stream), trio.Lock()

        async def send(data: bytes) -> None:
            async with sending:
                await stream.send_all(data)

        hello = await frames.receive_untrusted()
        if hello is None:
            return
        assert hello.head["ask"] == "hello"
        assert hello.head["cluster"] in (0, CLUSTER)
        self._may_cut()
        await send(welcome())
        async with trio.open_nursery() as nursery:
            while (frame := await frames.receive_untrusted()) is not None:
                match frame.head["ask"]:
                    case "submit":
                        await send(self._submit(frame))
                    case "deliver":
                        nursery.start_soon(self._deliver, send, frame)
                    case "trim":
                        self.counts["trims"] += 1
                        await send(encode_frame({"id": frame.head["id"]}))
                    case ask:
                        raise AssertionError(ask)
            nursery.cancel_scope.cancel()

    def _submit(self, frame: Frame) -> bytes:
        """Takes values; returns the answer."""
        self.counts["submits"] += 1
        client = integer_untrusted(frame.head, "client", 1)
        number = integer_untrusted(frame.head, "number", 1)
        request = frame.head["id"]
        error = self.refuse(client, number)
        if error is not None:
            return encode_frame({"id": request, **error_head(error)})
        self._may_cut()  # nothing was taken
        if (client, number) in self.taken:
            self.counts["again"] += 1
            return encode_frame({"id": request})
        first = len(self.values) + 1
        self.taken[client, number] = first
        self.append(*unpack_payloads_untrusted(frame.body))
        if len(self.taken) <= self._unanswered:
            raise Cut  # it was, and the client does not know
        self._may_cut()
        return encode_frame({"id": request}, pack_instances([first]))

    async def _deliver(self, send: Callable[[bytes], Awaitable[None]], frame: Frame) -> None:
        self.counts["delivers"] += 1
        first = integer_untrusted(frame.head, "first")
        self.first_asked.append(first)
        if not first:
            first = len(self.values) + 1
            await send(delivered(first, []))
        while True:
            while len(self.values) < first:
                await self._more.wait()
            values = self.values[first - 1 : first - 1 + self._random.randint(1, BATCH)]
            data = delivered(first, values)
            if self._random.random() < self._cut:
                await send(data[: self._random.randrange(len(data))])
                raise Cut
            await send(data)
            first += len(values)


def welcome(**changes: object) -> bytes:
    """The answer to hello."""
    head = {"node": "n1", "version": OPEN_VERSION, "cluster": CLUSTER, "log": "", "libpaxos": 1}
    return encode_frame(head | changes)


def delivered(first: int, values: list[bytes]) -> bytes:
    """A frame of deliveries."""
    return encode_frame(
        {"next": first + len(values)}, pack_delivered(list(enumerate(values, first)))
    )


async def run(program: Path, *arguments: object) -> dict[str, object]:
    """A program of ours, to its end; what it printed last, a line of JSON."""
    done = await trio.run_process(
        [str(program), *map(str, arguments)],
        capture_stdout=True, capture_stderr=True, check=False, env=environment(),
    )  # fmt: skip
    told = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
    assert done.returncode == 0, told
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def additions(adds: int, *ids: int) -> set[bytes]:
    """What so many processes of `counter` submit."""
    texts = (f"add {k} from {id}" for id in ids for k in range(1, adds + 1))
    return {text.encode().ljust(64, b"\0") for text in texts}
