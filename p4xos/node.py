"""A node: the roles that a cluster file gives to one process, each under its own driver."""

from __future__ import annotations

import gc
import logging
import random
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import trio
from prometheus_client.metrics_core import Metric

from p4xos import checkpointed, logs, planes, processes, reconfiguring, secret, watching
from p4xos.application import Application, BatchMachine
from p4xos.catchup import CatchUp
from p4xos.compiled import compiled_modules
from p4xos.config import MOVABLE, Cluster, Member, Movable, RoleName
from p4xos.driver import Directory, Driver, RoleMachine, RoundStorage, Storage
from p4xos.effects import Effects
from p4xos.errors import P4xosError
from p4xos.health import Health
from p4xos.http import HttpServer
from p4xos.logstore import LogStore, Retention
from p4xos.loop import LINGER_S, Loop
from p4xos.moving import Moves
from p4xos.net import UdpEndpoint
from p4xos.quorum import majority
from p4xos.roles.acceptor import Acceptor
from p4xos.roles.coordinator import Coordinator, CoordinatorTiming
from p4xos.roles.learner import Learner
from p4xos.roles.proposer import Proposer, ProposerTiming
from p4xos.roles.rejoining import ForgetfulAcceptor, Stage, Voter
from p4xos.roles.replica import Replica
from p4xos.service import Service, listen
from p4xos.storage import (
    AcceptorLog,
    AcceptorStorage,
    Forgetful,
    MemoryStorage,
    RoundFile,
    StorageOfJoined,
    set_aside,
)
from p4xos.transfers import Copies
from p4xos.wire import VERSION, Frame

log = logging.getLogger(__name__)

GC_THRESHOLD = 50_000
"""Container objects made between two looks of the collector; Python's own figure is 700."""
STUCK_S = 30.0
"""How long an acceptor that forgot may wait before it is said what may be the matter."""
REBUILD = (
    "when more than a minority of the acceptors has forgotten at once, or is gone, only a new "
    "cluster goes on, from what the replicas hold (kvstore rebuild)"
)
LEAVE_S = 5.0
"""How long a node that was asked to stop may take to part from its clients."""
WATCH_S = 1.0
"""How often a node looks at itself, to log what changed."""


