"""The loop and its drivers: who is served when, and what may leave before what is durable."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest
import trio
import trio.testing

from p4xos import wire
from p4xos.config import Cluster
from p4xos.driver import Directory, Driver
from p4xos.effects import ACCEPTORS, LEARNERS, Delivery, Effects, Role, To
from p4xos.errors import P4xosError
from p4xos.loop import DEFER_BYTES, DEFER_S, Loop
from p4xos.net import Address
from p4xos.receiving import Received
from p4xos.roles.acceptor import Acceptor
from p4xos.wire import Frame, Peer, Rows, Type

CLUSTER = 7
COORDINATOR, ACCEPTOR, LEARNER = (("127.0.0.1", 9001 + k) for k in range(3))
FAR = ("127.0.0.1", 9009)


class DiskFull(P4xosError):
    """What the storage of these tests fails with."""


class FakeNetwork:
    """In memory; a pipe stands for the socket."""

    def __init__(self, address: Address, happened: list[str]) -> None:
        self.counters: dict[str, int] = {}
        self.receive_buffer_bytes = 0
        self.address = address
        self.sent: list[tuple[Rows, list[Address]]] = []
        self._happened = happened
        self._arrived: list[Received] = []
        self._readable, self._writable = os.pipe()

    def fileno(self) -> int:
        return self._readable

    def arrive(self, rows: Rows, source: Address) -> None:
        if not self._arrived:
            os.write(self._writable, b"!")
        self._arrived.append(Received(rows, source))

    def receive_nowait(self) -> list[Received]:
        """One batch a call, so that the rest is found by the level of the descriptor."""
        if not self._arrived:
            return []
        if len(self._arrived) == 1:
            os.read(self._readable, 1)
        return [self._arrived.pop(0)]

    def send(self, rows: Rows, addresses: Sequence[Address]) -> None:
        self._happened.append("send")
        self.sent.append((rows.copy(), list(addresses)))

    def close(self) -> None:
        os.close(self._readable)
        os.close(self._writable)


class FakeStorage:
    """Notes when something becomes durable, or fails."""

    def __init__(self, happened: list[str]) -> None:
        self.full = False
        self._happened = happened

    def append(self, records: list[Rows]) -> None:
        if self.full:
            raise DiskFull("the disk is full; make room")
        self._happened.append("persist")

    def close(self) -> None:
        """Nothing is open."""


class FakeRole:
    """Does what a test tells it, and remembers what it got."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.got: list[Rows] = []
        self.ticks: list[float] = []
        self.due_at: float | None = None
        self.answer: Callable[[Rows], Effects] = lambda rows: Effects.none()

    def step(self, rows: Rows, now: float) -> Effects:
        self.got.append(rows.copy())
        return self.answer(rows)

    def tick(self, now: float) -> Effects:
        self.ticks.append(now)
        self.due_at = None
        return Effects.none()

    def deadline(self) -> float | None:
        return self.due_at


class World:
    """A coordinator and a learner that are fakes, a real acceptor, and one loop."""

    def __init__(self, acceptors: tuple[Address, ...] = (ACCEPTOR, FAR)) -> None:
        self.now = 0.0
        self.happened: list[str] = []
        self.storage = FakeStorage(self.happened)
        self.coordinator, self.learner = FakeRole(), FakeRole()
        self.acceptor = Acceptor(frame=Frame(CLUSTER, 0, 0), acceptors=1, window=64, value_bytes=64)
        everything = dict.fromkeys(map(int, Type), 0)
        addresses: dict[To, list[Address]] = {
            ACCEPTORS: list(acceptors),
            LEARNERS: [LEARNER, FAR],
            To(Role.COORDINATOR, 0): [COORDINATOR],
        }
        directory = Directory(Cluster.template(1, base_port=9001))
        directory.peers = {FAR: Peer(CLUSTER, 0, everything)}
        directory._addresses = addresses
        self.loop = Loop(linger_s=0.0, clock=self._clock)
        self.handle: Callable[[Effects, float], Effects | None] = lambda effects, now: None
        self.drivers: dict[str, Driver] = {}
        self.networks: dict[str, FakeNetwork] = {}
        for name, role, address in (
            ("coordinator", self.coordinator, COORDINATOR),
            ("acceptor", self.acceptor, ACCEPTOR),
            ("learner", self.learner, LEARNER),
        ):
            self.networks[name] = FakeNetwork(address, self.happened)
            learns = name == "learner"
            self.drivers[name] = Driver(
                name, cast("Any", role), self.networks[name], directory,
                storage=self.storage if name == "acceptor" else None,
                handle=(lambda effects, now: self.handle(effects, now)) if learns else None,
            )  # fmt: skip
            self.loop.add(self.drivers[name])

    def _clock(self) -> float:
        return trio.current_time() if trio.lowlevel.in_trio_run() else self.now

    def turn(self) -> None:
        self.loop._turns()

    def close(self) -> None:
        for driver in self.drivers.values():
            driver.close()
        self.loop.close()


