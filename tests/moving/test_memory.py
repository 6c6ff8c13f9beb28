"""An acceptor that moves is the one that it was: all it remembers, wherever its registers are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

from hypothesis import given, settings

from p4xos import wire
from p4xos.effects import To
from p4xos.roles.acceptor import Acceptor
from p4xos.roles.memory import Memory
from p4xos.roles.rejoining import Voter
from p4xos.wire import Frame, Message, Rows, Type
from switch.control.acceptor import SwitchAcceptor
from switch.control.numpy_plane import NumpyPlane
from switch.control.p4_plane import P4Plane
from tests.roles.traffic import BATCHES, CLUSTER, GROUP, WINDOW, by_destination, sent_messages
from tests.switch.planes import plan
from tests.switch.switched import same_memory

VALUE_BYTES = 32
FRAME = Frame(CLUSTER, GROUP, 1)


def numpy_acceptor() -> Acceptor:
    return Acceptor(frame=FRAME, acceptors=3, window=WINDOW, value_bytes=VALUE_BYTES)


def on(plane: NumpyPlane | P4Plane) -> SwitchAcceptor:
    loaded = plan(
        "acceptor", FRAME.sender, window=WINDOW, value_bytes=VALUE_BYTES, cluster=CLUSTER,
        group=GROUP,
    )  # fmt: skip
    return SwitchAcceptor(plane, loaded)


def answers(role: Voter, rows: Rows) -> dict[To, list[Message]]:
    """What each destination gets, in any order: a switch acts on messages one by one."""
    sent = by_destination(sent_messages(role.step(rows, 0.0).send))
    return {to: sorted(messages) for to, messages in sent.items()}


def moved(before: Voter, make: Callable[[], Voter]) -> Voter:
    after = make()
    after.take(before.leave())
    before.close()
    return after


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(batches=BATCHES)
def test_one_that_moves_answers_as_one_that_stays(batches: list[list[Message]]) -> None:
    """docs/PROTOCOL.md, section 8: there and back between all steps, the same answers."""
    stays = numpy_acceptor()
    moves: Voter = numpy_acceptor()
    places: cycle[Callable[[], Voter]] = cycle((lambda: on(NumpyPlane()), numpy_acceptor))
    for messages in batches:
        moves = moved(moves, next(places))
        rows = wire.from_messages(messages)
        assert answers(moves, rows.copy()) == answers(stays, rows)
        moves.check_invariants()
        assert (moves.low, moves.highest, moves.highest_round, moves.seen) == (
            stays.low, stays.highest, stays.highest_round, stays.seen
        )  # fmt: skip
    through = moved(moved(moves, lambda: on(P4Plane())), numpy_acceptor)
    same_memory(through.leave(), stays.leave())


def vote(instance: int, round: int, value: bytes, low: int = 0) -> Rows:
    return wire.encode(
        CLUSTER, GROUP, Type.PHASE2A, instance=instance, round=round, low=low, value=value
    )


def test_what_is_below_low_stays_behind() -> None:
    """It is forgotten by rule; a slot that an older instance holds is an empty one."""
    acceptor = numpy_acceptor()
    for instance in range(1, WINDOW + 1):
        acceptor.step(vote(instance, 256, b"v%d" % instance), 0.0)
    acceptor.step(vote(WINDOW + 1, 256, b"next", low=WINDOW), 0.0)
    memory = acceptor.leave()
    assert memory.instance.tolist() == [WINDOW, WINDOW + 1]
    assert (memory.low, memory.highest, memory.votes) == (WINDOW, WINDOW + 1, 2)


def test_counters_and_incarnation_go_on() -> None:
    acceptor: Voter = numpy_acceptor()
    acceptor.join(incarnation=3, round=256, low=5, seen=(0, 3, 1))
    acceptor.step(vote(5, 512, b"one"), 0.0)
    for make in (lambda: on(P4Plane()), numpy_acceptor):
        acceptor = moved(acceptor, make)
        acceptor.step(vote(6, 512, b"two"), 0.0)
        assert acceptor.incarnation == 3
    assert acceptor.counters["votes"] == 2  # a switch counts what it does not act on alone
    acceptor.step(vote(6, 256, b"two"), 0.0)
    assert acceptor.counters["stale_round"] == 1


def test_one_that_left_and_stays_is_as_it_was() -> None:
    """Its port is closed in between, so that nothing is promised or voted for."""
    for plane in (NumpyPlane(), P4Plane()):
        acceptor = on(plane)
        acceptor.begin()
        acceptor.step(vote(1, 256, b"one"), 0.0)
        memory: Memory = acceptor.leave()
        assert plane.inject(vote(2, 256, b"two")) == []
        acceptor.stay()
        assert len(acceptor.step(vote(1, 256, b"one"), 0.0).send) == 1
        same_memory(acceptor.leave(), memory)
