"""The RESP server: one task and one epoll object for all clients (docs/ARCHITECTURE.md).

A turn: take what epoll has; read every ready socket once; answer connection commands; gather the
runs of all clients; propose all writes in one call, ask for one read index for all reads; send
each client's replies with one call. Load makes its own batches, and an idle server does nothing.
Clients that send one command at a time go through this all together (`kvstore.crowd`).

Replies of writes come by `KvStateMachine`, those of reads by the log's callback, both inside the
node's own turn, and are sent there and then. What those replies let a client do next (its backlog)
waits for a turn of this task, woken by an eventfd: the log is never called from inside its calls.
"""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Callable, Mapping, Sequence

import trio

from kvstore import admission, authentication
from kvstore.admission import LOOK_S, Admission
from kvstore.authentication import Authenticator
from kvstore.batcher import WriteBatcher
from kvstore.burden import LITTLE_BYTES, Burden
from kvstore.commands.client import Client, Section, ServerFacts
from kvstore.connection import Connection, Run
from kvstore.crowd import Crowd, answer
from kvstore.limits import Limits
from kvstore.listening import listen
from kvstore.logins import Logins
from kvstore.machine import KvStateMachine
from kvstore.meter import Meter
from kvstore.monitors import Monitors
from kvstore.pauses import Pauses
from kvstore.reading import Outlet, Reads
from kvstore.replies import Error, Reply, encode, error_bytes
from kvstore.report import sections, settings
from kvstore.resp import NOT_TLS, ChunkReader
from kvstore.timekeeper import TimeKeeper
from kvstore.tls import BadTls, ServerTls, TlsSocket
from p4xos.accepting import Listeners, Waits
from p4xos.errors import NoQuorum, P4xosError
from p4xos.log import ReplicatedLog

log = logging.getLogger(__name__)

EVENTS = 1024
"""Ready sockets of one turn; the rest wait for the next, and the node's tasks run in between."""
TRANSACTION_ROOM = 64
"""Bytes of a transaction beside its commands and watched keys."""
RETRY_S = 0.01
"""How long to wait before an overloaded log, or a process out of descriptors, is tried again."""


GOODBYE_S = 0.5
"""How long a node that stops still refuses commands in words, once what it had begun is answered:
a client that finds its connection closed cannot know whether its last write was run."""
_STOPPING = Error(b"LOADING this node is stopping; nothing was done: ask another node")