@pytest.fixture
def world() -> Any:
    made = World()
    yield made
    made.close()


def proposals(first: int, count: int, round: int = 0x100) -> Rows:
    return np.concatenate(
        [
            wire.encode(CLUSTER, 0, Type.PHASE2A, instance=i, round=round, low=1, value=b"v" * 8)
            for i in range(first, first + count)
        ]
    )


def sends(to: To, rows: Rows) -> Effects:
    effects = Effects.none()
    effects.send.append((to, rows))
    return effects


def test_persisted_before_anything_leaves_near_or_far(world: World) -> None:
    """Also for a message that came from a role of the process: docs/PROTOCOL.md, section 3."""

    def hear(rows: Rows) -> Effects:
        world.happened.append("near")
        return Effects.none()

    world.learner.answer = hear
    world.drivers["acceptor"].inbox.append(proposals(1, 3))
    world.loop.make_ready(world.drivers["acceptor"])
    world.turn()
    assert world.happened == ["persist", "send", "near"]


@pytest.mark.parametrize("count", [1, 3, 20])
def test_near_and_far_get_the_same(world: World, count: int) -> None:
    """What goes into an inbox is what the network carries, and nobody rewrites another's rows."""
    rows = proposals(1, count)
    before = rows.copy()
    world.drivers["coordinator"].perform(sends(ACCEPTORS, rows), 0.0)
    assert (rows == before).all(), "the acceptor made its votes of the coordinator's rows"
    world.turn()
    [(votes, to)] = world.networks["acceptor"].sent
    assert to == [FAR]
    [(far, _)] = world.networks["coordinator"].sent
    assert (far == before).all()
    assert (np.concatenate(world.learner.got) == votes).all()
    assert world.acceptor.counters["votes"] == count


def test_a_submission_never_calls_the_application_back(world: World) -> None:
    """The process' own votes wait for the loop's next turn; everything else is done at once."""
    handled: list[int] = []
    world.handle = lambda effects, now: handled.append(len(effects.deliver))

    def deliver(rows: Rows) -> Effects:
        effects = Effects.none()
        lengths = np.zeros(1, np.int64)
        effects.deliver.append(Delivery(1, 1, 1, np.zeros((1, 0), np.uint8), lengths))
        return effects

    world.learner.answer = deliver
    world.drivers["learner"].perform(sends(ACCEPTORS, proposals(1, 1)), 0.0)
    assert world.happened == ["send", "persist", "send"]
    assert not handled
    assert not world.learner.got
    world.turn()
    assert handled == [1]


async def test_a_lone_acceptor_delivers_promptly() -> None:
    """No message from elsewhere will wake the loop: the replica's inbox must."""
    world = World(acceptors=(ACCEPTOR,))
    got = trio.Event()

    def hear(rows: Rows) -> Effects:
        got.set()
        return Effects.none()

    world.learner.answer = hear
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.loop.run)
        await trio.testing.wait_all_tasks_blocked()
        world.drivers["learner"].perform(sends(ACCEPTORS, proposals(1, 1)), trio.current_time())
        with trio.fail_after(1):
            await got.wait()
        nursery.cancel_scope.cancel()
    world.close()