class Node:
    """Opens what its roles need; `run` runs them until it is cancelled."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        roles: list[tuple[RoleName, Member]] | None = None,
        *,
        prefer: planes.Prefer = planes.in_order,
    ) -> None:
        """Nothing is open yet.

        Args:
          cluster: the cluster file.
          name: which node of it.
          roles: those to run; by default all that the file gives to the node.
          prefer: which data plane goes first, where the file leaves it open.
        """
        self.cluster = cluster
        self.name = name
        self.roles = cluster.members_of(name) if roles is None else roles
        self.directory = Directory(cluster)
        self.drivers: list[Driver] = []
        self.coordinator: Coordinator | None = None
        self.application: Application | None = None
        self.forgetful: dict[int, tuple[ForgetfulAcceptor, str]] = {}
        """Acceptors that came up having forgotten, by id, each with the reason."""
        self._stages: dict[int, Stage] = {}  # of those, as last logged
        self._stuck_since = 0.0  # when one of them last came further
        self.service: Service | None = None
        self.catch_up: CatchUp | None = None
        self.health = Health()
        self.started_at = time.time()
        self.acceptors: dict[int, tuple[Voter, Storage]] = {}
        """Those that vote, by id."""
        self.told: dict[str, Callable[[], Mapping[str, object]]] = {}
        """What the application adds to the status, by key."""
        self.collectors: list[Callable[[], Iterable[Metric]]] = []
        """What the application adds to the metrics."""
        self.pages: HttpServer | None = None
        self._secret: secret.Secret | None = None
        self.moves = Moves(self, prefer)
        self._listener: socket.socket | None = None
        self._metrics_listener: socket.socket | None = None
        self._networks: dict[tuple[RoleName, int], UdpEndpoint] = {}
        self._resources = ExitStack()
        own = sum(role == "acceptor" for role, _ in self.roles)
        alone = own >= majority(len(cluster.acceptors))
        self._loop = Loop(linger_s=0.0 if alone else LINGER_S)
        self.watch = self._loop.watch
        self.unwatch = self._loop.unwatch
        self._resources.callback(self._loop.close)
        self._random = random.Random(secrets.randbits(64)).random

    def open(self, machine: BatchMachine | None = None) -> Self:
        """Opens files and sockets.

        Args:
          machine: the application's state, where a learner is among the roles.

        Raises:
          P4xosError, OSError: what could not be opened; what was is closed again.
        """
        with ExitStack() as on_error:
            on_error.callback(self._resources.close)
            self._secret = secret.of(self.cluster)
            # Addresses first: opening an acceptor may use up its one-time mark, and an acceptor in
            # memory mode has then forgotten, though only a port was in use.
            self._bind()
            self._resources.callback(self.moves.close)
            for role, member in self.roles:
                if role == "acceptor":
                    self._open_acceptor(member)
                elif role == "coordinator":
                    self._open_coordinator(member)
                else:
                    assert machine is not None, "a learner needs an application"
                    self._open_learner(member, machine)
            self._open_service()
            on_error.pop_all()
        return self

    def close(self) -> None:
        """Closes what `open` opened."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _frame(self, member: Member) -> Frame:
        return Frame(self.cluster.id, self.cluster.group, member.id)

    def _open_acceptor(self, member: Member) -> None:
        cluster = self.cluster
        directory = cluster.member_directory("acceptor", member.id)
        storage: Storage
        if cluster.storage == "memory":
            voter = self.moves.acceptor(member)
            memory = MemoryStorage.open(
                directory, cluster=cluster.id, group=cluster.group, acceptor=member.id
            )
            if isinstance(memory, Forgetful):
                self._join_again(member, voter, memory, lambda: MemoryStorage.begin(directory))
                return
            voter.begin()
            storage = memory
        else:
            voter = acceptor = self.moves.logged_acceptor(member)
            opened = AcceptorLog.open(
                directory, cluster=cluster.id, group=cluster.group, acceptor=member.id,
                window=cluster.window, carry_over=acceptor.carry_over,
            )  # fmt: skip
            if isinstance(opened, Forgetful):
                self._join_again(
                    member, acceptor, opened, lambda: self._begin_log(directory, acceptor)
                )
                return
            if opened.cut is not None:
                log.warning("acceptor %d: %s", member.id, opened.cut)
            acceptor.restore(opened.records)
            storage = opened.log
        self._add("acceptor", voter, member, storage)
        self.acceptors[member.id] = voter, storage

    def _begin_log(self, directory: Path, acceptor: Acceptor) -> AcceptorLog:
        set_aside(directory)
        return AcceptorLog.begin(
            directory, cluster=self.cluster.id, group=self.cluster.group, acceptor=acceptor.id,
            window=self.cluster.window, carry_over=acceptor.carry_over,
        )  # fmt: skip

    def _join_again(
        self,
        member: Member,
        acceptor: Voter,
        reason: Forgetful,
        begin: Callable[[], AcceptorStorage],
    ) -> None:
        """One that may have forgotten a vote must not vote (docs/PROTOCOL.md, section 8)."""
        log.warning(
            "acceptor %d may have forgotten what it voted for: %s; it stays silent until the "
            "others have told what it must know, and all that it may have voted for is "
            "checkpointed", member.id, reason,
        )  # fmt: skip
        if len(self.cluster.acceptors) == 1:
            log.error(
                "acceptor %d is the only one, so nobody remembers: nothing more can be written; "
                "%s", member.id, REBUILD,
            )  # fmt: skip
        forgetful = ForgetfulAcceptor(
            acceptor, learners=len(self.cluster.learners), random=self._random,
            now=trio.current_time(),
        )  # fmt: skip
        storage = StorageOfJoined(begin)
        self._add("acceptor", forgetful, member, storage)
        self.forgetful[member.id] = forgetful, str(reason)
        self.acceptors[member.id] = acceptor, storage

    @property
    def silent(self) -> list[str]:
        """Acceptors that have forgotten and do not take part yet, each with what it waits for."""
        return [
            f"acceptor {id} has forgotten ({reason}): {role.status()}"
            for id, (role, reason) in self.forgetful.items()
            if not role.joined
        ]

    def _open_coordinator(self, member: Member) -> None:
        cluster = self.cluster
        file = RoundFile(
            cluster.member_directory("coordinator", member.id) / "round",
            cluster=cluster.id, group=cluster.group, coordinator=member.id,
        )  # fmt: skip
        timing = cluster.timing
        self.coordinator = Coordinator(
            frame=self._frame(member),
            coordinators=tuple(other.id for other in cluster.coordinators),
            acceptors=len(cluster.acceptors),
            learners=len(cluster.learners),
            window=cluster.window,
            value_bytes=cluster.value_bytes,
            random=self._random,
            now=trio.current_time(),
            last_round=file.read(),
            timing=CoordinatorTiming(
                heartbeat_s=timing.heartbeat_s, takeover_s=timing.takeover_timeout_s
            ),
            sequencer=self.moves.sequencer(member),
        )
        self._add("coordinator", self.coordinator, member, RoundStorage(file))

    def _open_learner(self, member: Member, machine: BatchMachine) -> None:
        cluster, timing = self.cluster, self.cluster.timing
        learner = Learner(
            frame=self._frame(member),
            acceptors=len(cluster.acceptors),
            window=cluster.window,
            value_bytes=cluster.value_bytes,
            delivered=machine.applied,
            sessions=checkpointed.unpack(machine.learner_state()),
            gap_timeout_s=timing.gap_timeout_s,
        )
        proposer = Proposer(
            frame=self._frame(member),
            acceptors=len(cluster.acceptors),
            window=cluster.window,
            value_bytes=cluster.value_bytes,
            random=self._random,
            timing=ProposerTiming(retry_s=timing.retry_s, deadline_s=timing.deadline_s),
        )
        replica = Replica(learner, proposer)
        self.application = Application(replica, machine)
        driver = self._add(
            "learner", replica, member, handle=self.application.handle,
            unhurried=self.application.unhurried, look=self.application.look,
        )  # fmt: skip
        self.application.attach(driver)

    def _bind(self) -> None:
        """The addresses of the roles, and the node's own, for clients and peers, over TCP.

        Roles that run in several processes share the latter: it then belongs to the learner's.
        """
        found = planes.find(self.cluster.data_plane)  # whose network it is, wherever roles move
        for role, member in self.roles:
            with found.place(self.cluster, role, member):
                network = self._networks[role, member.id] = UdpEndpoint.bind(member.address)
            self._resources.callback(network.close)
        learns = any(role == "learner" for role, _ in self.roles)
        if learns or self.roles == self.cluster.members_of(self.name):
            node = self.cluster.node(self.name)
            self._listener = listen(node.peer)
            self._resources.callback(self._listener.close)
            if node.metrics is not None:
                self._metrics_listener = listen(node.metrics, "metrics")
                self._resources.callback(self._metrics_listener.close)

    def _open_service(self) -> None:
        cluster, name = self.cluster, self.name
        if self._listener is None:
            return
        if self._secret is None:
            log.warning(
                "this cluster has no secret: whoever reaches %s can read its data; make one with "
                "%s, copy it beside the cluster file of every machine, and start its nodes again",
                cluster.node(name).peer, secret.make_command(cluster),
            )  # fmt: skip
        copies = None
        if self.application is not None:
            copies = Copies(self.application, cluster.data_directory(name) / "outgoing")
            self.catch_up = CatchUp(cluster, name, self.application, self._secret)
        self.service = Service(
            cluster, name, self.status, self.application, copies, self._secret
        )
        self.service.questions["planes"] = self.moves.planes_untrusted
        self.service.questions["move"] = self.moves.move_untrusted
        self.service.errands["reconfigure"] = reconfiguring.Answers(cluster).reconfigure_untrusted

    def _add(
        self,
        role_name: RoleName,
        role: RoleMachine,
        member: Member,
        storage: Storage | None = None,
        handle: Callable[[Effects, float], Effects | None] | None = None,
        unhurried: Callable[[], bool] | None = None,
        look: Callable[[], None] | None = None,
    ) -> Driver:
        if storage is not None:
            self._resources.callback(storage.close)
        network = self._networks[role_name, member.id]
        name = f"{role_name} {member.id}"
        driver = Driver(
            name, role, network, self.directory,
            storage=storage, handle=handle, unhurried=unhurried, look=look,
        )  # fmt: skip
        self.drivers.append(driver)
        self.moves.drive(role_name, member, driver)
        self._loop.add(driver)
        return driver

    async def run(self) -> None:
        """Runs all roles; returns only by cancellation or an error, which stops the node."""
        # What is loaded by now lives as long as the process, and batches hold no cycles: the
        # collector need not walk over the former again and again to find none of the latter.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        if modules := compiled_modules():
            log.info("%d modules are compiled", len(modules))
        if not processes.prefer_batches():
            log.info("this system forbids SCHED_BATCH: batches will be smaller under load")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._loop.run)
            if self.application is not None:
                nursery.start_soon(self.application.run_checkpoints)
            if self.catch_up is not None:
                nursery.start_soon(self.catch_up.run)
            if self.service is not None:
                assert self._listener is not None
                nursery.start_soon(self.service.run, self._listener)
            if self._metrics_listener is not None:
                self.pages = watching.server(self)
                nursery.start_soon(self.pages.run, self._metrics_listener)
            nursery.start_soon(self._watch)

    async def reconfigure(
        self, data_plane: str, roles: Sequence[Movable] = MOVABLE
    ) -> reconfiguring.Reconfigured:
        """Moves the roles of the whole group to another data plane, as `reconfiguring` says."""
        return await reconfiguring.reconfigure(self.cluster, data_plane, roles)

    async def _watch(self) -> None:
        """A stall has a log line, and so has its end."""
        last: tuple[object, ...] = ()
        told: dict[tuple[str, int], int] = {}
        while True:
            self._note_progress()
            self._tell_forgetful()
            self._tell_versions(told)
            if self.coordinator is not None:
                status = self.coordinator.status()
                seen = (status["phase"], status["round"], status["blocked"])
                if seen != last:
                    last = seen
                    log.info("coordinator: %s, round %s %s", *seen)
            await trio.sleep(WATCH_S)

    def _tell_versions(self, told: dict[tuple[str, int], int]) -> None:
        """Who speaks another version than this node: nothing that comes from there is taken."""
        for address, peer in self.directory.peers.items():
            version = peer.other_version
            if version is not None and told.get(address) != version:
                told[address] = version
                log.warning(
                    "datagrams of version %d from %s:%d are dropped: this node speaks version %d; "
                    "upgrade %s", version, *address, VERSION,
                    "this node" if version > VERSION else "the node there",
                )  # fmt: skip

    def _tell_forgetful(self) -> None:
        """How far acceptors that forgot have come, and when they do not come further."""
        now = trio.current_time()
        stages = {id: role.stage for id, (role, _) in self.forgetful.items()}
        for id, stage in stages.items():
            if self._stages.get(id) is not stage:
                self._stuck_since = now
                log.info("acceptor %d: %s", id, self.forgetful[id][0].status())
        self._stages = stages
        waiting = "; ".join(self.silent)
        if waiting and now >= self._stuck_since + STUCK_S:
            self._stuck_since = now
            log.warning("no progress for %g s: %s; %s", STUCK_S, waiting, REBUILD)

    def _note_progress(self) -> None:
        if self.application is not None:
            learner, proposer = self.application.replica.learner, self.application.replica.proposer
            outstanding = learner.heard > learner.delivered or proposer.in_flight > 0
            self.health.note(learner.delivered, outstanding, trio.current_time())

    def status(self) -> dict[str, object]:
        """For people and scripts: where each role stands, and everything counted."""
        self._note_progress()
        return watching.status(self)