class KvServer:
    """Serves RESP clients from one replica's log and state machine."""

    def __init__(
        self,
        log: ReplicatedLog,
        machine: KvStateMachine,
        listener: socket.socket | None,
        info: Callable[[], Mapping[str, Section]] = dict,
        *,
        tls: tuple[socket.socket, ServerTls] | None = None,
        access: Authenticator | None = None,
        limits: Limits | None = None,
        copies: int = 0,
        waits: Waits | None = None,
    ) -> None:
        """A server that does nothing until `run`.

        Args:
          log: the node's log, which drives `machine`.
          machine: gets this server's callbacks.
          listener: bound (`kvstore.listening`); `run` makes it listen, and closes it. None: there
            is none but that of `tls`.
          info: sections for INFO beside the server's own, by title.
          tls: another listener, whose clients speak TLS, and with what.
          access: who may connect; None: everybody may do all.
          limits: of what clients may take.
          copies: nodes beside one that have an acknowledged write on disk, at the least.
          waits: waits for clients too where it waits for the log's messages; None: the server
            waits for them by itself.
        """
        self.log = log
        self.machine = machine
        self.store = machine.store
        self.tls = None if tls is None else tls[1]
        first = listener or (tls and tls[0])
        assert first is not None, "a server listens somewhere"
        self.host, port = first.getsockname()[:2]
        self.port: int = 0 if listener is None else port
        """For clients without TLS; 0: none."""
        self.tls_port: int = 0 if tls is None else tls[0].getsockname()[1]
        self.counters = dict.fromkeys(
            (
                "connections_accepted", "connections_lost", "accept_errors",
                "protocol_errors", "commands_received", "writes_proposed", "reads_requested",
                "commands_too_large", "overloaded", "unknown_outcomes", "failed_reads",
                "inputs_parked", "inputs_cut_off", "outputs_cut_off",
                "tls_reload_failed", *admission.COUNTERS,
            ),
            0,
        )
        """What happened since the start, by reason."""
        self._listeners: Listeners[ServerTls | None] = Listeners(self.counters)
        for each, speaks in ((listener, None), tls or (None, None)):
            if each is not None:
                self._listeners.add(each, speaks)
        self.admission = Admission(limits or Limits(), self.counters, self._close)
        self.logins = Logins(access, self.admission, self._watch, self._answered)
        self.meter = Meter()
        """What commands took."""
        self._waits = waits
        self._again = trio.Event()
        """Set when something waits that comes without an event of a socket."""
        self._facts = ServerFacts(
            lambda: sections(self, info()), lambda: settings(self), self._clients, self.meter
        )
        self._batcher = WriteBatcher(
            log, self.counters, self._watch, self.store.clock, machine.origin
        )
        self._facts.transaction_bytes_max = self._batcher.command_bytes_max - TRANSACTION_ROOM
        self._monitors = Monitors(self._wait_to_send, self._overrun)
        self._facts.monitors = self._monitors
        self._facts.monitor = self._monitor
        self._facts.close = self._hang_up
        self._pauses = Pauses(self._watch)
        self._facts.pause = self._pauses.begin
        self._facts.reload = self.store.memory.forget
        self._facts.access = access
        self._facts.forget = lambda client: self.logins.forget(
            client, self._connections.values()
        )
        self._facts.copies = lambda: copies
        self._facts.applied = lambda: self.store.applied
        self._time = TimeKeeper(self.store, self._batcher, machine.origin, self._wake_up)
        self.burden = Burden(self.counters, self._watch, self._close)
        self._chunks = ChunkReader()
        self._crowd = Crowd(self._chunks, self._batcher, self.meter, self.counters)
        self._connections: dict[int, Connection] = {}
        self._next_id = 1
        self._ready: list[Connection] = []
        """Connections whose backlog may go on."""
        self._dirty: list[Connection] = []
        """Connections with replies to send."""
        outlet = Outlet(self._wait_to_send, self._send, self._send_dirty, self.flush)
        self._reads = Reads(
            log, self.store, self._time, self.meter, self.counters, self._crowd, outlet
        )
        self._stopping = False
        """What has not begun is refused."""
        self._epoll: select.epoll | None = None
        self._wake = -1
        machine.on_replies = self._complete
        machine.on_unknown = self._unknown
        machine.on_applied = self._applied
        machine.on_leap = self._time.want

    async def run(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; `started` gets the bound port.

        Raises:
          BindFailed: another process listens at the address.
        """
        try:
            self._open()
            assert self._epoll is not None
            task_status.started(self.port or self.tls_port)
            async with trio.open_nursery() as nursery:
                self.logins.nursery = nursery
                nursery.start_soon(self._time.run)
                nursery.start_soon(self._look)
                await self._serve(self._epoll, nursery)
        finally:
            self._close_all()

    async def leave(self) -> None:
        """Refuses what comes from now on, in words, and returns when what was begun is answered."""
        self._stopping = True
        self._listeners.close()  # who connects goes to another node at once
        while any(connection.outstanding for connection in self._connections.values()):
            await trio.sleep(RETRY_S)
        if self._connections:
            await trio.sleep(GOODBYE_S)

    async def _serve(self, epoll: select.epoll, nursery: trio.Nursery) -> None:
        """A turn whenever a client does something, and while something is to be tried again."""
        waits = self._waits
        if waits is None:
            nursery.start_soon(self._wait, epoll)
        else:
            waits.watch(epoll.fileno(), self._turn)
        try:
            while True:
                await self._again.wait()
                while self._unfinished:
                    await trio.sleep(RETRY_S)
                    self._turn()
                self._again = trio.Event()
        finally:
            if waits is not None:
                waits.unwatch(epoll.fileno())

    async def _wait(self, epoll: select.epoll) -> None:
        while True:
            await trio.lowlevel.wait_readable(epoll.fileno())
            self._turn()

    @property
    def _unfinished(self) -> bool:
        """Whether something is to be tried again though no client sends anything."""
        return bool(
            self._batcher.waiting or self._time.waiting or self._pauses.held
            or self._listeners.shortage or self.burden.parked
        )  # fmt: skip

    async def _look(self) -> None:
        while True:
            await trio.sleep(LOOK_S)
            self.admission.look(self._connections.values())

    def _open(self) -> None:
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        for listener, _ in self._listeners.values():
            listen(listener)
        self._listeners.watch(self._epoll)
        self._epoll.register(self._wake, select.EPOLLIN)

    def _close_all(self) -> None:
        for connection in list(self._connections.values()):
            connection.send()  # what is answered still leaves, if the socket takes it
            self._close(connection)
        self._listeners.close()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    def _turn(self) -> None:
        """Everything that is ready now, once."""
        assert self._epoll is not None
        if self._listeners.shortage and not self._stopping:
            self._listeners.resume()
        connections, newcomers = self._connections, self.admission.newcomers
        self.admission.begin_turn()
        crowd: list[Connection] = []
        # What a pause holds, monitors are shown and a node that stops refuses is for `_go_on`.
        may_crowd = not (self._pauses.on or self._monitors or self._stopping)
        for descriptor, events in self._epoll.poll(0, EVENTS):
            connection = connections.get(descriptor)
            if connection is None:
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)
                elif descriptor in self._listeners:
                    self._accept(descriptor)
                continue
            if connection.simple and may_crowd and events == select.EPOLLIN and (
                not connection.outstanding
            ):
                crowd.append(connection)
                continue
            if events & select.EPOLLOUT:
                self._drained(connection)
            if events & ~select.EPOLLOUT and not connection.closed:
                if newcomers and connection in newcomers:
                    self._receive_newcomer(connection, events)
                else:
                    self._receive(connection, events)
        for connection, chunk in self._crowd.receive(crowd) if crowd else ():
            if chunk is None:
                self._lost(connection)
            else:
                connection.take(chunk)
                self._received(connection)
        ready, self._ready = [*self._pauses.take(), *self._ready], []
        for connection in ready:
            self._go_on(connection)
        self._reads.run_late()
        if self.burden.parked:
            self.burden.look()
        self._batcher.propose()
        self._reads.request()
        # What the log did not take waits for its next delivery, or `RETRY_S`: no wake for that.
        self._send_dirty()
        if self._ready:
            self._wake_up()
        if self._unfinished:
            self._again.set()

    def _accept(self, descriptor: int) -> None:
        assert self._epoll is not None
        _, tls = self._listeners[descriptor]
        for sock, peer in self._listeners.accept(descriptor):
            refusal = self.admission.refusal(peer[0], len(self._connections))
            if refusal is not None:
                with sock:
                    if tls is None:  # a TLS client could not read it
                        _send_quietly(sock, error_bytes(refusal))
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.counters["connections_accepted"] += 1
            try:
                spoken = sock if tls is None else tls.wrap(sock)
            except OSError as error:  # it has gone already
                why = f"its TLS handshake failed: {error.strerror or error}"
                self.admission.turned_away("tls_handshakes_failed", peer[0], why)
                sock.close()
                continue
            local = spoken.getsockname()
            client = Client(
                self._next_id, f"{peer[0]}:{peer[1]}", self._facts, f"{local[0]}:{local[1]}"
            )
            self._next_id += 1
            connection = Connection(spoken, client, self._chunks)
            self._connections[spoken.fileno()] = connection
            self._epoll.register(spoken.fileno(), select.EPOLLIN)
            self.admission.came(connection)
            if self.logins.limit(client) or tls is not None:
                self.admission.begin(connection)

    def _receive_newcomer(self, connection: Connection, events: int) -> None:
        """Reads one that has not shown who it is, or goes on with its handshake."""
        sock = connection.sock
        shaking = isinstance(sock, TlsSocket) and not sock.established
        if shaking and not self.admission.may_shake():
            return
        self._receive(connection, events)
        if shaking and isinstance(sock, TlsSocket) and sock.established and not connection.closed:
            self.admission.established(connection)

    def _receive(self, connection: Connection, events: int) -> None:
        if not connection.receive() or (connection.ended and events & select.EPOLLHUP):
            self._lost(connection)
        else:
            self._received(connection)

    def _lost(self, connection: Connection) -> None:
        """A client went away in the midst of something."""
        sock = connection.sock
        if isinstance(sock, TlsSocket) and not sock.established:
            self.admission.turned_away(
                "tls_handshakes_failed", connection.client.address,
                f"its TLS handshake failed: {sock.failure or 'it went away'}",
            )  # fmt: skip
        else:
            self.counters["connections_lost"] += 1
        self._close(connection)

    def _received(self, connection: Connection) -> None:
        """What a client sent is in its backlog: goes on with it."""
        connection.simple = False
        if connection.parser.error is not None:
            self.counters["protocol_errors"] += 1
            if connection.parser.error == NOT_TLS:
                why = "it speaks TLS on the port without"
                self.admission.turned_away("tls_on_plain_port", connection.client.address, why)
        if not connection.outstanding:
            self._go_on(connection)
        elif connection.ended or connection.backlog_bytes:
            self._watch(connection)
        if connection.burdens or connection.input_bytes > LITTLE_BYTES:
            self.burden.input(connection)

    def _go_on(self, connection: Connection) -> None:
        """Starts a connection's next run, if it may."""
        if connection.closed or connection.outstanding or connection.choked:
            return
        if (connection.held or connection.client.asleep_until) and self._pauses.hold(connection):
            return
        if connection.held or connection.backlog:
            run, entries, writes = self._take_run(connection)
            if run and self._stopping:
                connection.complete([_STOPPING] * len(run))
            elif writes:
                too_large = self._batcher.add(connection, run)
                if too_large:
                    self._refuse_large(connection, too_large)
                else:
                    taken = connection.outstanding
                    connection.started = self.meter.start(entries[:taken], run, writes=True)
            elif run:
                connection.outstanding = len(run)
                connection.started = self.meter.start(entries, run, writes=False)
                self._reads.add(connection, list(zip(entries, run, strict=True)))
            elif connection.client.asked is not None:
                self.logins.check(connection)
            if self._monitors and connection.client.execution is None:
                self._monitors.show(connection.client, run[: connection.outstanding])
        # What is left of a backlog though no run is under way goes on in the next turn.
        more = connection.backlog and not (
            connection.outstanding or connection.held or connection.client.asleep_until
        )
        if connection.ended or connection.out or more:
            self._dirty.append(connection)
        if connection.backlog_bytes or connection.mask != select.EPOLLIN:
            self._watch(connection)

    def _take_run(self, connection: Connection) -> Run:
        """A connection's next run; an empty one if there is none, or if it is to wait."""
        if connection.held:
            run, connection.held = connection.held, None
        else:
            waiting = len(connection.backlog)
            run = connection.next_run()
            self.counters["commands_received"] += waiting - len(connection.backlog)
        if self._pauses.on and run[0]:
            connection.held = run
        if connection.held or connection.client.asleep_until:
            if self._pauses.hold(connection):
                return [], [], False
            connection.held = None
        return run

    def _monitor(self, client: Client) -> None:
        for connection in self._connections.values():
            if connection.client is client:
                self._monitors.add(connection)

    def _hang_up(self, client: Client) -> None:
        for connection in list(self._connections.values()):
            if connection.client is client:
                self._close(connection)

    def _overrun(self, connection: Connection) -> None:
        why = "it takes too little of what MONITOR shows"
        self.admission.turned_away("outputs_overrun", connection.client.address, why)
        self._close(connection)

    def _answered(self, connection: Connection) -> None:
        """An AUTH has its answer, from outside of a turn."""
        self._dirty.append(connection)
        self.flush()

    def reload(self) -> None:
        """Reads users and certificates again; what is no good stays as it was, and is told."""
        self.logins.reload(self._connections.values(), self._close)
        if self.tls is not None:
            try:
                self.tls.reload()
                log.info("the TLS certificate was read again")
            except (BadTls, OSError) as error:
                self.counters["tls_reload_failed"] += 1
                log.error("the TLS certificate stays as it was: %s", error)

    def _refuse_large(self, connection: Connection, size: int) -> None:
        self.counters["commands_too_large"] += 1
        connection.client.execution = None
        connection.out.append(
            error_bytes(
                f"ERR command of {size} bytes is over the limit of "
                f"{self._batcher.command_bytes_max} bytes; split the value"
            )
        )
        if connection.backlog:
            self._ready.append(connection)
            self._wake_up()

    def _complete(self, ticket: int, replies: list[Reply]) -> None:
        """Hands the replies of one value to the connections whose runs it holds."""
        position = 0
        dirty = self._dirty
        answered: list[Connection] = []
        for connection in self._batcher.owners(ticket):
            end = position + connection.outstanding
            if connection.simple:
                answered.append(connection)
                if not answer(connection, encode(replies[position], connection.client.protocol)):
                    dirty.append(connection)
            elif not connection.closed:
                connection.complete(replies[position:end])
                self.meter.finish(connection.started, connection.client)
                dirty.append(connection)
            position = end
        self.meter.finish_each(answered)

    def _unknown(self, tickets: Sequence[int], error: P4xosError) -> None:
        """Tells the clients of these values that nobody knows what became of them."""
        reply = _unknown_outcome(error)
        for ticket in tickets:
            for connection in self._batcher.owners(ticket):
                self.counters["unknown_outcomes"] += connection.outstanding
                if not connection.closed:
                    connection.complete([reply] * connection.outstanding)
                    self._dirty.append(connection)

    def _applied(self) -> None:
        """Entries were applied, and their clients have their replies: sends them."""
        self._time.applied()
        self._reads.run_late()
        self.flush()

    def flush(self) -> None:
        """Sends the replies that wait, one call for each connection; cheap when there are none."""
        self._send_dirty()
        if self._ready or self._batcher.waiting:
            self._wake_up()

    def _wait_to_send(self, connection: Connection) -> None:
        self._dirty.append(connection)

    def _send_dirty(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            if connection.closed:
                continue
            self._send(connection)
            if connection.backlog and not connection.outstanding and not connection.closed:
                self._ready.append(connection)
            connection.simple = connection.is_simple()

    def _send(self, connection: Connection) -> None:
        if connection.client.asleep_until and connection not in self._pauses.held:
            self._pauses.held[connection] = None  # fell asleep by an EXEC, which nothing may follow
            self._wake_up()
        waited = connection.output_bytes
        if not connection.send():
            self.counters["connections_lost"] += 1
            self._close(connection)
            return
        while connection.reads and not connection.unsent:
            self._reads.run(connection, connection.reads)
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
            if not self.admission.is_greedy(connection):
                self._watch(connection)
        if (connection.burdens or connection.unsent) and not connection.closed:
            self.burden.input(connection)
            self.burden.output(connection, taken=connection.output_bytes < waited)

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
        connection.closed, connection.simple = True, False
        descriptor = connection.sock.fileno()
        del self._connections[descriptor]
        if self._epoll is not None:
            self._epoll.unregister(descriptor)
        connection.sock.close()
        self._batcher.drop(connection)
        self.burden.left(connection)
        self.admission.left(connection)
        connection.let_go()

    @property
    def counted(self) -> dict[str, int]:
        """All that was counted since the start, by reason."""
        access = self.logins.access
        asked = dict.fromkeys(authentication.COUNTERS, 0) if access is None else access.counters
        return {**self.counters, **asked, **self.machine.counters}

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


def _send_quietly(sock: socket.socket, data: bytes) -> None:
    try:
        sock.send(data)
    except OSError:
        return
