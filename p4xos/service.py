"""A node's TCP service: clients that have no learner of their own, and peers that catch up.

    asked                                          answered
    hello   cluster, version, peer                 node, cluster, version, log
    hello   the same, nonce                        cluster, nonce           where there is a secret
    prove                                          node, cluster, version, log
    submit  id; body: payloads                     id, instances            or id and an error
    recover id, instance                           id; body: the value      or id and an error
    status  id                                     id, status
    deliver first                                  for ever: next; body: delivered values
    tail    first                                  body: chosen values ...; then: end, delivered
    copy    above                                  copy, through, files     (`transfers`)
    piece   copy, name, offset                     check; body: bytes
    planes, move, reconfigure                      as in `moving` and `reconfiguring`
    others  id                                     id and what the application answers

`hello` comes first, and `prove` (`sealing`) where the cluster has a secret: nothing is answered to
whoever has not got it. The next requests need not wait for answers. An error is a head with "error"
(`remote_errors`). Bytes that are no request are answered by an error, and the connection is closed;
nothing that a peer sends ends anything else. The peer's pace bounds the memory: one frame of a
stream is made when the one before it has left, and a connection with REQUESTS_MAX submissions or
REPLY_BYTES_MAX of answers that it has not taken is not read from.
docs/PROTOCOL.md, sections 6 and 7.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import trio

from p4xos.application import Application
from p4xos.config import Cluster
from p4xos.effects import Chosen
from p4xos.errors import BadPacket, P4xosError
from p4xos.framing import (
    BODY_BYTES_MAX,
    HEAD_BYTES_MAX,
    LARGE_AT_ONCE,
    Frame,
    FrameStream,
    bytes_untrusted,
    encode_head,
    integer_untrusted,
    text_untrusted,
)
from p4xos.local import propose_with_patience
from p4xos.logstore import LogStore
from p4xos.packing import (
    pack_delivered,
    pack_instances,
    pack_runs,
    split_chosen,
    unpack_payloads_untrusted,
)
from p4xos.ports import holder
from p4xos.remote_errors import Refused, error_head
from p4xos.sealing import NONCE_BYTES, Altered, Seal, new_nonce
from p4xos.secret import SECRET_NAME, Secret
from p4xos.tables import Address
from p4xos.transfers import Copies

log = logging.getLogger(__name__)

OPEN_VERSION, SEALED_VERSION = 1, 2
"""Of this service, without and with a secret. The first is what releases without secrets speak, so
that a cluster without one can be upgraded a node at a time."""
CONNECTIONS_MAX = 128
CLIENTS_MAX = 112
"""Of them; the rest is kept for nodes that catch up."""
assert CLIENTS_MAX < CONNECTIONS_MAX
STRANGERS_MAX = 32
"""Of them, from machines that are not in the cluster file and have not proved anything yet: they
must not keep nodes out."""
HELLO_S = 5.0
"""A connection that has not said who it is by then, and proved it, is closed."""
HELLO_BYTES_MAX = 1024
"""Of each frame's head until then; there is no body."""
TELL_EVERY_S = 10.0
"""Whoever has not proved who it is can fill counters, but not the log."""
PARTING_S = 2.0
"""How long a peer may take to take the error that ends its connection."""
REQUESTS_MAX = 1024
"""Submissions of a connection not yet delivered, beyond which it is not read from."""
REPLY_BYTES_MAX = 1 << 20
"""Of answers that the peer has not taken, beyond which it is not read from."""
STREAM_BYTES = 256 << 10
"""Of values in one frame of `deliver` and `tail`; one command more where it is longer."""
RUN_OVERHEAD_BYTES = 64
"""Bounds how many runs of no-ops, whose values take no bytes, share a frame."""
BACKLOG = 128


Question = Callable[[Mapping[str, object]], Awaitable[Mapping[str, object]]]
"""Gets the head of a request, which a peer wrote; returns that of the answer, or raises a
P4xosError, BadPacket among them."""


UNPROVEN = {
    "unproven_open": "has none",
    "unproven_wrong": "has another one",
    "unproven_ended": "left before it proved anything",
    "unproven_altered": "was cut off, since a frame was changed on the way",
}
"""Why a connection is not believed, as counted; and in words."""


