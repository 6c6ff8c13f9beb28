"""The controllers of programs in the kernel: ranges, and what the kernel does in between."""

from __future__ import annotations

from p4xos import wire
from p4xos.effects import ACCEPTORS, Role, To
from p4xos.roles.coordinator import Coordinator, CoordinatorTiming, Phase
from p4xos.roles.promises import Promises
from p4xos.testing import vectors
from p4xos.wire import Message, Rows, Type
from switch.xdp.controllers import XdpAcceptor, XdpSequencer
from tests.switch.kernel import UnwiredXdpPlane, in_the_kernel
from tests.switch.planes import plan

pytestmark = in_the_kernel
WINDOW, VALUE_BYTES = 256, 80
VOTED = 200
COORDINATOR = To(Role.COORDINATOR, 0)


def rows_of(text: str) -> Rows:
    return wire.from_messages([vectors.read(vectors.packet(text))])


def new_acceptor() -> XdpAcceptor:
    loaded = plan("acceptor", 0, window=WINDOW, value_bytes=VALUE_BYTES, acceptors=1)
    acceptor = XdpAcceptor(UnwiredXdpPlane(), loaded)
    acceptor.begin()
    return acceptor


def sent_to(sent: list[tuple[To, Rows]], to: To) -> list[Message]:
    return [m for found, rows in sent if found == to for m in wire.messages(rows)]


def test_phase_1_of_ranges_is_answered_as_software_does() -> None:
    """docs/PROTOCOL.md, section 3: a coordinator collects a long report in few questions."""
    acceptor = new_acceptor()
    for i in range(1, VOTED + 1):
        acceptor.step(rows_of(f'PHASE2A instance={i} round=1.0 low=1 value="v{i}"'), 0.0)
    promises = Promises(acceptors=1, round=2 << 8, nonce=7, first=1, window=WINDOW,
                        value_bytes=VALUE_BYTES)  # fmt: skip
    question = rows_of("PHASE1A instance=1 round=2.0 nonce=7 end=log low=1")
    asked = 0
    while promises.quorum() is None:
        assert asked < 8, "as many questions as chunks, not as instances"
        for _, rows in acceptor.step(question, 0.0).send:
            promises.add(rows)
        asked += 1
        chunks = promises.missing_chunks()
        texts = [f"PHASE1A instance={first} round=2.0 nonce=8 end={end} low=1"
                 for _, first, end in chunks]  # fmt: skip
        if texts:
            packets = [vectors.read(vectors.packet(text)) for text in texts]
            question = wire.from_messages(packets)
    assert promises.highest((0,)) == VOTED
    assert [promises.found(i) for i in (1, 100, VOTED)] == [b"v1", b"v100", b"v200"]
    # A stale round promises nothing, of any range.
    for end in ("log", "40"):
        stale = rows_of(f"PHASE1A instance=1 round=1.0 end={end} low=1")
        assert acceptor.step(stale, 0.0).send == []
    # Below the window there is nothing to report, and the summary says where that is.
    acceptor.step(rows_of("HEARTBEAT round=2.0 low=50"), 0.0)
    below = sent_to(
        acceptor.step(rows_of("PHASE1A instance=1 round=2.0 end=40 low=1"), 0.0).send, COORDINATOR
    )
    assert [(m.low, wire.is_summary(m.vround, m.length)) for m in below] == [(50, True)]


def test_a_damaged_range_is_counted() -> None:
    acceptor = new_acceptor()
    assert acceptor.step(rows_of("PHASE1A instance=1 round=1.0 value=0x01"), 0.0).send == []
    assert acceptor.counters["malformed"] == 1


def serving() -> tuple[Coordinator, UnwiredXdpPlane]:
    """A coordinator whose requests the kernel numbers."""
    plane = UnwiredXdpPlane()
    loaded = plan("coordinator", 0, window=WINDOW, value_bytes=VALUE_BYTES)
    coordinator = Coordinator(
        frame=loaded.frame, coordinators=(0,), acceptors=1, learners=1, window=WINDOW,
        value_bytes=VALUE_BYTES, random=lambda: 0.0, now=0.0, timing=CoordinatorTiming(),
        sequencer=XdpSequencer(plane, loaded),
    )  # fmt: skip
    (asked,) = sent_to(coordinator.tick(10.0).send, ACCEPTORS)
    effects = coordinator.step(rows_of(f"READ_INDEX_REPLY nonce={asked.vround} low=1"), 10.0)
    (phase1a,) = sent_to(effects.send, To(Role.ACCEPTOR, 0))
    told = f"highest=0 count=0 nonce={phase1a.vround} seen=0"
    coordinator.step(rows_of(f"PHASE1B instance=1 round=1.0 low=1 {told}"), 10.0)
    assert coordinator.phase is Phase.SERVING
    return coordinator, plane


def numbered(plane: UnwiredXdpPlane, text: str) -> int:
    """The instance that the kernel gives a request which the process never sees."""
    ((_, rows),) = plane.inject(rows_of(text))
    return wire.message(rows, 0).instance


def test_instances_given_away_in_between_are_not_the_coordinators() -> None:
    """docs/PROTOCOL.md, section 4: a PHASE2A is sent again only with the value it was sent with."""
    coordinator, plane = serving()
    assert numbered(plane, 'REQUEST value="by the kernel"') == 1
    (mine,) = sent_to(
        coordinator.step(rows_of('REQUEST value="by the process"'), 10.0).send, ACCEPTORS
    )
    assert (mine.instance, mine.value) == (2, b"by the process")
    assert numbered(plane, 'REQUEST value="by the kernel"') == 3
    again = sent_to(coordinator.step(rows_of("RECOVER instance=1 end=4"), 10.0).send, ACCEPTORS)
    assert [(m.type, m.instance, m.value) for m in again] == [
        (Type.PHASE2A, 2, b"by the process")
    ]
    assert coordinator.sequencer.next == 4


def test_a_window_that_fills_in_between_leaves_requests_out() -> None:
    """They are dropped like any others, and counted; their proposers try again."""
    coordinator, plane = serving()
    sequencer = coordinator.sequencer
    room = sequencer.room
    for _ in range(room - 1):
        numbered(plane, 'REQUEST value="x"')
    both = wire.from_messages([vectors.read(vectors.packet('REQUEST value="y"'))] * 2)
    assert len(sequencer.propose(both)) == 1
    assert len(sequencer.propose(both[:1])) == 0
    assert sequencer.counters["window_full"] == 2
    assert sequencer.room == 0


def test_a_checkpoint_raises_low_while_the_kernel_goes_on() -> None:
    coordinator, plane = serving()
    for _ in range(5):
        numbered(plane, 'REQUEST value="x"')
    coordinator.step(rows_of("CHECKPOINT instance=3"), 10.0)
    assert (plane.read("low"), plane.read("next")) == (4, 6)
    assert numbered(plane, 'REQUEST value="x"') == 6
    beat = sent_to(coordinator.tick(20.0).send, To(Role.LEARNER))
    assert [m.instance for m in beat if m.type == Type.HEARTBEAT] == [7]
