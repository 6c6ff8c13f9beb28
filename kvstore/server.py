"""The RESP server: one task and one epoll object for all clients (docs/ARCHITECTURE.md).

A turn: take what epoll has; read every ready socket once; answer connection commands; gather the
runs of all clients; propose all writes in one call, ask for one read index for all reads; send
each client's replies with one call. Load makes its own batches, and an idle server does nothing.

Replies of writes come by `KvStateMachine`, those of reads by the log's callback, both inside the
node's own turn, and are sent there and then. What those replies let a client do next (its backlog)
waits for a turn of this task, woken by an eventfd: the log is never called from inside its calls.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import trio

from kvstore.batcher import WriteBatcher
from kvstore.commands.client import Client, Section, ServerFacts
from kvstore.commands.table import Entry
from kvstore.connection import Connection
from kvstore.listening import listen
from kvstore.machine import KvStateMachine
from kvstore.replies import CommandError, Error, Reply, encode, error_bytes
from kvstore.report import sections, settings
from kvstore.resp import ChunkReader, Command
from p4xos.errors import NoQuorum, P4xosError
from p4xos.log import ReplicatedLog

MAX_CLIENTS = 10_000
"""Redis' maxclients; each costs a descriptor and some 2 KiB, and at worst its bounds' sum."""
EVENTS = 1024
"""Ready sockets of one turn; the rest wait for the next, and the node's tasks run in between."""
ACCEPTS = 128
"""New clients of one turn."""
READ_BYTES = 64 * 1024
"""Replies made before a client is asked to take them; more reads of its run wait."""
RETRY_S = 0.01
"""How long to wait before an overloaded log, or a process out of descriptors, is tried again."""