class ListenFailed(P4xosError):
    """The node's TCP address cannot be had."""

    def __init__(self, address: Address, reason: str, key: str) -> None:
        super().__init__(
            f"cannot listen on TCP {address}: {reason}; stop what uses it, or give the node "
            f'another "{key}" address in the cluster file, the same on every machine'
        )
        self.address = address
        self.reason = reason


def listen(address: Address, key: str = "peer") -> socket.socket:
    """A listening socket; `key` is the one of the cluster file that has the address.

    Raises:
      ListenFailed: the address is in use, or not one of this machine.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            process = holder(address.port)
            reason = "it is in use" + (f" by {process}" if process else "")
        raise ListenFailed(address, reason, key) from error
    return listener


class Service:
    """Serves one node's connections."""

    def __init__(
        self,
        cluster: Cluster,
        node: str,
        status: Callable[[], Mapping[str, object]],
        application: Application | None,
        copies: Copies | None,
        secret: Secret | None,
    ) -> None:
        """Idle until `run`.

        Args:
          cluster: of which cluster it is.
          node: its name.
          status: what to tell about it.
          application: its replica, where it has a learner.
          copies: snapshots of that one, for peers.
          secret: the cluster's; None: whoever connects is served.
        """
        self.cluster = cluster
        self.secret = secret
        self.node = node
        self.application = application
        self.copies = copies
        self.store: LogStore | None = None
        """Where values are submitted and delivered; other applications have clients of their own"""
        self.questions: dict[str, Question] = {}
        """What is answered besides, by the word that asks."""
        self.errands: dict[str, Question] = {}
        """The same for what takes long: other requests of the connection are answered meanwhile."""
        if application is not None and isinstance(application.machine, LogStore):
            self.store = application.machine
        self.status = status
        self.counters = dict.fromkeys(
            (
                "connections", "lost_connections", "failed_connections", "bad_frames", "refused",
                "requests", "turned_away", *UNPROVEN,
            ),
            0,
        )  # fmt: skip
        self.connections = 0
        self.clients = 0
        self.strangers = 0
        """Connections from elsewhere than the cluster's machines that have proved nothing yet."""
        self._machines = {peer.peer.host for peer in cluster.nodes}
        self._tell_at = float("-inf")
        self._untold = 0
        self.large = trio.CapacityLimiter(LARGE_AT_ONCE)

    async def run(self, listener: socket.socket) -> None:
        """Accepts connections until cancelled; owns the listener."""
        listening = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        async with trio.open_nursery() as nursery:
            if self.copies is not None:
                nursery.start_soon(self.copies.run)
            await trio.serve_listeners(self._serve, [listening], handler_nursery=nursery)

    async def _serve(self, stream: trio.SocketStream) -> None:
        """One connection; nothing is raised out of here but cancellation."""
        self.counters["connections"] += 1
        if self.connections >= 2 * CONNECTIONS_MAX:
            # Half of them are being told that there are too many; that costs memory as well.
            self.counters["turned_away"] += 1
            await trio.aclose_forcefully(stream)
            return
        frames = FrameStream(stream, body_bytes_max=0, large=self.large)
        frames.head_bytes_max = HELLO_BYTES_MAX
        self.connections += 1
        try:
            host: str = stream.socket.getpeername()[0]
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            await Connection(self, frames, host, stranger=host not in self._machines).run()
            await frames.aclose_politely()
        except BadPacket:
            self.counters["bad_frames"] += 1
            await frames.aclose_politely()
        except P4xosError:
            self.counters["refused"] += 1
            await frames.aclose_politely()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            self.counters["lost_connections"] += 1
        except Exception:
            # A mistake of ours in one answer must not end the replica for all others.
            self.counters["failed_connections"] += 1
            log.exception("a connection failed")
        finally:
            self.connections -= 1
            await frames.aclose()


    def note_unproven(self, reason: str, host: str) -> None:
        """Counts a connection that did not prove who it is, and tells of it, but not of each."""
        self.counters[reason] += 1
        self._untold += 1
        now = trio.current_time()
        if now >= self._tell_at:
            log.warning(
                "%d connections did not prove that they have the cluster's secret; the last, from "
                "%s, %s", self._untold, host, UNPROVEN[reason],
            )  # fmt: skip
            self._tell_at, self._untold = now + TELL_EVERY_S, 0