async def until_signalled(
    main: Callable[[], Awaitable[None]],
    leave: Callable[[], Awaitable[None]] | None = None,
    again: Callable[[], None] | None = None,
) -> None:
    """Runs an async function until it ends, or SIGTERM, SIGINT or SIGHUP asks it to stop.

    Args:
      main: is cancelled then.
      leave: runs before, for `LEAVE_S` at the most; a second signal ends it.
      again: what SIGHUP does instead: to read files again.
    """
    stop = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    with trio.open_signal_receiver(*stop) as signals:
        leaving = trio.Event()
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for number in signals:
                    if number == signal.SIGHUP and again is not None:
                        again()
                        continue
                    log.info("stopping on %s", signal.Signals(number).name)
                    if leave is None or leaving.is_set():
                        nursery.cancel_scope.cancel()
                        return
                    leaving.set()
                    nursery.start_soon(leave_and_stop, leave)

            async def leave_and_stop(leave: Callable[[], Awaitable[None]]) -> None:
                with trio.move_on_after(LEAVE_S):
                    await leave()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await main()
            nursery.cancel_scope.cancel()


def run_main(
    main: Callable[..., Awaitable[None]],
    *args: object,
    node: str,
    log_format: logs.LogFormat | None = None,
) -> None:
    """Runs an async main function; what stopped it arrives as one error, not as a group.

    Every nursery that an error passes wraps it in an ExceptionGroup, and a full disk may stop
    several roles at once: who reports it to a person wants one error. The others are logged.
    Several errors of which one is our bug stay a group, for the tracebacks of all.
    """
    logs.configure(log_format or logs.format_of_environment(), node=node)
    try:
        trio.run(main, *args)
    except BaseExceptionGroup as group:
        first, *others = dict.fromkeys(_leaves(group))  # one may have passed several tasks
        if others and not all(isinstance(e, (P4xosError, OSError)) for e in (first, *others)):
            raise
        for other in others:
            log.error("also: %s", other)
        raise first from None


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for below in error.exceptions for leaf in _leaves(below)]
    return [error]


