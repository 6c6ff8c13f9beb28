"""What a coordinator has been promised (docs/PROTOCOL.md, sections 3 and 4)."""

import pytest

from p4xos import wire
from p4xos.roles.acceptor import ANSWER_ROWS_MAX, Acceptor
from p4xos.roles.promises import CHUNK_INSTANCES, CHUNKS_AT_ONCE, InstancePromises, Promises
from p4xos.wire import END_OF_LOG, Frame, Rows, Type
from tests.roles.helpers import VALUE_BYTES, WINDOW, round_of, summary, together, vote_report

ROUND = round_of(5)
NONCE = 77
FRAME = Frame(1, 0, 0)


def question(round: int, first: int, end: int) -> Rows:
    """A PHASE1A."""
    return wire.encode(
        1, 0, Type.PHASE1A, instance=first, round=round, vround=NONCE, value=wire.pack_end(end)
    )


def proposal(instance: int, round: int, value: bytes) -> Rows:
    """A PHASE2A."""
    return wire.encode(1, 0, Type.PHASE2A, instance=instance, round=round, value=value)


def promises(acceptors: int = 3, first: int = 1, window: int = WINDOW) -> Promises:
    return Promises(
        acceptors=acceptors, round=ROUND, nonce=NONCE, first=first, window=window,
        value_bytes=VALUE_BYTES,
    )  # fmt: skip


@pytest.mark.parametrize(("acceptors", "wanted"), [(1, 1), (3, 2), (5, 3)])
def test_f_plus_one_distinct_acceptors_are_a_quorum(acceptors: int, wanted: int) -> None:
    """PROTOCOL 4: a promise quorum is f + 1 acceptors; one that answers twice is one."""
    seen = (0,) * acceptors
    collected = promises(acceptors)
    for acceptor in range(wanted):
        assert collected.quorum() is None
        collected.add(summary(acceptor, ROUND, NONCE, seen=seen))
        collected.add(summary(acceptor, ROUND, NONCE, seen=seen))
    assert collected.quorum() == tuple(range(wanted))


@pytest.mark.parametrize(
    ("round", "nonce"), [(round_of(4), NONCE), (round_of(6), NONCE), (ROUND, NONCE + 1)]
)
def test_an_answer_to_another_question_is_no_promise(round: int, nonce: int) -> None:
    """PROTOCOL 2: round and nonce tell which PHASE1A a summary answers."""
    collected = promises()
    for acceptor in range(3):
        collected.add(summary(acceptor, round, nonce))
    assert collected.quorum() is None
    assert collected.silent() == [0, 1, 2]


def test_a_summary_of_another_cluster_size_is_no_promise() -> None:
    """PROTOCOL 2: `seen` has one entry for each acceptor."""
    collected = promises()
    for acceptor in range(3):
        collected.add(summary(acceptor, ROUND, NONCE, seen=(0, 0)))
    assert collected.quorum() is None


def test_an_acceptor_is_complete_with_all_the_votes_it_counts() -> None:
    """PROTOCOL 4: complete is the summary and as many distinct votes as it counts."""
    collected = promises()
    collected.add(summary(0, ROUND, NONCE, highest=2, votes=2))
    collected.add(summary(1, ROUND, NONCE))
    collected.add(vote_report(0, 1, ROUND, round_of(1), b"one"))
    collected.add(vote_report(0, 1, ROUND, round_of(1), b"one"))
    assert collected.quorum() is None
    collected.add(vote_report(0, 2, ROUND, round_of(1), b"two"))
    assert collected.quorum() == (0, 1)
    assert (collected.found(1), collected.found(2)) == (b"one", b"two")


def test_acceptors_to_be_asked_one_by_one_that_hold_nothing_are_complete() -> None:
    """PROTOCOL 3: a switch counts nothing; where there is nothing to ask, its summary is all."""
    collected = promises()
    collected.add(summary(0, ROUND, NONCE, votes=wire.ASK_ONE_BY_ONE))
    assert collected.quorum() is None
    collected.add(summary(1, ROUND, NONCE, votes=wire.ASK_ONE_BY_ONE))
    assert collected.quorum() == (0, 1)


def test_votes_may_overtake_their_summary() -> None:
    """PROTOCOL 4: datagrams are reordered; what came early counts."""
    collected = promises()
    collected.add(vote_report(0, 1, ROUND, round_of(1), b"one"))
    collected.add(summary(0, ROUND, NONCE, highest=1, votes=1))
    collected.add(summary(1, ROUND, NONCE))
    assert collected.quorum() == (0, 1)


def test_votes_below_the_summarys_range_do_not_complete_it() -> None:
    """PROTOCOL 4: a vote of an earlier answer, below the low of this one, stands for none in it."""
    collected = promises()
    for instance in (1, 2, 3):  # answer 1: [1, 4] asked, its summary and vote 4 lost
        collected.add(vote_report(0, instance, ROUND, round_of(1), b"old"))
    collected.add(summary(0, ROUND, NONCE, highest=4, votes=1, low=4))
    collected.add(summary(1, ROUND, NONCE, highest=3, low=1))
    assert collected.quorum() is None
    collected.add(vote_report(0, 4, ROUND, round_of(1), b"four"))
    assert collected.quorum() == (0, 1)
    assert collected.found(4) == b"four"