class Connection:
    """One client or peer."""

    def __init__(
        self, service: Service, frames: FrameStream, host: str = "", *, stranger: bool = False
    ) -> None:
        """Says nothing until `run`.

        Args:
          service: of which it is.
          frames: the connection; this does not close it.
          host: from where it comes.
          stranger: whether that is no machine of the cluster.
        """
        self.service = service
        self.frames = frames
        self._host = host
        self._stranger = stranger
        self._submissions = 0  # not delivered yet
        self._settled_one = trio.Event()
        self._delivering = False
        self._on_errand = False
        self._is_client = False
        self._problem: Exception | None = None
        self._actions: dict[str, Callable[[Frame], Awaitable[None]]] = {
            "submit": self._submit,
            "recover": self._recover,
            "status": self._status,
            "deliver": self._start_deliver,
            "tail": self._tail,
            "copy": self._copy,
            "piece": self._piece,
        }

    async def run(self) -> None:
        """Until the peer ends it.

        Raises:
          BadPacket, P4xosError: it broke a rule, and was told so.
          trio.BrokenResourceError: the connection is lost.
        """
        self.service.strangers += self._stranger
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._task, self.frames.run_writer)
                self._nursery.start_soon(self._task, self._read)
        finally:
            self.service.clients -= self._is_client
            self.service.strangers -= self._stranger
        if self._problem is not None:
            raise self._problem

    async def _task(self, main: Callable[[], Awaitable[None]]) -> None:
        """Runs a part of the connection; its end is that of all of them."""
        try:
            await main()
        except Exception as error:
            await self._fail(error)
        self._nursery.cancel_scope.cancel()

    async def _fail(self, error: Exception) -> None:
        """The connection ends for this, and the peer is told where it can be."""
        self._problem = self._problem or error
        if isinstance(error, P4xosError):
            self.frames.post(error_head(error))
            with trio.move_on_after(PARTING_S):
                await self.frames.wait_posted_below(1)

    async def _read(self) -> None:
        """A hello, then requests."""
        service = self.service
        if service.connections > CONNECTIONS_MAX:
            raise Refused(f"this node has {CONNECTIONS_MAX} connections; try another node")
        if service.strangers > STRANGERS_MAX:
            raise Refused(f"{STRANGERS_MAX} connections have not said who they are; try again")
        welcome = False
        with trio.move_on_after(HELLO_S) as waiting:
            welcome = await self._receive_hello_untrusted()
        if waiting.cancelled_caught:
            if self.frames.seal is not None:
                service.note_unproven("unproven_ended", self._host)
            raise BadPacket(f"no hello within {HELLO_S:g} s")
        if welcome:
            await self._read_requests()

    async def _receive_hello_untrusted(self) -> bool:
        """A hello and its proof, and the answer to them; False when the peer ended before."""
        hello = await self.frames.receive_untrusted()
        if hello is None:
            return False
        self._check_hello_untrusted(hello.head)
        if self.service.secret is not None:
            self._challenge_untrusted(hello.head, self.service.secret)
            try:
                proof = await self.frames.receive_untrusted()
            except Altered:
                self.service.note_unproven("unproven_wrong", self._host)
                raise
            except (BadPacket, trio.BrokenResourceError):
                self.service.note_unproven("unproven_ended", self._host)
                raise
            if proof is None:
                self.service.note_unproven("unproven_ended", self._host)
                return False
            if text_untrusted(proof.head, "ask") != "prove":
                raise BadPacket("the request behind hello must be prove")
        self._welcome(is_client=hello.head.get("peer") is not True)
        return True

    def _check_hello_untrusted(self, head: dict[str, object]) -> None:
        """Refuses who speaks something else, or with another cluster."""
        service = self.service
        if text_untrusted(head, "ask") != "hello":
            raise BadPacket("the first request must be hello")
        version = integer_untrusted(head, "version")
        speaks = OPEN_VERSION if service.secret is None else SEALED_VERSION
        if version == OPEN_VERSION != speaks:
            service.note_unproven("unproven_open", self._host)
            raise Refused(
                f"this cluster has a secret and you have none; put its {SECRET_NAME} (mode 0600) "
                "beside your cluster file"
            )
        if version == SEALED_VERSION != speaks:
            raise Refused(
                f"node {service.node} has no secret and you have one; put {SECRET_NAME} (mode "
                "0600) beside its cluster file, and start it again"
            )
        if version != speaks:
            raise Refused(
                f"node {service.node} speaks version {speaks} of this service and you "
                f"{version}; use the same release on both sides: upgrade the older one"
            )
        cluster = integer_untrusted(head, "cluster")
        if cluster not in (0, service.cluster.id):  # 0: whichever it is
            raise Refused(
                f"node {service.node} belongs to cluster {service.cluster.id:08x}, not to "
                f"{cluster:08x}; check the address, or use that cluster's file"
            )

    def _challenge_untrusted(self, hello: dict[str, object], secret: Secret) -> None:
        """Sends a nonce; from here on everything is sealed."""
        ours, cluster = new_nonce(), self.service.cluster.id
        nonces = bytes_untrusted(hello, "nonce", NONCE_BYTES) + ours
        self.frames.post({"cluster": cluster, "nonce": ours})
        self.frames.seal = Seal.of(secret, "listening", cluster, nonces, encode_head(hello))

    def _welcome(self, *, is_client: bool) -> None:
        """Answers a hello; from here on the peer is believed."""
        service = self.service
        service.strangers -= self._stranger
        self._stranger = False
        if is_client and service.clients >= CLIENTS_MAX:
            raise Refused(f"node {service.node} has {CLIENTS_MAX} clients; try another node")
        self._is_client = is_client
        service.clients += is_client
        self.frames.head_bytes_max = HEAD_BYTES_MAX
        self.frames.body_bytes_max = BODY_BYTES_MAX
        self.frames.post(
            {
                "node": service.node,
                "version": OPEN_VERSION if service.secret is None else SEALED_VERSION,
                "cluster": service.cluster.id,
                "log": "" if service.store is not None else str(self._no_log()),
            }
        )

    async def _receive_untrusted(self) -> Frame | None:
        try:
            return await self.frames.receive_untrusted()
        except Altered:
            self.service.note_unproven("unproven_altered", self._host)
            raise

    async def _read_requests(self) -> None:
        while (frame := await self._receive_untrusted()) is not None:
            self.service.counters["requests"] += 1
            ask = text_untrusted(frame.head, "ask")
            action = self._actions.get(ask)
            if action is None and ask in self.service.questions:
                action = self._question
            if action is None and ask in self.service.errands:
                action = self._start_errand
            if action is None:
                served = self.service
                known = ", ".join(sorted([*self._actions, *served.questions, *served.errands]))
                raise BadPacket(f"the request {ask[:40]!r} is unknown; known are {known}")
            await action(frame)
            await self.frames.wait_posted_below(REPLY_BYTES_MAX)
            while self._submissions >= REQUESTS_MAX:
                self._settled_one = trio.Event()  # nobody else waits for it
                await self._settled_one.wait()

    def _no_log(self) -> Refused:
        node = self.service.node
        if self.service.application is None:
            return Refused(f"node {node} has no learner; connect to one that has")
        return Refused(
            f"node {node} runs an application of its own on the log; be a client of that"
        )

    # Clients -------------------------------------------------------------------------------------

    async def _submit(self, frame: Frame) -> None:
        """Proposes values as soon as there is room: until then nothing more is read."""
        request = integer_untrusted(frame.head, "id")
        payloads = unpack_payloads_untrusted(frame.body)
        store, application = self.service.store, self.service.application
        try:
            if store is None or application is None:
                raise self._no_log()
            tickets = await propose_with_patience(
                application, store, payloads, self.service.cluster.timing.deadline_s
            )
        except ValueError as error:
            self._answer(request, error_head(Refused(str(error))))
        except P4xosError as error:
            self._answer(request, error_head(error))
        else:
            self._submissions += 1
            store.submissions.expect(tickets, partial(self._settled, request))

    def _settled(self, request: int, outcome: list[int] | P4xosError) -> None:
        self._submissions -= 1
        self._settled_one.set()
        if isinstance(outcome, P4xosError):
            self._answer(request, error_head(outcome))
        else:
            self._answer(request, {}, pack_instances(outcome))

    def _answer(self, request: int, head: Mapping[str, object], body: bytes = b"") -> None:
        self.frames.post({"id": request, **head}, body)

    async def _recover(self, frame: Frame) -> None:
        request = integer_untrusted(frame.head, "id")
        instance = integer_untrusted(frame.head, "instance", 1)
        try:
            if self.service.application is None:
                raise self._no_log()
            self._answer(request, {}, self.service.application.recover(instance))
        except P4xosError as error:
            self._answer(request, error_head(error))

    async def _status(self, frame: Frame) -> None:
        request = integer_untrusted(frame.head, "id")
        self._answer(request, {"status": self.service.status()})

    async def _question(self, frame: Frame) -> None:
        await self._reply(self.service.questions[text_untrusted(frame.head, "ask")], frame)

    async def _start_errand(self, frame: Frame) -> None:
        """Answered beside other requests, one at a time; it ends with the connection."""
        request = integer_untrusted(frame.head, "id")
        ask = text_untrusted(frame.head, "ask")
        if self._on_errand:
            self._answer(request, error_head(Refused(f"one {ask} a connection; wait for it")))
            return
        self._on_errand = True
        self._nursery.start_soon(self._run_errand, self.service.errands[ask], frame)

    async def _run_errand(self, errand: Question, frame: Frame) -> None:
        try:
            await self._reply(errand, frame)
        except Exception as error:
            await self._fail(error)
            self._nursery.cancel_scope.cancel()
        finally:
            self._on_errand = False

    async def _reply(self, question: Question, frame: Frame) -> None:
        request = integer_untrusted(frame.head, "id")
        try:
            self._answer(request, await question(frame.head))
        except BadPacket:
            raise
        except P4xosError as error:
            self._answer(request, error_head(error))

    async def _start_deliver(self, frame: Frame) -> None:
        first = max(integer_untrusted(frame.head, "first"), 1)
        if self.service.store is None:
            raise self._no_log()
        if self._delivering:
            raise BadPacket("one deliver a connection")
        self._delivering = True
        self._nursery.start_soon(self._task, partial(self._deliver, self.service.store, first))

    async def _deliver(self, store: LogStore, first: int) -> None:
        """Streams what is delivered from an instance on, then what follows."""
        while True:
            await store.wait_beyond(first - 1)
            delivered, first = store.delivered(first, STREAM_BYTES)
            self.frames.post({"next": first}, pack_delivered(delivered))
            await self.frames.wait_posted_below(1)

    # Peers ---------------------------------------------------------------------------------------

    async def _tail(self, frame: Frame) -> None:
        """The chosen values that are retained from an instance on, as far as they go now."""
        first = integer_untrusted(frame.head, "first", 1)
        application = self.service.application
        try:
            if application is None:
                raise self._no_log()
            while runs := _take(application, first):
                first = runs[-1].instance + len(runs[-1].lengths)
                if self.service.copies is not None:
                    self.service.copies.keep()
                self.frames.post({}, pack_runs(runs))
                await self.frames.wait_posted_below(1)
            self.frames.post({"end": True, "delivered": application.applied})
        except P4xosError as error:
            self.frames.post(error_head(error))

    async def _copy(self, frame: Frame) -> None:
        above = integer_untrusted(frame.head, "above")
        try:
            if self.service.copies is None:
                raise self._no_log()
            copy = await self.service.copies.make(above)
        except P4xosError as error:
            self.frames.post(error_head(error))
        else:
            self.frames.post({"copy": copy.number, "through": copy.through, "files": copy.files})

    async def _piece(self, frame: Frame) -> None:
        number = integer_untrusted(frame.head, "copy")
        name = text_untrusted(frame.head, "name")
        offset = integer_untrusted(frame.head, "offset", 0, 2**62)
        try:
            if self.service.copies is None:
                raise self._no_log()
            check, data = await self.service.copies.piece(number, name, offset)
        except P4xosError as error:
            self.frames.post(error_head(error))
        else:
            self.frames.post({"check": check}, data)


def _take(application: Application, first: int) -> list[Chosen]:
    """About STREAM_BYTES of retained values; the log may change as soon as this returns."""
    runs: list[Chosen] = []
    size = 0
    for chosen in application.retained.since(first):
        for run in split_chosen(chosen, STREAM_BYTES):
            if size + run.values.nbytes > STREAM_BYTES and runs:
                return runs
            runs.append(run)
            size += run.values.nbytes + RUN_OVERHEAD_BYTES
    return runs
