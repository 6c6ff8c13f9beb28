"""The ports of a `paxos.conf`, in front of the log: one epoll object for all connections.

    from a libpaxos program            what becomes of it
    CLIENT_VALUE                       its value goes into the log, with others' (`submitting`)
    REPEAT                             told again; from before all that it was told: all of that
    TRIM                               releases this learner's hold on what is kept
    PREPARE, ACCEPT                    nothing: this cluster chooses; counted, and logged
    the others                         nothing: acceptors say them; counted
    bytes that are no message          the connection is closed; counted
    a frame (`frames`)                 the dialect of this project's own clients

    to whoever connects to an acceptor or a replica
    ACCEPTED                           of the newest value, then of all that follow, in order
    ACCEPTOR_STATE                     each second

Whoever speaks for acceptor k says ACCEPTED as acceptor k, with one and the same ballot everywhere:
a value is only told once it is chosen, so no two gateways ever disagree, and a learner that counts
a majority of acceptors' ids counts gateways. The newest value comes at once because a learner asks
for what it lacks when it sees that it lacks something, and only then.

A learner says nothing by itself, and a frame's client speaks first: who has been silent for GRACE_S
is a learner of libpaxos.
"""

from __future__ import annotations

import logging
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import trio

from p4xos.accepting import Listeners, Waits
from p4xos.compat.libpaxos import frames
from p4xos.compat.libpaxos.connection import (
    FRAMES_LAST,
    LIBPAXOS_LAST,
    OUTPUT_BYTES,
    RECEIVE_BYTES,
    Connection,
    Stream,
)
from p4xos.compat.libpaxos.messages import Kind, Message, encode, encode_accepted, parse_untrusted
from p4xos.compat.libpaxos.packs import joined
from p4xos.compat.libpaxos.store import READ_BYTES, PackStore, Taken
from p4xos.compat.libpaxos.submitting import Submitter
from p4xos.errors import BadPacket, P4xosError, SessionLost, Trimmed
from p4xos.framing import encode_frame, integer_untrusted
from p4xos.log import ReplicatedLog
from p4xos.packing import pack_delivered, pack_instances
from p4xos.remote_errors import Refused, error_head
from p4xos.service import OPEN_VERSION, ListenFailed, listen
from p4xos.tables import Address

log = logging.getLogger(__name__)

EVENTS = 1024
BACKLOG = 1024
CONNECTIONS_MAX = 16_384
GRACE_S = 0.2
"""How long a connection to an acceptor may be silent until it is taken for a libpaxos learner."""
STATE_S = 1.0
"""How often ACCEPTOR_STATE is said."""
STALL_S = 30.0
"""Who takes nothing for so long of what waits for it is closed; it may come back and ask."""
INPUT_BYTES = 64 << 20
"""Of messages that are not complete, of all connections together."""
VALUE_BYTES_MAX = 1 << 20
"""Of a value; what the log takes may be less."""
REPEATED_VALUES = 1024
"""Told again for one REPEAT."""
REPEATS = 16
"""Of what one call received, those that are answered: a learner asks once a second, and each costs
a look at the store, while five bytes ask for it."""
PUMPS = 4
"""Reads of the store for a learner that is behind, until others have their turn."""
RETRY_S = 0.01
TELL_EVERY_S = 10.0

COUNTERS = (
    "connections", "turned_away", "lost_connections", "accept_errors", "bad_messages",
    "inputs_cut_off", "stalled", "behind_what_is_kept", "values_received", "values_beyond_last",
    "packs_proposed", "packs_resubmitted", "unknown_outcomes", "requests", "refused",
    "repeats", "repeats_left_out", "repeats_trimmed", "trims", "foreign_proposals",
    "unexpected_messages",
)  # fmt: skip


class Port(NamedTuple):
    """An address of a `paxos.conf` that is served here."""

    address: Address
    acceptor: int | None
    """As which acceptor it speaks; None: it is a proposer's alone."""


class PortTaken(P4xosError):
    """An address of the `paxos.conf` cannot be had."""

    def __init__(self, address: Address, reason: str) -> None:
        super().__init__(
            f"cannot listen on TCP {address}: {reason}; stop what uses it, as libpaxos' acceptors, "
            "or serve it on its machine and name what is served here by --ids"
        )
        self.address = address