async def test_a_submission_mends_the_alarm_clock() -> None:
    """A deadline that a call from outside brings forward is kept."""
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.loop.run)
        await trio.testing.wait_all_tasks_blocked()
        world.learner.due_at = trio.current_time() + 0.01
        world.drivers["learner"].perform(Effects.none(), trio.current_time())
        with trio.fail_after(1):
            while not world.learner.ticks:
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    world.close()


def test_everything_due_is_ticked(world: World) -> None:
    """In one turn, whether or not anything has arrived."""
    world.coordinator.due_at, world.learner.due_at, world.now = 1.0, 2.0, 2.0
    world.turn()
    assert world.coordinator.ticks == world.learner.ticks == [2.0]


def test_what_came_while_another_role_synced_is_in_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer lies in the socket when the deadline has passed: acted on first, it moves it."""
    world.learner.due_at = 0.5

    def sync(records: list[Rows]) -> None:
        world.now = 1.0
        world.networks["learner"].arrive(proposals(9, 1), FAR)

    def hear(rows: Rows) -> Effects:
        if wire.message(rows, 0).instance == 9:
            world.learner.due_at = None
        return Effects.none()

    monkeypatch.setattr(world.storage, "append", sync)
    world.learner.answer = hear
    world.drivers["acceptor"].inbox.append(proposals(1, 1))
    world.loop.make_ready(world.drivers["acceptor"])
    world.turn()
    world.turn()
    assert [wire.message(rows, 0).instance for rows in world.learner.got] == [1, 9]
    assert not world.learner.ticks


def test_what_a_receive_leaves_behind_is_found_by_the_next_turn(world: World) -> None:
    """A driver takes a bounded amount; the descriptor's level tells of the rest."""
    for first in (1, 4, 7):
        world.networks["acceptor"].arrive(proposals(first, 3), FAR)
    for _ in range(3):
        world.turn()
    assert world.acceptor.counters["votes"] == 9


def test_a_failed_append_sends_nothing(world: World) -> None:
    """In a turn."""
    world.storage.full = True
    world.networks["acceptor"].arrive(proposals(1, 3), FAR)
    with pytest.raises(DiskFull):
        world.turn()
    assert world.happened == []
    assert not world.drivers["learner"].inbox


async def test_a_failed_append_stops_the_node_though_the_submitter_takes_errors() -> None:
    """The acceptor has voted in memory: to say so again, the vote being "repeated", is unsafe."""
    world = World(acceptors=(ACCEPTOR,))
    stopped: list[BaseException] = []

    async def run() -> None:
        try:
            await world.loop.run()
        except DiskFull as error:
            stopped.append(error)

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            world.storage.full = True
            with pytest.raises(DiskFull):
                world.drivers["learner"].perform(sends(ACCEPTORS, proposals(1, 1)), 0.0)
            world.storage.full = False
            world.drivers["learner"].perform(sends(ACCEPTORS, proposals(1, 1)), 0.0)
            world.networks["acceptor"].arrive(proposals(1, 1), FAR)
    assert len(stopped) == 1
    assert world.happened == []
    assert not world.learner.got
    world.close()


@pytest.fixture
def clients() -> Iterator[tuple[int, int]]:
    """A descriptor of an application's clients, and the one that makes it readable."""
    readable, writable = os.pipe()
    yield readable, writable
    os.close(readable)
    os.close(writable)


@pytest.mark.parametrize(("watched", "turns"), [(False, 1), (True, 3)])
def test_it_takes_what_follows_without_going_to_sleep_unless_that_keeps_clients_waiting(
    world: World, clients: tuple[int, int], watched: bool, turns: int
) -> None:
    if watched:
        world.loop.watch(clients[0], lambda: None)
    world.loop._turns()
    network = world.networks["coordinator"]
    for first in (1, 4, 7):
        network.arrive(proposals(first, 3), FAR)
    world.loop._turns()
    assert len(world.coordinator.got) == turns
    if watched:
        world.loop.unwatch(clients[0])
        network.arrive(proposals(10, 3), FAR)
        network.arrive(proposals(13, 3), FAR)
        world.loop._turns()
        assert len(world.coordinator.got) == turns + 1


