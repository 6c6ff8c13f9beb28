"""Many clients of the store at once, each with an account of its own of what it was promised.

A client counts up a counter and lengthens a text that nobody else writes. Whatever happens to it,
each of its writes was acknowledged, got an error, or was cut off with its connection; what the
store holds in the end must lie between what was acknowledged and what was sent.
"""

from __future__ import annotations

import select
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import hiredis
import trio

from bench.errors import BenchError
from p4xos.tables import Address

RECEIVE_BYTES = 1 << 16
TRICKLE_BYTES = 16
_TURN = ("INCR", "GET", "APPEND")


def request(*words: bytes | str | int) -> bytes:
    """A command as RESP."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts += (b"$%d\r\n" % len(data), data, b"\r\n")
    return b"".join(parts)


class Connection:
    """One connection, without retries and time limits: those are the caller's."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._reader = hiredis.Reader()

    async def send(self, data: bytes) -> None:
        """Sends all of it; trio.BrokenResourceError when the other side is gone."""
        await self.stream.send_all(data)

    async def reply(self) -> object:
        """The next reply; an error reply is returned, not raised.

        Raises:
          trio.BrokenResourceError: there is none any more.
        """
        while (found := self._reader.gets()) is False:
            data = await self.stream.receive_some(RECEIVE_BYTES)
            if not data:
                raise trio.BrokenResourceError("closed by the store")
            self._reader.feed(data)
        return found

    async def ask(self, *words: bytes | str | int) -> object:
        """One command and its reply."""
        await self.send(request(*words))
        return await self.reply()


@asynccontextmanager
async def connected(address: Address, receive_buffer: int = 0) -> AsyncIterator[Connection]:
    """A connection; with a receive buffer of so many bytes the kernel takes little more."""
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with sock:
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.connect(tuple(address))
        async with trio.SocketStream(sock) as stream:
            yield Connection(stream)


class Account:
    """What one client sent and was told; `name` is in its keys."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counter, self.text = f"{name}:n", f"{name}:t"
        self.sent = dict.fromkeys(_TURN, 0)
        self.acknowledged = dict.fromkeys(_TURN, 0)
        self.errors: Counter[str] = Counter()
        """Error replies, by their first word and what follows it."""
        self.closed = 0
        """How often its connection ended without its asking."""

    @property
    def answered(self) -> int:
        """Commands done, reads among them."""
        return sum(self.acknowledged.values())

    def words(self, name: str) -> tuple[str, ...]:
        """The command of that name; counted as sent."""
        self.sent[name] += 1
        if name == "APPEND":
            return name, self.text, "x"
        return name, self.counter

    def take(self, name: str, reply: object) -> None:
        """Books the reply to a command."""
        if isinstance(reply, hiredis.ReplyError):
            self.errors[str(reply)] += 1
            return
        self.acknowledged[name] += 1
        least = self.acknowledged["APPEND" if name == "APPEND" else "INCR"]
        found = int(reply or 0)  # type: ignore[call-overload]  # a number, or its digits
        if found < least:
            raise BenchError(f"{name} of {self.name} told {found}, {least} were acknowledged")

    def wrong(self, counter: object, text_bytes: int) -> str:
        """What is wrong with what the store holds of it; nothing if all is well."""
        found = {"INCR": int(counter or 0), "APPEND": text_bytes}  # type: ignore[call-overload]
        for name, value in found.items():
            if not self.acknowledged[name] <= value <= self.sent[name]:
                return (
                    f"{self.name}: {value} {name} in the store, {self.acknowledged[name]} "
                    f"acknowledged, {self.sent[name]} sent"
                )
        return ""


class Crowd:
    """Clients in closed loops, until their block ends; `accounts` are theirs."""

    def __init__(self, addresses: Sequence[Address], count: int, prefix: str) -> None:
        self.accounts = [Account(f"{prefix}{number}") for number in range(count)]
        self._addresses = addresses
        self._stopped = False
        self._changed = trio.Condition()

    @property
    def answered(self) -> int:
        """Commands done by all."""
        return sum(account.answered for account in self.accounts)

    @property
    def errors(self) -> Counter[str]:
        """Error replies to all."""
        return sum((account.errors for account in self.accounts), Counter())

    @property
    def closed(self) -> int:
        """Connections that the store ended."""
        return sum(account.closed for account in self.accounts)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Runs them; each ends behind the command that is under way when the block ends."""
        async with trio.open_nursery() as nursery:
            for number, account in enumerate(self.accounts):
                address = self._addresses[number % len(self._addresses)]
                nursery.start_soon(self._work, account, address)
            yield
            self._stopped = True

    async def _work(self, account: Account, address: Address) -> None:
        while not self._stopped:
            try:
                async with connected(address) as connection:
                    while not self._stopped:
                        for name in _TURN:
                            account.take(name, await connection.ask(*account.words(name)))
                        async with self._changed:
                            self._changed.notify_all()
            except (OSError, trio.BrokenResourceError):
                account.closed += 1
                await trio.sleep(0.05)  # a node that is down refuses at once: do not spin

    async def more(self, each: int) -> None:
        """Returns when every client had so many more commands done."""
        wanted = [account.answered + each for account in self.accounts]
        async with self._changed:
            while any(a.answered < w for a, w in zip(self.accounts, wanted, strict=True)):
                await self._changed.wait()

    async def rate(self, seconds: float) -> float:
        """Commands a second over so long."""
        before, began = self.answered, trio.current_time()
        await trio.sleep(seconds)
        return (self.answered - before) / (trio.current_time() - began)