Opened = Callable[[Node], object]


def run(
    cluster: Cluster,
    name: str,
    log_format: logs.LogFormat | None = None,
    *,
    prefer: planes.Prefer = planes.in_order,
    opened: Opened | None = None,
) -> None:
    """Runs a node of the plain log until a signal stops it.

    Args:
      cluster: the cluster file.
      name: which node of it.
      log_format: of its log; None: as the environment says.
      prefer: as `Node`.
      opened: called when it is open, before it runs.

    Raises:
      P4xosError, OSError: what could not be opened, or what broke.
    """
    roles = cluster.members_of(name)
    run_main(_main, cluster, name, roles, prefer, opened, node=name, log_format=log_format)


def run_role(
    cluster: Cluster,
    role: RoleName,
    member_id: int,
    log_format: logs.LogFormat | None = None,
    *,
    prefer: planes.Prefer = planes.in_order,
    opened: Opened | None = None,
) -> None:
    """Runs one role alone until a signal stops it; a learner has the plain log's store.

    The arguments are those of `run`.

    Raises:
      P4xosError, OSError: what could not be opened, or what broke.
    """
    member = cluster.member(role, member_id)
    roles = [(role, member)]
    name = member.node
    run_main(_main, cluster, name, roles, prefer, opened, node=name, log_format=log_format)


async def _main(
    cluster: Cluster,
    name: str,
    roles: list[tuple[RoleName, Member]],
    prefer: planes.Prefer,
    opened: Opened | None,
) -> None:
    with ExitStack() as stack:
        store: LogStore | None = None
        for role, member in roles:
            if role == "learner":
                directory = cluster.member_directory(role, member.id) / "log"
                store = LogStore(directory, cluster.id, Retention.of(cluster))
                stack.callback(store.close)
        node = stack.enter_context(Node(cluster, name, roles, prefer=prefer).open(store))
        if opened is not None:
            opened(node)
        log.info("node %s runs %s", name, ", ".join(f"{role} {m.id}" for role, m in roles))
        await until_signalled(node.run)