def test_it_waits_for_nothing_where_the_last_turn_is_long_ago(
    world: World, clients: tuple[int, int]
) -> None:
    world.loop.watch(clients[0], lambda: None)
    world.loop._turns()
    world.now = 1.0
    for first in (1, 4, 7):
        world.networks["coordinator"].arrive(proposals(first, 3), FAR)
    world.loop._turns()
    assert len(world.coordinator.got) == 1
    world.loop._turns()
    assert len(world.coordinator.got) == 3


def test_what_clients_send_is_taken_between_turns_and_their_answer_comes_in_the_next(
    world: World, clients: tuple[int, int]
) -> None:
    """An application is never called back from inside its call, also when the loop called it."""
    readable, writable = clients
    order: list[str] = []

    def ready() -> None:
        os.read(readable, 1)
        order.append("asked")
        world.drivers["learner"].perform(sends(LEARNERS, proposals(1, 1)), 0.0)
        order.append("asked for all")

    def deliver(rows: Rows) -> Effects:
        order.append("delivered")
        return Effects.none()

    world.learner.answer = deliver
    world.loop.watch(readable, ready)
    world.loop._turns()
    os.write(writable, b"!")
    world.loop._turns()  # where this process' vote is a majority nothing is waited for
    assert order == ["asked", "asked for all", "delivered"]


def test_messages_for_a_replica_wait_while_nobody_waits_for_what_they_decide(
    world: World, clients: tuple[int, int]
) -> None:
    world.loop.watch(clients[0], lambda: None)
    world.loop._turns()
    world.drivers["learner"].unhurried = lambda: True
    world.networks["learner"].arrive(proposals(1, 3), FAR)
    world.loop._turns()
    world.networks["learner"].arrive(proposals(4, 3), FAR)
    world.drivers["coordinator"].perform(sends(LEARNERS, proposals(7, 3)), 0.0)
    world.loop._turns()
    assert not world.learner.got
    assert world.loop._wake_at() == DEFER_S
    for _ in range(3):  # this network gives one batch a turn
        world.now += DEFER_S
        world.loop._turns()
    assert sum(map(len, world.learner.got)) == 9
    assert world.loop._wake_at() == float("inf")


def test_messages_that_waited_are_taken_as_soon_as_somebody_waits(
    world: World, clients: tuple[int, int]
) -> None:
    unhurried = True
    world.loop.watch(clients[0], lambda: None)
    world.drivers["learner"].unhurried = lambda: unhurried
    world.networks["learner"].arrive(proposals(1, 3), FAR)
    world.loop._turns()
    assert not world.learner.got
    unhurried = False
    world.drivers["learner"].perform(sends(ACCEPTORS, proposals(4, 1)), 0.0)
    assert not world.learner.got  # never from inside the application's call
    world.loop._turns()
    assert sum(map(len, world.learner.got)) == 3 + 1  # the last is the vote for what it sent


def test_messages_that_waited_are_taken_before_time_has_its_say(
    world: World, clients: tuple[int, int]
) -> None:
    """What is asked for as missing may be among them."""
    world.loop.watch(clients[0], lambda: None)
    world.drivers["learner"].unhurried = lambda: True
    world.networks["learner"].arrive(proposals(1, 3), FAR)
    world.loop._turns()
    world.now = world.learner.due_at = DEFER_S / 2
    seen: list[int] = []

    def tick(now: float) -> Effects:
        seen.append(len(world.learner.got))
        world.learner.due_at = None
        return Effects.none()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.learner, "tick", tick)
        world.loop._turn([])
    assert seen == [1]


def test_messages_wait_less_when_many_come(world: World, clients: tuple[int, int]) -> None:
    world.loop.watch(clients[0], lambda: None)
    learner = world.drivers["learner"]
    learner.unhurried = lambda: True
    many = -(-2 * DEFER_BYTES // proposals(1, 1).nbytes)
    for _ in range(2):
        world.networks["learner"].arrive(proposals(1, many), FAR)
        world.loop._turns()
        world.now += DEFER_S
        world.loop._turns()
    assert learner.defer_s == DEFER_S / 4
    world.networks["learner"].arrive(proposals(1, 1), FAR)
    world.loop._turns()
    world.now += DEFER_S
    world.loop._turns()
    assert learner.defer_s == DEFER_S / 2