def test_a_vote_cast_after_the_summary_does_not_complete_it() -> None:
    """PROTOCOL 4: a later vote, told by a second answer, stands for none of the first's."""
    collected = promises()
    collected.add(summary(0, ROUND, NONCE, highest=9, votes=3))
    collected.add(summary(1, ROUND, NONCE))
    collected.add(vote_report(0, 1, ROUND, round_of(1), b"one"))
    collected.add(vote_report(0, 9, ROUND, round_of(1), b"nine"))
    collected.add(vote_report(0, 4, round_of(6, 1), round_of(6, 1), b"later"))
    assert collected.quorum() is None, "instance 3 is still to be told"


def test_the_value_of_the_highest_vround_wins() -> None:
    """PROTOCOL 4: the value of the highest vround, whatever the order of arrival."""
    for order in ([1, 3, 2], [3, 2, 1], [2, 1, 3]):
        collected = promises(5)
        for acceptor, counter in enumerate(order):
            collected.add(summary(acceptor, ROUND, NONCE, highest=1, votes=1, seen=(0,) * 5))
            collected.add(vote_report(acceptor, 1, ROUND, round_of(counter), b"of %d" % counter))
        assert collected.quorum() == (0, 1, 2)
        assert collected.found(1) == b"of 3"


def test_trap_03_no_vote_is_no_vote_whatever_round_it_promised() -> None:
    """Traps, 3: vround 0 is never a vote, and the highest vround counts, not the last report."""
    collected = promises(5)
    for acceptor in range(3):
        collected.add(summary(acceptor, ROUND, NONCE, highest=1, votes=1, seen=(0,) * 5))
    collected.add(vote_report(0, 1, ROUND, round_of(2), b"voted last"))
    collected.add(vote_report(1, 1, ROUND, round_of(1), b"voted first"))
    collected.add(vote_report(2, 1, ROUND, wire.NO_VOTE))
    assert collected.quorum() == (0, 1, 2)
    assert collected.found(1) == b"voted last"

    one = InstancePromises(ROUND, acceptors=3)
    one.add(wire.message(vote_report(0, 1, ROUND, round_of(2), b"voted last"), 0))
    one.add(wire.message(vote_report(1, 1, ROUND, wire.NO_VOTE), 0))
    assert one.decided() == b"voted last"


def test_a_no_op_vote_is_not_no_vote() -> None:
    """PROTOCOL 2: a vote for a no-op has a vround and no value; it beats an older vote."""
    collected = promises()
    for acceptor in range(2):
        collected.add(summary(acceptor, ROUND, NONCE, highest=1, votes=1))
    collected.add(vote_report(0, 1, ROUND, round_of(1), b"older"))
    collected.add(vote_report(1, 1, ROUND, round_of(2), b""))
    assert collected.quorum() == (0, 1)
    assert collected.found(1) == b""


def test_a_vote_promised_to_a_higher_round_does_not_count() -> None:
    """PROTOCOL 3: a vote's round is promised(i); it counts for round r only if equal."""
    collected = promises()
    collected.add(summary(0, ROUND, NONCE, highest=1, votes=1))
    collected.add(vote_report(0, 1, round_of(9, 1), round_of(9, 1), b"higher"))
    assert collected.refused == {1}
    assert collected.highest_refusal == round_of(9, 1)
    assert collected.found(1) == b""


def test_a_later_incarnation_in_seen_spoils_a_quorum() -> None:
    """PROTOCOL 4: no member's `seen` holds a later incarnation of another than that one shows."""
    collected = promises()
    collected.add(summary(0, ROUND, NONCE, incarnation=0))
    collected.add(summary(1, ROUND, NONCE, seen=(1, 0, 0)))
    assert collected.quorum() is None, "acceptor 0 has since forgotten what it promised here"
    collected.add(summary(2, ROUND, NONCE, seen=(0, 0, 0)))
    assert collected.quorum() in ((0, 2), (1, 2))


def test_the_largest_low_told_is_the_low() -> None:
    """PROTOCOL 4: `low` becomes the largest in the quorum."""
    collected = promises()
    collected.add(summary(0, ROUND, NONCE, low=3, highest=2))
    collected.add(summary(1, ROUND, NONCE, low=7, highest=6))
    members = collected.quorum()
    assert members == (0, 1)
    assert (collected.low, collected.highest(members)) == (7, 6)


def test_a_vote_a_window_ahead_raises_low_rather_than_hide_another() -> None:
    """PROTOCOL 4: who voted for i + window had a low above i: i is never proposed again."""
    collected = promises()
    for acceptor in range(2):
        collected.add(summary(acceptor, ROUND, NONCE, highest=2, votes=1))
        collected.add(vote_report(acceptor, 2, ROUND, round_of(1), b"two"))
    collected.add(vote_report(2, 2 + WINDOW, ROUND, round_of(1), b"ahead"))  # its summary is lost
    assert collected.low == 3