async def burst(account: Account, address: Address, commands: int) -> None:
    """Sends so many INCR at once, whatever the store takes, and reads all that comes back."""
    data = b"".join(request(*account.words("INCR")) for _ in range(commands))
    with suppress(OSError, trio.BrokenResourceError):
        async with connected(address) as connection, trio.open_nursery() as nursery:
            nursery.start_soon(_send_what_is_taken, connection, data)
            for _ in range(commands):
                account.take("INCR", await connection.reply())
            return
    account.closed += 1


async def _send_what_is_taken(connection: Connection, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await connection.send(data)


class Sluggard:
    """A client that asks for far more than it takes, or begins what it does not end."""

    def __init__(self, address: Address, data: bytes, *, trickle_s: float | None = None) -> None:
        """Idle until `run`.

        Args:
          address: of a node.
          data: what it sends, as far as the store takes it.
          trickle_s: takes a few bytes so often; None: reads nothing at all.
        """
        self.sent_bytes = 0
        self.cut_off = False
        """The store ended the connection."""
        self._address = address
        self._data = data
        self._trickle_s = trickle_s

    async def run(self) -> None:
        """Until cancelled, or cut off."""
        async with connected(self._address, receive_buffer=1 << 14) as connection:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send, connection.stream)
                    if self._trickle_s is not None:
                        while await connection.stream.receive_some(TRICKLE_BYTES):
                            await trio.sleep(self._trickle_s)
                        raise trio.BrokenResourceError
                    await self._until_cut_off(connection.stream)
            except* (OSError, trio.BrokenResourceError):
                self.cut_off = True

    async def _send(self, stream: trio.SocketStream) -> None:
        left = memoryview(self._data)
        while left:
            sent = await stream.socket.send(left[:RECEIVE_BYTES])
            self.sent_bytes += sent
            left = left[sent:]

    async def _until_cut_off(self, stream: trio.SocketStream) -> None:
        """Never returns; the kernel tells of an end though nothing is read."""
        with select.epoll() as ends:
            ends.register(stream.socket.fileno(), select.EPOLLRDHUP)
            await trio.lowlevel.wait_readable(ends.fileno())
        raise trio.BrokenResourceError


async def wrong_accounts(accounts: Iterable[Account], address: Address) -> list[str]:
    """What is wrong with each account at this node; nothing acknowledged is lost if it is empty."""
    found = []
    async with connected(address) as connection:
        for account in accounts:
            await connection.send(request("GET", account.counter) + request("STRLEN", account.text))
            counter, length = await connection.reply(), await connection.reply()
            if isinstance(counter, hiredis.ReplyError) or not isinstance(length, int):
                raise BenchError(f"asked for {account.name} the store said {counter}, {length}")
            found.append(account.wrong(counter, length))
    return [complaint for complaint in found if complaint]


def memory_mib(pid: int) -> tuple[float, float]:
    """What a process has in memory, and the most it had since `forget_peak`, in MiB."""
    lines = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    now, peak = (int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def forget_peak(pid: int) -> None:
    """The most that a process had in memory counts from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