class Gateway:
    """Serves libpaxos programs from one replica's log."""

    def __init__(
        self, replicated: ReplicatedLog, store: PackStore, ports: Sequence[Port], waits: Waits, *,
        acceptors: int, cluster: int, node: str, nodelay: bool = True,
        last_iid: int = LIBPAXOS_LAST, connections_max: int = CONNECTIONS_MAX,
        awaited: Callable[[bool], None] = lambda some: None,
    ) -> None:
        """Listens, and does nothing more until `run`.

        Args:
          replicated: the node's log.
          store: what it delivers to.
          ports: where to listen.
          waits: the node.
          acceptors: how many the `paxos.conf` has.
          cluster: its id, for clients that ask.
          node: its name.
          nodelay: TCP_NODELAY of connections.
          last_iid: the last one that libpaxos' clients are told of.
          connections_max: more are turned away.
          awaited: told whether anybody here waits for what others submit.

        Raises:
          PortTaken: an address cannot be had.
        """  # fmt: skip
        self.store = store
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.submitter = Submitter(replicated, store, self.counters, self._wake_up)
        self.ports = list(ports)
        self._majorities = majorities(self.ports, acceptors)
        self.last_iid = last_iid
        self.connections_max = connections_max
        self.learners = 0
        """Connections that are told what is delivered."""
        self._frame_learners = 0
        """Of those, clients of this project's own: they hear from one gateway only."""
        self._awaited = awaited
        self._command_bytes_max = replicated.max_command_bytes
        self._value_max = min(VALUE_BYTES_MAX, self.submitter.value_bytes_max)
        self._waits = waits
        self._cluster, self._node = cluster, node
        self._nodelay = nodelay
        self._connections: dict[int, Connection] = {}
        self._listeners: Listeners[Port] = Listeners(self.counters)
        self._live: dict[object, dict[Connection, None]] = {}  # who keeps up, by group
        self._head = store.next_iid  # as far as those have been told
        self._lagging: dict[Connection, None] = {}  # to be told more, though nothing happens
        self._ahead: dict[Connection, None] = {}  # they wait for what no delivery has reached
        self._answered: dict[Connection, None] = {}  # with answers to send
        self._silent: deque[tuple[float, Connection]] = deque()
        self._blocked: list[Connection] = []
        self._input_bytes = 0
        self._again = trio.Event()
        self._came = trio.Event()
        self._told_at: dict[str, float] = {}
        self._hold: int | None = None
        self._trims = False  # a learner has put more aside since that was asked for
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._epoll.register(self._wake, select.EPOLLIN)
            for port in ports:
                listener = _listen(port.address)
                self._listeners.add(listener, port)
                listener.listen(BACKLOG)
            self._listeners.watch(self._epoll)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes all connections and listeners."""
        for connection in list(self._connections.values()):
            self._close(connection)
        self._listeners.close()
        if self._wake >= 0:
            self._epoll.close()
            os.close(self._wake)
            self._wake = -1

    async def run(self) -> None:
        """Serves until cancelled."""
        self._waits.watch(self._epoll.fileno(), self._turn)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_seconds)
                nursery.start_soon(self._run_newcomers)
                nursery.start_soon(self._run_again)
        finally:
            self._waits.unwatch(self._epoll.fileno())
            self.close()

    async def _run_seconds(self) -> None:
        while True:
            await trio.sleep(STATE_S)
            self.say_state()

    async def _run_newcomers(self) -> None:
        """Who says nothing is a libpaxos learner."""
        while True:
            await self._came.wait()
            while self._silent:
                at, connection = self._silent.popleft()
                if connection.dialect is None and not connection.closed:
                    await trio.sleep_until(at)
                if connection.dialect is None and not connection.closed:
                    connection.dialect = "libpaxos"
                    self._go_on(connection)
            self._came = trio.Event()

    async def _run_again(self) -> None:
        """What the log did not take, and who was not accepted, is tried again."""
        while True:
            await self._again.wait()
            self._again = trio.Event()
            await trio.sleep(RETRY_S)
            self._turn()

    # Turns ---------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Everything that is ready now, once."""
        if self._wake < 0:
            return
        if self._listeners.shortage:
            self._listeners.resume()
        for descriptor, events in self._epoll.poll(0, EVENTS):
            connection = self._connections.get(descriptor)
            if connection is None:
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)
                elif descriptor in self._listeners:
                    self._accept(descriptor)
                continue
            if events & select.EPOLLOUT:
                self._go_on(connection)
            if events & ~select.EPOLLOUT and not connection.closed:
                self._receive(connection)
        lagging, self._lagging = self._lagging, {}
        for connection in lagging:
            self._go_on(connection)
        self.submitter.flush()
        self._send_answers()
        if self._blocked and not self.submitter.full:
            blocked, self._blocked = self._blocked, []
            for connection in blocked:
                connection.blocked = False
                self._watch(connection)
        if self._lagging:
            self._wake_up()
        if self.submitter.waiting or self._listeners.shortage:
            self._again.set()

    def applied(self) -> None:
        """The log has delivered: learners are told; called inside of its calls.

        They first: a program submits its next value when it is told of one, and not when a submit
        is answered.
        """
        self._tell_learners()
        self._send_answers()

    def _tell_learners(self) -> None:
        first, self._head = self._head, self.store.next_iid
        if first == self._head:
            return
        for connection in [c for c in self._ahead if c.stream and c.stream.cursor <= self._head]:
            del self._ahead[connection]
            self._go_on(connection)
        own = self.submitter.take_settled()
        values = None  # a batch too large for a connection to hold is told to each as it takes it
        with suppress(Trimmed):  # or a snapshot took its place
            found = joined(self.store.values(first, OUTPUT_BYTES))
            values = found if found.next == self._head else None
        for group in list(self._live.values()):
            data = b""
            for connection in list(group):
                stream = connection.stream
                assert stream is not None
                if values is None or stream.last < self._head - 1:
                    self._fall_behind(connection)
                    self._go_on(connection)
                    continue
                data = data or (stream.encode_own if own else stream.encode)(values)
                connection.tell(data)
                stream.cursor = self._head
                self._send(connection)
                if connection.choked and not connection.closed:
                    self._fall_behind(connection)

    def _send_answers(self) -> None:
        if self._answered:
            answered, self._answered = self._answered, {}
            for connection in answered:
                self._send(connection)

    def say_state(self) -> None:
        """ACCEPTOR_STATE to all who listen to acceptors; a look at who takes nothing."""
        now = trio.current_time()
        trimmed = min(self.store.low_iid - 1, self.last_iid)
        for connection in list(self._connections.values()):
            if connection.out_bytes and now > connection.taken_at + STALL_S:
                self.counters["stalled"] += 1
                self._tell("a connection from %s took nothing for %g s", connection.host, STALL_S)
                self._close(connection)
            elif not connection.out_bytes:
                connection.taken_at = now
                if connection.dialect == "libpaxos" and connection.acceptor is not None:
                    numbers = connection.acceptor, trimmed
                    connection.tell(encode(Message(Kind.ACCEPTOR_STATE, numbers)))
                    self._send(connection)

    # Connections ---------------------------------------------------------------------------------

    def _accept(self, descriptor: int) -> None:
        _, port = self._listeners[descriptor]
        for sock, (host, _) in self._listeners.accept(descriptor):
            if len(self._connections) >= self.connections_max:
                self.counters["turned_away"] += 1
                self._tell(
                    "a connection from %s is turned away: there are %d already; use other "
                    "addresses of the paxos.conf, or let this process have more descriptors",
                    host, self.connections_max,
                )  # fmt: skip
                sock.close()
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, self._nodelay)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self.counters["connections"] += 1
            now = trio.current_time()
            connection = Connection(sock, host, port.acceptor, now, self._settled)
            self._connections[sock.fileno()] = connection
            connection.mask = select.EPOLLIN
            self._epoll.register(sock.fileno(), connection.mask)
            if port.acceptor is not None:
                connection.stream = Stream(
                    port.acceptor, self._newest(), partial(encode_accepted, (port.acceptor,)),
                    self.last_iid, partial(encode_accepted, self._majorities[port.acceptor]),
                )  # fmt: skip
                self.learners += 1
                self._silent.append((now + GRACE_S, connection))
                self._came.set()
        if self._listeners.shortage:
            self._tell("no connection can be accepted: %s", self._listeners.shortage)

    def _newest(self) -> int:
        """Where learners of libpaxos begin."""
        return min(max(self.store.next_iid - 1, self.store.low_iid), self.last_iid + 1)

    def _close(self, connection: Connection) -> None:
        if connection.closed:
            return
        connection.closed = True
        self._fall_behind(connection)
        self._lagging.pop(connection, None)
        self._ahead.pop(connection, None)
        self._input_bytes -= len(connection.input)
        descriptor = connection.sock.fileno()
        del self._connections[descriptor]
        self._epoll.unregister(descriptor)
        connection.sock.close()
        connection.out.clear()
        connection.input = b""
        self._drop_stream(connection)
        if connection.trimmed is not None:
            self._hold_anew()

    def _drop_stream(self, connection: Connection) -> None:
        if connection.stream is None:
            return
        connection.stream = None
        self.learners -= 1
        if connection.dialect == "frames":
            self._note_frame_learner(-1)

    def _note_frame_learner(self, more: int) -> None:
        """What others submit need not hurry where nobody waits for it here."""
        self._frame_learners += more
        self._awaited(self._frame_learners > 0)

    def _lose(self, connection: Connection) -> None:
        self.counters["lost_connections"] += 1
        self._close(connection)

    def _watch(self, connection: Connection) -> None:
        """Tells epoll what a connection now waits for."""
        if connection.closed:
            return
        mask = select.EPOLLOUT if connection.out else 0
        if not (connection.blocked or connection.busy or connection.choked):
            mask |= select.EPOLLIN
        if mask != connection.mask:
            connection.mask = mask
            self._epoll.modify(connection.sock.fileno(), mask)

    def _wake_up(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _tell(self, text: str, *arguments: object) -> None:
        """A line for what peers cause, but not for each time."""
        now = trio.current_time()
        if now >= self._told_at.get(text, float("-inf")) + TELL_EVERY_S:
            self._told_at[text] = now
            log.warning(text, *arguments)

    # What they are told --------------------------------------------------------------------------

    def _send(self, connection: Connection) -> None:
        """Sends what waits; a learner that was waiting for that is told more."""
        waited = bool(connection.out)
        self._push(connection)
        stream = connection.stream
        if waited and not connection.out and stream is not None and not stream.live:
            # Nobody is told that there is room again once all has gone.
            self._lagging[connection] = None
            self._wake_up()

    def _push(self, connection: Connection) -> None:
        if connection.closed:
            return
        if not connection.send(trio.current_time()):
            self._lose(connection)
            return
        self._watch(connection)

    def _fall_behind(self, connection: Connection) -> None:
        """It is told by itself, as it takes what it is told."""
        stream = connection.stream
        if stream is not None and stream.live:
            stream.live = False
            self._live[stream.group].pop(connection, None)

    def _go_on(self, connection: Connection) -> None:
        """Sends, and tells a learner that is behind what comes next, as far as it takes it."""
        self._push(connection)
        stream = connection.stream
        if stream is None or connection.dialect is None or stream.live:
            return
        for _ in range(PUMPS):
            if connection.closed or connection.out:
                return
            try:
                data = stream.next_bytes(self.store, READ_BYTES)
            except Trimmed as error:
                self._cannot_go_on(connection, stream, error)
                return
            if not data:
                break
            connection.tell(data)
            self._push(connection)
        if connection.closed or connection.out:
            return
        if stream.cursor == self._head and stream.backfill is None:
            stream.live = True
            self._live.setdefault(stream.group, {})[connection] = None
        elif stream.cursor > self._head and stream.backfill is None:
            self._ahead[connection] = None  # to look again and again would bring nothing
        elif stream.cursor <= stream.last or stream.backfill is not None:
            self._lagging[connection] = None
            self._wake_up()

    def _cannot_go_on(self, connection: Connection, stream: Stream, error: Trimmed) -> None:
        """What a learner needs next is not kept any more."""
        self.counters["behind_what_is_kept"] += 1
        self._tell("a learner at %s is too far behind: %s", connection.host, error)
        if connection.dialect == "frames":
            self._part(connection, error)
        else:
            self._close(connection)

    def _part(self, connection: Connection, error: P4xosError) -> None:
        """Closes a client's connection, and says why."""
        connection.tell(encode_frame(error_head(error)))
        self._send(connection)
        self._close(connection)

    # What they say -------------------------------------------------------------------------------

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._lose(connection)
            return
        if not data:
            self._close(connection)
            return
        before = len(connection.input)
        if before:
            data = connection.input + data
        if connection.dialect is None:
            if data[0] == frames.FIRST_BYTE:
                self._drop_stream(connection)
                connection.dialect = "frames"
            else:
                connection.dialect = "libpaxos"
                if connection.stream is not None:
                    self._lagging[connection] = None
        try:
            if connection.dialect == "frames":
                used = self._read_frames_untrusted(connection, data)
            else:
                used = self._read_messages_untrusted(connection, data)
        except BadPacket as error:
            self.counters["bad_messages"] += 1
            self._tell("a connection from %s is closed: %s", connection.host, error)
            if connection.dialect == "frames":
                self._part(connection, error)
            else:
                self._close(connection)
            return
        except P4xosError as error:
            self.counters["refused"] += 1
            self._part(connection, error)
            return
        if self._trims:
            self._hold_anew()
        if connection.closed:
            return
        connection.input = data[used:]
        self._input_bytes += len(connection.input) - before
        if self._input_bytes > INPUT_BYTES and connection.input:
            self.counters["inputs_cut_off"] += 1
            self._tell("connections hold %d bytes of unfinished messages", self._input_bytes)
            self._close(connection)
            return
        if self.submitter.full and not connection.blocked:
            connection.blocked = True
            self._blocked.append(connection)
        if connection.blocked or connection.busy or connection.out:
            self._send(connection)

    def _read_messages_untrusted(self, connection: Connection, data: bytes) -> int:
        parsed = parse_untrusted(data, self._value_max)
        if parsed.lengths:
            self._submit(connection, parsed.lengths, parsed.data)
        repeats = 0
        for message in parsed.messages:
            match message.kind:
                case Kind.REPEAT:
                    self.counters["repeats"] += 1
                    repeats += 1
                    if repeats <= REPEATS:
                        self._repeat(connection, *message.numbers)
                    else:
                        self.counters["repeats_left_out"] += 1
                case Kind.TRIM:
                    self._trim(connection, *message.numbers)
                case Kind.PREPARE | Kind.ACCEPT:
                    self.counters["foreign_proposals"] += 1
                    self._tell(
                        "a libpaxos proposer at %s proposes: nobody here listens, since this "
                        "cluster chooses by itself; stop it", connection.host,
                    )  # fmt: skip
                case _:
                    self.counters["unexpected_messages"] += 1
        return parsed.used

    def _submit(self, connection: Connection, lengths: list[int], data: bytes) -> None:
        self.counters["values_received"] += len(lengths)
        if self.store.next_iid > self.last_iid:
            self.counters["values_beyond_last"] += len(lengths)
            self._tell(
                "instance %d was the last one that libpaxos can count: values of its clients are "
                "not taken any more; move to a new cluster, or to this project's own clients",
                self.last_iid,
            )  # fmt: skip
            return
        connection.under_way += len(lengths)
        self.submitter.gather(lengths, data, connection)

    def _settled(self, connection: Connection, request: int | None, taken: Taken) -> None:
        if connection.closed:
            return
        if request is not None:
            body = b""
            error: dict[str, object] = {}
            if taken.refused:
                error = error_head(SessionLost(taken.client))
            elif taken.first is not None:
                body = pack_instances([taken.first])
            connection.tell(encode_frame({"id": request, **error}, body))
            self._answered[connection] = None
        elif not connection.mask & select.EPOLLIN:
            self._watch(connection)

    def _repeat(self, connection: Connection, first: int, last: int) -> None:
        """A learner that asks for what it was told gets that; what lies before, all of it."""
        stream = connection.stream
        if stream is None or last < first:
            return
        first = max(first, 1)
        if first >= stream.cursor or stream.backfill is not None:
            return  # it is on its way
        if first < self.store.low_iid:
            self.counters["repeats_trimmed"] += 1
            self._tell(
                "a learner at %s needs instance %d, the oldest here is %d: start it from a "
                "checkpoint", connection.host, first, self.store.low_iid,
            )  # fmt: skip
            return
        if first < stream.start:
            self._fall_behind(connection)
            stream.go_back(first)
            self._lagging[connection] = None
        elif not connection.choked:
            stop = min(last + 1, stream.cursor, first + REPEATED_VALUES)
            values = joined(self.store.values(first, READ_BYTES)).before(stop)
            connection.tell(stream.encode(values))
            self._send(connection)

    def _trim(self, connection: Connection, iid: int) -> None:
        """A learner has put aside what it was told, through an instance."""
        self.counters["trims"] += 1
        connection.trimmed = max(connection.trimmed or 0, iid)
        self._trims = True

    def _hold_anew(self) -> None:
        """What any of the learners that trim may still ask for is kept."""
        self._trims = False
        trimmed = [c.trimmed for c in self._connections.values() if c.trimmed is not None]
        hold = min(trimmed) + 1 if trimmed else None
        if hold != self._hold:
            self._hold = hold
            self.store.hold_values(hold)

    # Frames --------------------------------------------------------------------------------------

    def _read_frames_untrusted(self, connection: Connection, data: bytes) -> int:
        requests, used = frames.parse_untrusted(data)
        for request in requests:
            self.counters["requests"] += 1
            if not connection.greeted:
                frames.check_hello_untrusted(request, self._cluster, self._node)
                connection.greeted = True
                answer = {
                    "node": self._node, "version": OPEN_VERSION, "cluster": self._cluster,
                    "log": "", "libpaxos": 1,
                }  # fmt: skip
                connection.tell(encode_frame(answer))
                continue
            self._answer_untrusted(connection, request)
        return used

    def _answer_untrusted(self, connection: Connection, request: frames.Request) -> None:
        if request.ask == "deliver":
            first = integer_untrusted(request.head, "first")
            if connection.stream is not None:
                raise BadPacket("one deliver a connection")
            connection.stream = Stream(
                "frames", first or self.store.next_iid, frames.encode_delivered, FRAMES_LAST
            )
            self.learners += 1
            self._note_frame_learner(+1)
            self._lagging[connection] = None
            if not first:  # it knows where it begins before it submits anything
                head = {"next": self.store.next_iid}
                connection.tell(encode_frame(head, pack_delivered([])))
            return
        number = integer_untrusted(request.head, "id")
        if request.ask == "submit":
            try:
                key, payload = frames.read_submit_untrusted(request, self._command_bytes_max)
            except Refused as error:
                connection.tell(encode_frame({"id": number, **error_head(error)}))
                return
            connection.under_way += 1
            self.submitter.submit(key, payload, connection, number)
        elif request.ask == "trim":
            self._trim(connection, integer_untrusted(request.head, "instance"))
            connection.tell(encode_frame({"id": number}))
        elif request.ask == "status":
            connection.tell(encode_frame({"id": number, "status": self.status()}))
        else:
            known = "deliver, status, submit, trim"
            raise BadPacket(f"the request {request.ask[:40]!r} is unknown; known are {known}")

    def status(self) -> Mapping[str, object]:
        """For people, scripts and metrics."""
        connections = self._connections.values()
        return {
            "next_iid": self.store.next_iid,
            "low_iid": self.store.low_iid,
            "last_iid": self.last_iid,
            "connections": len(connections),
            "connections_max": self.connections_max,
            "learners": sum(c.stream is not None for c in connections),
            "learners_behind": sum(c.stream is not None and not c.stream.live for c in connections),
            "packs_under_way": self.submitter.under_way,
            "clients": len(self.store.clients),
            "counters": dict(self.counters),
        }


def majorities(ports: Sequence[Port], acceptors: int) -> dict[int, tuple[int, ...]]:
    """As which acceptors to speak at each acceptor's port, so that all of them are a majority.

    Args:
      ports: of one gateway.
      acceptors: how many there are.
    """
    own = [port.acceptor for port in ports if port.acceptor is not None]
    lacking = max(acceptors // 2 + 1 - len(own), 0)
    others = [k for k in range(acceptors) if k not in own][:lacking]
    return {k: (k, *others) if k == own[0] else (k,) for k in own}


def _listen(address: Address) -> socket.socket:
    try:
        return listen(address, "paxos.conf")
    except ListenFailed as error:
        raise PortTaken(address, error.reason) from error