def test_a_long_report_is_asked_for_in_chunks() -> None:
    """PROTOCOL 4: votes are re-asked until they are there, so many at once as buffers hold."""
    count = 3 * CHUNK_INSTANCES + 5 + ANSWER_ROWS_MAX
    collected = promises(window=256)
    collected.add(summary(0, ROUND, NONCE, highest=count, votes=count))
    collected.add(summary(1, ROUND, NONCE))
    told = range(1, ANSWER_ROWS_MAX + 1)
    collected.add(together(*(vote_report(0, i, ROUND, round_of(1), b"v") for i in told)))
    assert collected.wants_chunks()
    chunks = collected.missing_chunks()
    first = ANSWER_ROWS_MAX + 1
    assert (
        chunks
        == [
            (0, start, min(start + CHUNK_INSTANCES, count + 1))
            for start in range(first, count + 1, CHUNK_INSTANCES)
        ][:CHUNKS_AT_ONCE]
    )
    assert not collected.wants_chunks(), "they are under way"
    lost = chunks.pop(1)
    for _, start, end in chunks:
        rows = [vote_report(0, i, ROUND, wire.NO_VOTE) for i in range(start, end)]
        collected.add(together(*rows))
    assert collected.quorum() is None
    assert collected.missing_chunks() == [lost]
    collected.add(together(*(vote_report(0, i, ROUND, wire.NO_VOTE) for i in range(*lost[1:]))))
    assert collected.quorum() == (0, 1)


def test_a_switch_is_asked_one_by_one() -> None:
    """PROTOCOL 3: a switch answers the summary, or the one vote of a one-instance range."""
    collected = promises()
    collected.add(summary(0, ROUND, NONCE, highest=3, votes=wire.ASK_ONE_BY_ONE))
    collected.add(summary(1, ROUND, NONCE))
    while (chunks := collected.missing_chunks()) != []:
        for acceptor, first, end in chunks:
            assert end == first + 1
            collected.add(vote_report(acceptor, first, ROUND, round_of(1), b"%d" % first))
        assert collected.quorum() is None or collected.found(3) == b"3"
    assert collected.quorum() == (0, 1)
    assert [collected.found(i) for i in (1, 2, 3)] == [b"1", b"2", b"3"]


def test_a_value_that_does_not_fit_keeps_its_acceptor_incomplete() -> None:
    """PROTOCOL 4: a vote that cannot be held is not told: never a no-op in its place."""
    collected = promises()
    collected.add(summary(0, ROUND, NONCE, highest=1, votes=1))
    collected.add(summary(1, ROUND, NONCE))
    collected.add(vote_report(0, 1, ROUND, round_of(1), b"v" * (VALUE_BYTES + 1)))
    assert collected.quorum() is None


def test_one_instances_promises() -> None:
    """PROTOCOL 4: bounded phase 1: f + 1 promises, the highest vround, else a no-op."""
    one = InstancePromises(ROUND, acceptors=5)
    assert not one.add(wire.message(vote_report(0, 1, ROUND, wire.NO_VOTE), 0))
    assert not one.add(wire.message(vote_report(0, 1, ROUND, wire.NO_VOTE), 0))
    assert not one.add(wire.message(vote_report(1, 1, ROUND, wire.NO_VOTE), 0))
    assert one.add(wire.message(vote_report(2, 1, ROUND + 1, wire.NO_VOTE), 0)), "refused"
    assert one.decided() is None
    one.add(wire.message(vote_report(3, 1, ROUND, wire.NO_VOTE), 0))
    assert one.decided() == b""


def test_an_acceptor_that_restarts_counts_what_it_counted_before() -> None:
    """PROTOCOL 3: a bare promise below the floor stays, for a report of it may be on its way.

    The first answer's summary and vote are lost, so are the second answer's votes: what came of
    the first must not stand for what the second one counts.
    """
    first = Acceptor(frame=FRAME, acceptors=1, window=WINDOW, value_bytes=VALUE_BYTES)
    for instance in (3, 4):  # bare promises of recoveries, then a round above them
        first.step(question(round_of(1), instance, instance + 1), 0.0)
    first.step(question(round_of(2), 1, END_OF_LOG), 0.0)
    records = first.carry_over()  # a segment begins here, and those before it go
    voted = first.step(proposal(5, round_of(2), b"chosen"), 0.0)
    records += [rows.copy() for rows in voted.persist]

    collected = promises(1)
    restarted = Acceptor(frame=FRAME, acceptors=1, window=WINDOW, value_bytes=VALUE_BYTES)
    restarted.restore(records)
    for acceptor, arrives in ((first, (3, 4)), (restarted, ())):
        for _, rows in acceptor.step(question(ROUND, 1, END_OF_LOG), 0.0).send:
            for m in wire.messages(rows):
                told = acceptor is restarted and wire.is_summary(m.vround, m.length)
                if told or (m.instance in arrives and not m.length):
                    collected.add(wire.from_messages([m]))
    assert collected.quorum() is None, "the vote in 5 has not been told"
