"""One thread, one virtual clock: the whole cluster, its faults and its load, from one seed.

The fault phase looks for broken invariants. Then the network heals, a majority of each role runs,
and everything that was submitted must come to an end (Liveness).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from random import Random

import numpy as np

from p4xos import wire
from p4xos.effects import COORDINATORS, Chosen, Delivery, Effects, Role, To
from p4xos.errors import ConflictingVotes, Overloaded
from p4xos.quorum import majority
from p4xos.roles.recovery import RESEND_S
from p4xos.testing.checkers import (
    AcceptorChecker,
    CoordinatorChecker,
    ReadChecker,
    ReplicaChecker,
    TrimChecker,
    Violation,
    Votes,
    demand,
    unpack,
)
from p4xos.testing.fakes import AppliedLog
from p4xos.testing.simulator.network import Address, Network
from p4xos.testing.simulator.processes import (
    CLUSTER,
    GROUP,
    AcceptorProcess,
    Classes,
    CoordinatorProcess,
    Process,
    Read,
    ReplicaProcess,
    Submission,
)
from p4xos.testing.simulator.scenario import Scenario
from p4xos.wire import Message, Rows

LIVENESS_S = 30.0
"""Virtual seconds after healing: takeovers at the largest back-off, and then the retries."""
TRANSFER_S = 0.02
PROBE_TAKEOVERS = 4
MOVE_DIES = 0.1
SPLIT_INBOX = 0.2
CLOCK_GRAIN_S = 1e-7
"""A wake-up is so late: local clocks are sums, and a sum must not end below its deadline."""
_CHECK_EVERY_S = 0.05


class Simulation:
    """One run. `run` returns, or raises Violation or whatever a role raised."""

    def __init__(
        self,
        scenario: Scenario,
        classes: Classes | None = None,
        trace: Callable[[str], None] | None = None,
        process_types: dict[Role, type[Process]] | None = None,
    ) -> None:
        self.scenario = scenario
        self.now = 0.0
        self.messages = 0  # that arrived
        self.steps = 0
        self.crashes = 0
        self.disks_lost = 0
        self.rejoined = 0  # acceptors that had forgotten
        self.moves = 0  # of acceptors and sequencers, to another data plane
        self._moves_random = Random(f"{scenario.seed} moves")
        self._random = Random(f"{scenario.seed} world")
        self._trace = trace
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._faulty = True
        self._healed_at = float("inf")
        self._reads = 0
        self._unfinished_reads: set[int] = set()
        self._serial = 0
        self._probes: dict[int, bool] = {}  # after healing, by replica: its command was delivered
        self.network = Network(scenario, Random(f"{scenario.seed} network"))
        self.votes = Votes(scenario.acceptors)
        self.acceptor_checker = AcceptorChecker(scenario.acceptors, scenario.window, self.votes)
        self.coordinator_checker = CoordinatorChecker()
        self.trim_checker = TrimChecker(scenario.learners, scenario.window)
        self.replica_checker = ReplicaChecker(scenario.learners, self.votes)
        self.read_checker = ReadChecker(self.replica_checker)
        types: dict[Role, type[Process]] = {
            Role.ACCEPTOR: AcceptorProcess,
            Role.COORDINATOR: CoordinatorProcess,
            Role.LEARNER: ReplicaProcess,
            **(process_types or {}),
        }
        members = {
            Role.ACCEPTOR: scenario.acceptors,
            Role.COORDINATOR: scenario.coordinators,
            Role.LEARNER: scenario.learners,
        }
        self.processes: dict[Address, Process] = {}
        for role, count in members.items():
            for id in range(count):
                random = Random(f"{scenario.seed} {role.name} {id}")
                process = types[role]((role, id), scenario, classes or Classes(), random)
                self.processes[role, id] = process
        for replica in self.replicas():
            replica.on_read = self._read_finished
            replica.on_done = self._submission_done

    # The run -------------------------------------------------------------------------------------

    def run(self) -> None:
        """The fault phase, then the liveness phase."""
        late_s = self._random.choice((0.0, 3 * self.scenario.takeover_s))
        for process in self.processes.values():
            self.at(self._random.uniform(0, late_s), self._starter(process))
        self._plan_load()
        self._plan_faults()
        self._until(self.scenario.faults_s, lambda: False)
        self._heal()
        self._until(self._healed_at + LIVENESS_S, self._all_done)
        demand(self._all_done(), "Liveness", self._unfinished())
        self.log(f"all done {self.now - self._healed_at:.3f} s after healing")

    def log(self, line: str) -> None:
        """For people who follow one seed."""
        if self._trace is not None:
            self._trace(f"{self.now:9.4f}  {line}")

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Plans an event."""
        self._order += 1
        heapq.heappush(self._events, (time, self._order, action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Plans an event from now."""
        self.at(self.now + seconds, action)

    def _until(self, end: float, done: Callable[[], bool]) -> None:
        look_at = self.now
        while self._events and self._events[0][0] <= end:
            self.now, _, action = heapq.heappop(self._events)
            if self.now >= look_at:
                if done():
                    return
                look_at = self.now + _CHECK_EVERY_S
            action()
        self.now = end

    def replicas(self) -> list[ReplicaProcess]:
        """Learners with their proposers, the dead ones too."""
        return [p for p in self.processes.values() if isinstance(p, ReplicaProcess)]

    # Processes -----------------------------------------------------------------------------------

    def _local(self, process: Process) -> float:
        return self.now + process.clock_ahead

    def _start(self, process: Process) -> None:
        if process.alive or process.gone:
            return
        self.log(f"{_name(process.address)} starts")
        process.start(self._local(process))
        if isinstance(process, AcceptorProcess):
            if not process.lost:
                self.acceptor_checker.restored(process.id, process.role)
        elif isinstance(process, ReplicaProcess):
            state = process.state
            self.replica_checker.began(process.id, state.applied, state.commands)
            self._plan_checkpoint(process, process.life)
        self._wake(process)

    def _starter(self, process: Process) -> Callable[[], None]:
        return lambda: self._start(process)

    def _crash(self, process: Process) -> None:
        if not process.alive:
            return
        self.log(f"{_name(process.address)} crashes")
        self.crashes += 1
        process.crash()
        if isinstance(process, ReplicaProcess):
            self._unfinished_reads.difference_update(process.reads)
        if self._faulty and self._random.random() < self.scenario.forgets:
            self._lose_disk(process)
        if self._faulty:
            down_s = self._random.expovariate(1 / self.scenario.down_s)
            self.after(down_s, self._starter(process))

    def _wake(self, process: Process) -> None:
        """Plans the next tick."""
        deadline = process.deadline()
        if deadline is None:
            return
        time = max(deadline - process.clock_ahead, self.now) + CLOCK_GRAIN_S
        if process.wake_at is not None and process.wake_at <= time:
            return
        process.wake_at = time
        life = process.life
        self.at(time, lambda: self._tick(process, life, time))

    def _tick(self, process: Process, life: int, time: float) -> None:
        if not process.alive or process.life != life:
            return
        if process.wake_at == time:
            process.wake_at = None
        deadline = process.deadline()
        now = self._local(process)
        if deadline is not None and deadline <= now:
            self._pay(process, [], process.tick(now))
        if process.alive:
            self._wake(process)

    def _arrive(self, target: Process, source: Address, rows: Rows) -> None:
        if not target.alive:
            return
        self.messages += len(rows)
        target.inbox.append((source, rows))
        if len(target.inbox) == 1:  # the rest of a short while arrives with it
            life = target.life
            wait = self._random.choice((0.0, 0.0, self.scenario.delay_s / 4))
            self.after(wait, lambda: self._drain(target, life))

    def _drain(self, process: Process, life: int) -> None:
        """Decodes and steps what has arrived, as a driver does."""
        if not process.alive or process.life != life:
            return
        arrived, process.inbox = process.inbox, []
        batches: dict[int, list[Rows]] = {}
        for source, rows in arrived:
            batches.setdefault(rows.shape[1], []).append(self._decode(source, rows))
        for parts in batches.values():
            apart = len(parts) == 1 or self._random.random() < SPLIT_INBOX
            for rows in parts if apart else [np.concatenate(parts)]:
                self._step(process, rows)
        if process.alive:
            self._wake(process)

    def _decode(self, source: Address, rows: Rows) -> Rows:
        """Now and then with garbage among the datagrams, none of which may pass."""
        counters: dict[str, int] = {}
        peer = self.processes[source].peer
        if self._random.random() < 0.9:
            decoded = self._random.random() < 0.2
            return wire.decode_untrusted(rows, peer, counters) if decoded else rows
        noise = np.frombuffer(self._random.randbytes(rows.shape[1]), np.uint8).reshape(1, -1)
        half = rows[-1:].copy()
        half[:, self._random.choice((0, 1, 4, 24, 26))] ^= 0xF0
        good = wire.decode_untrusted(np.concatenate([noise, rows, half]), peer, counters)
        assert len(good) == len(rows), f"{counters} of {len(rows)} and two damaged datagrams"
        return good

    def _step(self, process: Process, rows: Rows) -> None:
        if not process.alive:
            return  # it crashed in the step before
        self.steps += 1
        asked = wire.messages(rows)
        if self._trace is not None:
            for m in asked:
                self.log(f"{_name(process.address)} <- {show(m)}")
        try:
            effects = process.step(rows, self._local(process))
        except ConflictingVotes as error:
            raise Violation("One value a round", str(error)) from error
        self._pay(process, asked, effects)

    def _pay(self, process: Process, asked: Sequence[Message], effects: Effects) -> None:
        """Persists, sends and delivers, unless a crash comes between."""
        crash = self._faulty and self._random.random() < self.scenario.crash_in_step
        where = self._random.choice(("before", "within", "behind", "sending")) if crash else ""
        if where == "before":
            self._crash(process)
            return
        if where == "within" and effects.persist:
            if isinstance(process, AcceptorProcess):
                self.acceptor_checker.interrupted(process.id, unpack(effects.persist))
            process.persist_in_part(effects.persist)
            self._crash(process)
            return
        self._persist(process, effects.persist)
        self._check(process, asked, effects)
        process.check_invariants()
        sent = effects.send
        if where == "behind":
            sent = []
        elif where == "sending":
            sent = sent[: self._random.randint(0, len(sent))]
        for to, rows in sent:
            self._send(process.address, to, rows)
        if crash:
            self._crash(process)
        elif isinstance(process, ReplicaProcess):
            self._delivered(process, effects)

    def _persist(self, process: Process, records: list[Rows]) -> None:
        lost = process.lost
        process.persist(records)
        if isinstance(process, AcceptorProcess) and lost and not process.lost:
            self.rejoined += 1
            self.log(f"{_name(process.address)} joins again: {process.forgetful_status()}")
            self.acceptor_checker.restored(process.id, process.role)

    def _check(self, process: Process, asked: Sequence[Message], effects: Effects) -> None:
        sent = unpack([rows for _, rows in effects.send])
        if self._trace is not None:
            for to, rows in effects.send:
                for m in wire.messages(rows):
                    self.log(f"{_name(process.address)} -> {to.role.name} {to.id}: {show(m)}")
        if isinstance(process, AcceptorProcess) and process.lost:
            self.acceptor_checker.silent(process.id, sent)
        elif isinstance(process, AcceptorProcess):
            persist = unpack(effects.persist)
            self.acceptor_checker.persisted(process.id, asked, persist, sent)
        elif isinstance(process, CoordinatorProcess):
            persist = unpack(effects.persist)
            self.coordinator_checker.persisted(process.id, process.life, persist)
            self.coordinator_checker.sent(process.id, process.life, sent)
        if not isinstance(process, ReplicaProcess):
            self.trim_checker.sent(process.address, process.life, sent)

    def _send(self, source: Address, to: To, rows: Rows) -> None:
        role = Role.LEARNER if to.role is Role.PROPOSER else to.role
        for address, target in self.processes.items():
            if address[0] is role and to.id in (None, address[1]):
                for delay, copy in self.network.carry(source, address, rows):
                    self._plan_arrival(delay, target, source, copy)

    def _plan_arrival(self, delay: float, target: Process, source: Address, rows: Rows) -> None:
        self.after(delay, lambda: self._arrive(target, source, rows))

    # Replicas ------------------------------------------------------------------------------------

    def _delivered(self, replica: ReplicaProcess, effects: Effects) -> None:
        self.replica_checker.delivered(replica.id, effects)
        before = replica.state.applied
        replica.deliver(effects)
        if self._trace is not None and replica.state.applied != before:
            self.log(f"{_name(replica.address)} delivered through {replica.state.applied}")
        if replica.state.applied - replica.durable.applied >= self.scenario.checkpoint_instances:
            self._checkpoint(replica)
        if not replica.fetching and (replica.learner.behind or self._random.random() < 0.002):
            replica.fetching = True
            life = replica.life
            self.after(
                TRANSFER_S * self._random.random(),
                lambda: self._fetch(replica, life, replica.learner.behind),
            )

    def _checkpoint(self, replica: ReplicaProcess) -> None:
        effects = replica.checkpoint(self._local(replica))
        self.trim_checker.durable(replica.id, replica.durable.applied)
        self._pay(replica, [], effects)
        if replica.alive:
            self._wake(replica)

    def _plan_checkpoint(self, replica: ReplicaProcess, life: int) -> None:
        def checkpoint() -> None:
            if replica.alive and replica.life == life:
                self._checkpoint(replica)
                self._plan_checkpoint(replica, life)

        self.after(self.scenario.checkpoint_s * self._random.uniform(0.5, 1.5), checkpoint)

    def _fetch(self, replica: ReplicaProcess, life: int, snapshot: bool) -> None:
        """Another learner's snapshot, where need be, and the tail of what it has delivered."""
        if not replica.alive or replica.life != life:
            return
        replica.fetching = False
        donors = [
            donor
            for donor in self.replicas()
            if donor.alive and donor.state.applied > replica.state.applied
        ]
        if not donors:
            return
        donor = self._random.choice(donors)
        if snapshot:
            donor.keep_sessions()
            self._install(replica, donor.state.copy())
        else:
            self._take_tail(replica, list(donor.tail))
        if replica.alive:
            self._wake(replica)

    def _install(self, replica: ReplicaProcess, state: AppliedLog) -> None:
        self.log(f"{_name(replica.address)} installs a snapshot through {state.applied}")
        effects = replica.install(state, self._local(replica))
        self.replica_checker.began(replica.id, state.applied, state.commands)
        self.trim_checker.durable(replica.id, state.applied)
        self._pay(replica, [], effects)

    def _take_tail(self, replica: ReplicaProcess, tail: Sequence[Chosen]) -> None:
        self.log(f"{_name(replica.address)} takes a tail of {len(tail)} stretches")
        for chosen in tail:
            if not replica.alive:
                return
            now = self._local(replica)
            self._pay(replica, [], replica.learned(replica.learner.learned(chosen, now), now))

    # Load ----------------------------------------------------------------------------------------

    def _plan_load(self) -> None:
        scenario, random = self.scenario, self._random
        for _ in range(scenario.bursts):
            self.at(random.uniform(0, scenario.faults_s), self._submit_burst)
        for _ in range(scenario.reads):
            self.at(random.uniform(0, scenario.faults_s), self._read)

    def _live_replica(self) -> ReplicaProcess | None:
        live = [replica for replica in self.replicas() if replica.alive]
        return self._random.choice(live) if live else None

    def _submit_burst(self) -> None:
        replica = self._live_replica()
        if replica is not None:
            self.submit(replica, self._random.randint(1, self.scenario.burst_commands))

    def submit(self, replica: ReplicaProcess, count: int) -> None:
        """Some commands of some lengths, few or many of them in fragments."""
        random, proposer = self._random, replica.proposer
        payloads = []
        for _ in range(count):
            self._serial += 1
            payload = b"%d.%d" % (replica.id, self._serial)
            longest = proposer.piece_bytes
            if random.random() < self.scenario.long_commands:
                longest = min(proposer.command_bytes_max, 6 * longest)
            payloads.append(payload.ljust(random.randint(len(payload), max(longest, 16)), b"."))
        if any(len(payload) > proposer.command_bytes_max for payload in payloads):
            return
        effects = Effects.none()
        now = self._local(replica)
        try:
            tickets = proposer.submit(payloads, now, effects)
        except Overloaded:
            return
        for ticket, payload in zip(tickets, payloads, strict=True):
            replica.in_flight[ticket] = Submission(payload, ticket, self.now)
            self.replica_checker.submitted(payload, proposer.piece_bytes)
        self._pay(replica, [], effects)
        if replica.alive:
            self._wake(replica)

    def _submission_done(
        self,
        replica: ReplicaProcess,
        submission: Submission,
        event: Delivery | None,
        payload: bytes,
    ) -> None:
        if event is not None:
            demand(
                payload == submission.payload, "Validity",
                f"ticket {submission.ticket} of replica {replica.id} ended with another's command",
            )  # fmt: skip
        if event is not None and submission.since >= self._healed_at:
            self._probes[replica.id] = True

    def _read(self) -> None:
        replica = self._live_replica()
        if replica is None:
            return
        self._reads += 1
        number = self._reads
        self.read_checker.began(number)
        replica.reads[number] = Read(number)
        effects = Effects.none()
        replica.proposer.read(number, self._local(replica), effects)
        self._pay(replica, [], effects)
        if replica.alive:
            self._wake(replica)

    def _read_finished(self, replica: ReplicaProcess, number: int) -> None:
        self.read_checker.finished(number, replica.state.applied)

    # Faults --------------------------------------------------------------------------------------

    def _plan_faults(self) -> None:
        scenario, random = self.scenario, self._random
        time = random.expovariate(1 / scenario.crash_gap_s)
        while time < scenario.faults_s:
            process = random.choice(list(self.processes.values()))
            self.at(time, self._crasher(process))
            time += random.expovariate(1 / scenario.crash_gap_s)
        time = random.expovariate(1 / scenario.partition_gap_s)
        while time < scenario.faults_s:
            self.at(time, self._partition)
            time += random.expovariate(1 / scenario.partition_gap_s)
        time = random.expovariate(1 / scenario.nag_gap_s)
        while time < scenario.faults_s:
            self.at(time, self._nag)
            time += random.expovariate(1 / scenario.nag_gap_s)

        moving = self._moves_random
        time = moving.expovariate(1 / scenario.move_gap_s)
        while time < scenario.faults_s:
            process = moving.choice(
                [p for p in self.processes.values() if not isinstance(p, ReplicaProcess)]
            )
            self.at(time, self._mover(process))
            time += moving.expovariate(1 / scenario.move_gap_s)

    def _mover(self, process: Process) -> Callable[[], None]:
        return lambda: self._move(process)

    def _move(self, process: Process) -> None:
        """A role goes to another data plane; now and then its process dies on the way there."""
        if not process.movable:
            return
        self.moves += 1
        name = _name(process.address)
        if isinstance(process, AcceptorProcess) and self._moves_random.random() < MOVE_DIES:
            self.log(f"{name} dies while it moves")
            self._crash(process)  # what it remembered was in memory, here or there
            if not process.lost:
                self._lose_disk(process)
            return
        self.log(f"{name} moves")
        effects = process.move(self._local(process))
        if isinstance(process, AcceptorProcess):
            self.acceptor_checker.restored(process.id, process.role)
        self._pay(process, [], effects)
        if process.alive:
            self._wake(process)

    def _crasher(self, process: Process) -> Callable[[], None]:
        return lambda: self._crash(process)

    def _nag(self) -> None:
        """A learner asks for the recovery of what it may have; asked twice, it takes phase 1."""
        replica = self._live_replica()
        if replica is None:
            return
        first = max(replica.learner.delivered + self._random.randint(-8, 4), 1)
        end = wire.pack_end(first + self._random.randint(1, 4))
        question = wire.encode(
            CLUSTER, GROUP, wire.Type.RECOVER, instance=first, sender=replica.id, value=end
        )
        for delay in (0.0, RESEND_S * 1.1):
            self.after(delay, lambda: self._send(replica.address, COORDINATORS, question))

    def _lose_disk(self, process: Process) -> None:
        """A process that is down comes back with nothing, as far as its group bears it.

        Of acceptors and learners a majority must not have forgotten. A coordinator that did relies
        on what it is told of rounds.
        """
        if isinstance(process, CoordinatorProcess):
            if process.hard_of_hearing:
                return
            self.coordinator_checker.forgot(process.id)
        elif not process.lost and self._spare(process.address[0]) == 0:
            return
        self.log(f"{_name(process.address)} loses its disk")
        self.disks_lost += 1
        process.lose_disk()
        if isinstance(process, AcceptorProcess):
            self.acceptor_checker.forgot(process.id)

    def _spare(self, role: Role) -> int:
        """How many more members of a role may lose their disks, or stop for good."""
        members = [p for p in self.processes.values() if p.address[0] is role]
        failed = sum(p.lost or p.gone for p in members)
        return len(members) - majority(len(members)) - failed

    def _partition(self) -> None:
        random = self._random
        addresses = list(self.processes)
        share = random.choice((0.2, 0.5))
        island = {address for address in addresses if random.random() < share}
        kind = random.choice(("both", "out", "in", "links", "duel", "duel"))
        links = []
        for a in addresses:
            for b in addresses:
                if kind == "duel":  # coordinators that do not hear each other take turns
                    blocked = a[0] is b[0] is Role.COORDINATOR and a != b
                    blocked = blocked or random.random() < 0.1
                elif kind == "links":
                    blocked = random.random() < 0.3
                elif kind == "both":
                    blocked = (a in island) != (b in island)
                else:
                    blocked = (a in island, b in island) == (kind == "out", kind == "in")
                if blocked:
                    links.append((a, b))
        self.log(f"partition, {kind}: {sorted(_name(address) for address in island)}")
        self.network.block(links)
        self.after(
            random.expovariate(1 / self.scenario.partition_s), lambda: self.network.unblock(links)
        )

    def _heal(self) -> None:
        """A majority of each role runs from here on, and the network loses nothing."""
        self.log("the network heals")
        self._faulty = False
        self._healed_at = self.now
        self.network.heal()
        for process in self.processes.values():
            if isinstance(process, CoordinatorProcess):
                process.hard_of_hearing = False
        for role in (Role.ACCEPTOR, Role.COORDINATOR, Role.LEARNER):
            members = [p for p in self.processes.values() if p.address[0] is role]
            spare = self._spare(role)
            down: list[Process] = []
            if spare > 0 and self._random.random() < 0.3:
                remembering = [p for p in members if not p.lost]
                down = self._random.sample(remembering, self._random.randint(1, spare))
            for process in members:
                if process in down:
                    process.gone = True
                    self._crash(process)
                else:
                    self._start(process)
        for replica in self.replicas():
            if replica.alive:
                self._probes[replica.id] = False
                self._probe(replica)
        self._read()

    def _probe(self, replica: ReplicaProcess) -> None:
        """Submits until something that was submitted after healing has been delivered."""
        if not self._probes[replica.id]:
            self.submit(replica, 1)
            self.after(PROBE_TAKEOVERS * self.scenario.takeover_s, lambda: self._probe(replica))

    # Liveness ------------------------------------------------------------------------------------

    def _all_done(self) -> bool:
        return not self._unfinished()

    def _unfinished(self) -> str:
        """What has not come to its end yet, "" when all has."""
        live = [replica for replica in self.replicas() if replica.alive]
        for replica in live:
            if replica.in_flight:
                oldest = min(replica.in_flight.values(), key=lambda s: s.since)
                return (
                    f"replica {replica.id} waits for {len(replica.in_flight)} commands, the oldest "
                    f"since {oldest.since:.3f} s: {self._standing()}"
                )
            if replica.reads:
                return f"replica {replica.id} waits for {len(replica.reads)} reads"
            if not self._probes.get(replica.id, True):
                return f"replica {replica.id} got nothing delivered since healing"
        for process in self.processes.values():
            if process.alive and process.lost and not self._too_many_down():
                return f"{_name(process.address)} has not made up for its disk: {self._standing()}"
        reached = {replica.state.applied for replica in live}
        if len(reached) > 1 or max(reached) < self.replica_checker.reached:
            return f"learners stand at {sorted(reached)}: {self._standing()}"
        return ""

    def _too_many_down(self) -> bool:
        """Whether somebody whom one that lost its disk must ask is down for good."""
        return any(process.gone for process in self.processes.values())

    def _standing(self) -> str:
        parts = [
            f"C{process.id} {process.role.status()}"
            for process in self.processes.values()
            if process.alive and isinstance(process, CoordinatorProcess)
        ]
        parts += [
            f"L{replica.id} delivered {replica.learner.delivered} heard {replica.learner.heard}"
            for replica in self.replicas()
            if replica.alive
        ]
        parts += [
            f"A{process.id} {process.forgetful_status()}"
            for process in self.processes.values()
            if process.alive and isinstance(process, AcceptorProcess) and process.lost
        ]
        return "; ".join(parts)


def show(m: Message) -> str:
    """One message for people."""
    kind = wire.Type(m.type).name
    value = "" if not m.length else f" {m.value[:64].hex()}"
    return (
        f"{kind} from {m.sender} i={m.instance} r={m.round:#x} v={m.vround:#x} low={m.low}{value}"
    )


def _name(address: Address) -> str:
    return f"{address[0].name[0]}{address[1]}"