class KvServer:
    """Serves RESP clients from one replica's log and state machine."""

    def __init__(
        self,
        log: ReplicatedLog,
        machine: KvStateMachine,
        listener: socket.socket,
        info: Callable[[], Mapping[str, Section]] = dict,
        *,
        max_clients: int = MAX_CLIENTS,
    ) -> None:
        """A server that does nothing until `run`.

        Args:
          log: the node's log, which drives `machine`.
          machine: gets this server's callbacks.
          listener: bound (`kvstore.listening`); `run` makes it listen, and closes it.
          info: sections for INFO beside the server's own, by title.
          max_clients: more are told so and closed.
        """
        self.log = log
        self.machine = machine
        self.store = machine.store
        self.host, self.port = listener.getsockname()[:2]
        self.max_clients = max_clients
        self.counters = dict.fromkeys(
            (
                "connections_accepted", "connections_refused", "connections_lost", "accept_errors",
                "protocol_errors", "commands_received", "writes_proposed", "reads_requested",
                "commands_too_large", "overloaded", "unknown_outcomes", "failed_reads",
            ),
            0,
        )
        """What happened since the start, by reason."""
        self._facts = ServerFacts(
            lambda: sections(self, info()), lambda: settings(self), self._clients
        )
        self._batcher = WriteBatcher(log, self.counters, self._watch)
        self._chunks = ChunkReader()
        self._connections: dict[int, Connection] = {}
        self._next_id = 1
        self._ready: list[Connection] = []
        """Connections whose backlog may go on."""
        self._dirty: list[Connection] = []
        """Connections with replies to send."""
        self._reads: list[tuple[Connection, list[tuple[Entry, Command]]]] = []
        """Runs that wait for the next read index."""
        self._accepting = True
        self._epoll: select.epoll | None = None
        self._listener = listener
        self._wake = -1
        machine.on_replies = self._complete
        machine.on_unknown = self._unknown
        machine.on_applied = self.flush

    async def run(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; `started` gets the bound port.

        Raises:
          BindFailed: another process listens at the address.
        """
        try:
            self._open()
            assert self._epoll is not None
            task_status.started(self.port)
            while True:
                waiting = bool(self._batcher.waiting) or not self._accepting
                with trio.move_on_after(RETRY_S) if waiting else nullcontext():
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                self._turn()
        finally:
            self._close_all()

    def _open(self) -> None:
        listen(self._listener)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._epoll.register(self._wake, select.EPOLLIN)

    def _close_all(self) -> None:
        for connection in list(self._connections.values()):
            connection.send()  # what is answered still leaves, if the socket takes it
            self._close(connection)
        self._listener.close()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    def _turn(self) -> None:
        """Everything that is ready now, once."""
        assert self._epoll is not None
        if not self._accepting:
            self._accepting = True
            self._epoll.modify(self._listener.fileno(), select.EPOLLIN)
        connections = self._connections
        for descriptor, events in self._epoll.poll(0, EVENTS):
            connection = connections.get(descriptor)
            if connection is None:
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)
                elif descriptor == self._listener.fileno():
                    self._accept()
                continue
            if events & select.EPOLLOUT:
                self._drained(connection)
            if events & ~select.EPOLLOUT and not connection.closed:
                self._receive(connection, events)
        ready, self._ready = self._ready, []
        for connection in ready:
            self._go_on(connection)
        self._batcher.propose()
        self._request_reads()
        # What the log did not take waits for its next delivery, or `RETRY_S`: no wake for that.
        self._send_dirty()
        if self._ready:
            self._wake_up()

    def _accept(self) -> None:
        assert self._epoll is not None
        for _ in range(ACCEPTS):
            try:
                sock, peer = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self.counters["accept_errors"] += 1
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    # The listener stays ready: wait a little rather than spin.
                    self._accepting = False
                    self._epoll.modify(self._listener.fileno(), 0)
                    return
                continue
            sock.setblocking(False)
            if len(self._connections) >= self.max_clients:
                self.counters["connections_refused"] += 1
                with sock:
                    _send_quietly(sock, error_bytes("ERR max number of clients reached"))
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.counters["connections_accepted"] += 1
            local = sock.getsockname()
            client = Client(
                self._next_id, f"{peer[0]}:{peer[1]}", self._facts, f"{local[0]}:{local[1]}"
            )
            self._next_id += 1
            self._connections[sock.fileno()] = Connection(sock, client, self._chunks)
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _receive(self, connection: Connection, events: int) -> None:
        if not connection.receive() or (connection.ended and events & select.EPOLLHUP):
            self.counters["connections_lost"] += 1
            self._close(connection)
            return
        if connection.parser.error is not None:
            self.counters["protocol_errors"] += 1
        if not connection.outstanding:
            self._go_on(connection)
        elif connection.ended or connection.backlog_bytes:
            self._watch(connection)

    def _go_on(self, connection: Connection) -> None:
        """Starts a connection's next run, if it may."""
        if connection.closed or connection.outstanding or connection.choked:
            return
        if connection.backlog:
            waiting = len(connection.backlog)
            run, entries, writes = connection.next_run()
            self.counters["commands_received"] += waiting - len(connection.backlog)
            if writes:
                too_large = self._batcher.add(connection, run)
                if too_large:
                    self._refuse_large(connection, too_large)
            elif run:
                connection.outstanding = len(run)
                self._reads.append((connection, list(zip(entries, run, strict=True))))
        if connection.ended or connection.out:
            self._dirty.append(connection)
        if connection.backlog_bytes or connection.mask != select.EPOLLIN:
            self._watch(connection)

    def _refuse_large(self, connection: Connection, size: int) -> None:
        self.counters["commands_too_large"] += 1
        connection.out.append(
            error_bytes(
                f"ERR command of {size} bytes is over the limit of "
                f"{self._batcher.command_bytes_max} bytes; split the value"
            )
        )
        if connection.backlog:
            self._ready.append(connection)
            self._wake_up()

    def _request_reads(self) -> None:
        """Asks for one read index for all reads that have arrived."""
        if not self._reads:
            return
        batch, self._reads = self._reads, []
        self.counters["reads_requested"] += 1

        def answer(error: NoQuorum | None) -> None:
            for connection, run in batch:
                if connection.closed:
                    continue
                if error is None:
                    self._read(connection, run)
                else:
                    self.counters["failed_reads"] += len(run)
                    connection.complete([_no_read(error)] * len(run))
                    self._dirty.append(connection)
            self.flush()

        self.log.read_index(answer)

    def _read(self, connection: Connection, run: list[tuple[Entry, Command]]) -> None:
        """Runs reads on the local store until the client has more than it takes."""
        client = connection.client
        keyspace = self.store.keyspaces[client.database]
        protocol = client.protocol
        out = connection.out
        self._dirty.append(connection)
        # A choked client's reads wait; they may see later writes than their index, never older.
        most = connection.output_bytes + READ_BYTES
        size = 0
        for position, (entry, command) in enumerate(run):
            if size > most:
                connection.reads = run[position:]
                return
            try:
                reply = encode(entry.handler(keyspace, command), protocol)
            except CommandError as error:
                reply = encode(error.reply, protocol)
            out.append(reply)
            size += len(reply)
        connection.reads = []
        connection.outstanding = 0

    def _complete(self, ticket: int, replies: list[Reply]) -> None:
        """Hands the replies of one value to the connections whose runs it holds."""
        position = 0
        dirty = self._dirty
        for connection in self._batcher.owners(ticket):
            end = position + connection.outstanding
            if not connection.closed:
                connection.complete(replies[position:end])
                dirty.append(connection)
            position = end

    def _unknown(self, tickets: Sequence[int], error: P4xosError) -> None:
        """Tells the clients of these values that nobody knows what became of them."""
        reply = _unknown_outcome(error)
        for ticket in tickets:
            for connection in self._batcher.owners(ticket):
                self.counters["unknown_outcomes"] += connection.outstanding
                if not connection.closed:
                    connection.complete([reply] * connection.outstanding)
                    self._dirty.append(connection)

    def flush(self) -> None:
        """Sends the replies that wait, one call for each connection; cheap when there are none."""
        self._send_dirty()
        if self._ready or self._batcher.waiting:
            self._wake_up()

    def _send_dirty(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            if connection.closed:
                continue
            self._send(connection)
            if connection.backlog and not connection.outstanding and not connection.closed:
                self._ready.append(connection)

    def _send(self, connection: Connection) -> None:
        if not connection.send():
            self.counters["connections_lost"] += 1
            self._close(connection)
            return
        while connection.reads and not connection.unsent:
            self._read(connection, connection.reads)
            if not connection.send():
                self._close(connection)
                return
        if connection.ended and connection.last_words and not (
            connection.outstanding or connection.backlog
        ):
            connection.out.append(connection.last_words)
            connection.last_words = b""
            self._send(connection)
        elif connection.finished:
            self._close(connection)
        elif connection.unsent or connection.mask != select.EPOLLIN:
            self._watch(connection)

    def _drained(self, connection: Connection) -> None:
        """The socket takes bytes again."""
        self._send(connection)
        if not connection.closed and connection.backlog and not connection.outstanding:
            self._ready.append(connection)

    def _watch(self, connection: Connection) -> None:
        """Tells epoll what this connection now waits for."""
        mask = connection.wanted_mask()
        if mask != connection.mask and not connection.closed and self._epoll is not None:
            connection.mask = mask
            self._epoll.modify(connection.sock.fileno(), mask)

    def _wake_up(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _close(self, connection: Connection) -> None:
        """Closes a connection; a run of its that is under way ends without a reply."""
        if connection.closed:
            return
        connection.closed = True
        descriptor = connection.sock.fileno()
        del self._connections[descriptor]
        if self._epoll is not None:
            self._epoll.unregister(descriptor)
        connection.sock.close()
        connection.backlog = []
        connection.out = []

    @property
    def connected(self) -> int:
        """How many clients there are."""
        return len(self._connections)

    def _clients(self) -> list[Client]:
        return [connection.client for connection in self._connections.values()]

def _unknown_outcome(error: P4xosError) -> Error:
    if isinstance(error, NoQuorum):
        return Error(
            f"NOQUORUM no majority answered within {error.waited_s:g} s; the outcome of this "
            "write is unknown: read before you write again".encode()
        )
    return Error(f"UNKNOWN the outcome of this write is unknown: {error}".encode())


def _no_read(error: NoQuorum) -> Error:
    return Error(
        f"NOQUORUM no majority answered within {error.waited_s:g} s; nothing was read: "
        "try again, or ask another node".encode()
    )


def _send_quietly(sock: socket.socket, data: bytes) -> None:
    try:
        sock.send(data)
    except OSError:
        return
