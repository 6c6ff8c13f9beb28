from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p4xos.testing.linearizability import UNKNOWN, Operation, check, lines
from tests.checking.histories import (
    MODEL,
    explained,
    judged,
    linearizable_history,
    op,
)

GOOD = {
    "nothing": [],
    "one after the other": [
        op(0, 1, "GET a", None), op(2, 3, "SET a 1", "OK"), op(4, 5, "GET a", "1"),
        op(6, 7, "DEL a", 1), op(8, 9, "DEL a", 0), op(10, 11, "GET a", None),
    ],
    "reads beside a write see either": [
        op(0, 9, "SET a 1", "OK"), op(1, 2, "GET a", None), op(3, 4, "GET a", "1"),
    ],
    "writes at the same time, in the order that the reads tell": [
        op(0, 9, "SET a 1", "OK"), op(0, 9, "SET a 2", "OK"), op(0, 9, "SET a 3", "OK"),
        op(1, 8, "GET a", "3"), op(10, 11, "GET a", "1"), op(12, 13, "GET a", "1"),
    ],
    "an unknown write is never done": [
        op(0, 1, "SET a 1", "OK"), op(2, None, "SET a 2"), op(4, 5, "GET a", "1"),
        op(100, 101, "GET a", "1"),
    ],
    "an unknown write is done late": [
        op(0, 1, "SET a 1", "OK"), op(2, None, "SET a 2"), op(4, 5, "GET a", "1"),
        op(6, 7, "SET a 3", "OK"), op(8, 9, "GET a", "3"), op(100, 101, "GET a", "2"),
    ],
    "unknown increments, as many as are seen": [
        op(0, None, "INCR a"), op(0, None, "INCR a"), op(0, None, "INCR a"),
        op(5, 6, "INCR a", 3), op(7, 8, "GET a", "3"), op(9, 10, "INCR a", 5),
    ],
    "unknown appends in either order": [
        op(0, None, "APPEND a x"), op(1, None, "APPEND a y"), op(5, 6, "GET a", "yx"),
    ],
    "an unknown read says nothing": [op(0, 1, "SET a 1", "OK"), op(2, None, "GET a")],
    "keys are apart": [
        op(0, 1, "SET a 1", "OK"), op(2, 3, "GET b", None), op(4, 5, "SET b 2", "OK"),
        op(6, 7, "GET a", "1"),
    ],
    "conditions": [
        op(0, 1, "SET a 1", "OK"), op(2, 3, "SET a 2 IFEQ 0", None),
        op(4, 5, "SET a 2 IFEQ 1", "OK"), op(6, 7, "GET a", "2"),
    ],
    "transactions": [
        op(0, 5, "SET a 1;SET b 1", ("OK", "OK")), op(1, 2, "GET a;GET b", (None, None)),
        op(3, 4, "GET b;GET a", ("1", "1")), op(6, 7, "INCR a;GET b", (2, "1")),
        op(8, 9, "GET a", "2"),
    ],
    "an unknown transaction is done": [
        op(0, None, "SET a 1;SET b 2"), op(1, 2, "GET a", None), op(3, 4, "GET b", "2"),
        op(5, 6, "GET a", "1"),
    ],
    "moments that are the same are concurrent": [
        op(0, 5, "SET a 1", "OK"), op(5, 9, "GET a", None),
    ],
}  # fmt: skip

BAD = {
    "a stale read": [
        op(0, 1, "SET a 1", "OK"), op(2, 3, "SET a 2", "OK"), op(4, 5, "GET a", "1"),
    ],
    "an acknowledged write is lost": [op(0, 1, "SET a 1", "OK"), op(2, 3, "GET a", None)],
    "an update is lost": [
        op(0, 1, "INCR a", 1), op(2, 5, "INCR a", 2), op(3, 6, "INCR a", 2),
        op(7, 8, "GET a", "2"),
    ],
    "an increment is done twice": [
        op(0, 1, "INCR a", 1), op(2, 3, "INCR a", 3), op(4, 5, "GET a", "3"),
    ],
    "an append is done twice": [op(0, 1, "APPEND a x", 1), op(2, 3, "GET a", "xx")],
    "an unknown append is done twice": [op(0, None, "APPEND a x"), op(2, 3, "GET a", "xx")],
    "a value that nobody wrote": [op(0, 1, "SET a 1", "OK"), op(2, 3, "GET a", "7")],
    "a value before it is written": [op(0, 1, "GET a", "1"), op(2, 3, "SET a 1", "OK")],
    "a transaction is seen in part": [
        op(0, 9, "SET a 1;SET b 1", ("OK", "OK")), op(1, 2, "GET a;GET b", ("1", None)),
    ],
    "a transaction is seen in part, key by key": [
        op(0, 9, "SET a 1;SET b 1", ("OK", "OK")), op(1, 2, "GET a", "1"),
        op(3, 4, "GET b", None),
    ],
    "a transaction is done in part": [
        op(0, None, "SET a 1;SET b 1"), op(10, 11, "GET a", "1"), op(12, 13, "GET b", None),
    ],
    "a write is seen, then unseen": [
        op(0, 9, "SET a 1", "OK"), op(1, 2, "GET a", "1"), op(3, 4, "GET a", None),
    ],
    "an unknown write flips and flops": [
        op(0, 1, "SET a 1", "OK"), op(2, None, "SET a 2"), op(4, 5, "GET a", "2"),
        op(6, 7, "GET a", "1"),
    ],
    "an unknown write comes back": [
        op(0, 1, "SET a 1", "OK"), op(2, None, "SET a 2"), op(4, 5, "GET a", "2"),
        op(6, 7, "SET a 3", "OK"), op(8, 9, "GET a", "2"),
    ],
    "more increments than there were": [
        op(0, None, "INCR a"), op(0, None, "INCR a"), op(5, 6, "INCR a", 4),
    ],
    "an unknown write before its call": [op(0, 1, "GET a", "2"), op(2, None, "SET a 2")],
    "a condition held that did not": [
        op(0, 1, "SET a 1", "OK"), op(2, 3, "SET a 2 IFEQ 0", "OK"),
    ],
    "a condition held twice": [
        op(0, 1, "SET a 1", "OK"), op(2, 5, "SET a 2 IFEQ 1", "OK"),
        op(2, 5, "SET a 3 IFEQ 1", "OK"),
    ],
    "readers disagree about the order of two writes": [
        op(0, 99, "SET a 1", "OK"), op(0, 99, "SET a 2", "OK"), op(1, 2, "GET a", "1"),
        op(3, 4, "GET a", "2"), op(5, 6, "GET a", "1"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_is_linearizable_is_accepted(name: str) -> None:
    assert explained(GOOD[name])
    assert judged(*GOOD[name]) == "linearizable"


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_is_rejected_and_shown(name: str) -> None:
    assert not explained(BAD[name])
    verdict = check(BAD[name], MODEL)
    assert (verdict.judgement, verdict.good) == ("violation", False)
    (offence,) = verdict.offences
    assert not explained(offence.operations)
    assert len(lines(offence.operations, MODEL)) == len(offence.operations) + 1


CALLS = st.tuples(
    st.integers(0, 12), st.one_of(st.none(), st.integers(0, 12)),
    st.sampled_from(
        [("GET a", (None, b"1", b"2", b"12", b"x")), ("SET a 1", (b"OK",)), ("SET a 2", (b"OK",)),
         ("INCR a", (1, 2, 3)), ("APPEND a 2", (1, 2)), ("DEL a", (0, 1)),
         ("SET a 2 IFEQ 1", (b"OK", None)), ("GET a;GET b", ((None, None), (b"1", b"1"))),
         ("SET a 1;SET b 1", ((b"OK", b"OK"),)), ("GET b", (None, b"1")), ("DEL b", (0, 1))]
    ).flatmap(lambda each: st.tuples(st.just(each[0]), st.sampled_from(each[1]))),
)  # fmt: skip


@settings(deadline=None, max_examples=120)
@given(st.lists(CALLS, max_size=5))
def test_it_says_what_trying_all_orders_says(
    calls: list[tuple[int, int | None, tuple[str, object]]],
) -> None:
    history = [
        op(called, None if length is None else called + length, text,
           UNKNOWN if length is None else output)
        for called, length, (text, output) in calls
    ]  # fmt: skip
    good = explained(history)
    verdict = check(history, MODEL)
    assert verdict.judgement == ("linearizable" if good else "violation")
    for offence in verdict.offences[:1]:
        assert not explained(offence.operations), "what is shown must be wrong by itself"


@settings(deadline=None, max_examples=40)
@given(st.randoms(use_true_random=False), st.integers(1, 8), st.sampled_from([0.0, 0.05, 0.1]))
def test_what_a_linearizable_store_did_is_accepted(
    chance: random.Random, clients: int, unknown: float
) -> None:
    history = linearizable_history(chance, 40, clients, ("a", "b"), unknown)
    assert judged(*history) == "linearizable"


def damaged(history: list[Operation], chance: random.Random) -> list[Operation]:
    """With one answer of a read replaced by one that an earlier read gave: perhaps still right."""
    reads = [k for k, o in enumerate(history) if o.input[:2] == (b"GET", b"a") and o.returned]
    changed = list(history)
    if reads:
        place = chance.choice(reads)
        changed[place] = changed[place]._replace(output=history[reads[0]].output)
    return changed


@settings(deadline=None, max_examples=60)
@given(st.randoms(use_true_random=False))
def test_tiny_histories_by_chance(chance: random.Random) -> None:
    history = damaged(linearizable_history(chance, 6, 3, ("a", "b"), 0.2), chance)
    assert check(history, MODEL).good == explained(history)


def test_a_long_history_with_few_steps() -> None:
    """The search does not grow with what lies behind: 100,000 operations, on few keys."""
    history = linearizable_history(random.Random(1), 100_000, 8, ("a", "b", "c", "d"))
    verdict = check(history, MODEL, steps_max=400_000)
    assert verdict.good
    assert verdict.steps < 400_000


def test_a_violation_behind_much_that_is_right() -> None:
    history = linearizable_history(random.Random(1), 5000, 8, ("a", "b", "c", "d"))
    last = max(o.returned or 0 for o in history)
    verdict = check([*history, op(last + 1, last + 2, "GET na", "0")], MODEL)
    assert verdict.judgement == "violation"
    before, wrong = verdict.offences[0].operations
    assert (before.client, before.input[:2]) == ("(before)", (b"SET", b"na"))
    assert (wrong.input, wrong.output) == ((b"GET", b"na"), b"0")


def test_beyond_its_bound_it_is_undecided() -> None:
    history = [op(0, None, f"SET a {n};APPEND b {n}") for n in range(12)]
    verdict = check([*history, op(101, 102, "GET a;GET b", ("x", "y"))], MODEL, steps_max=1000)
    assert (verdict.judgement, verdict.good) == ("undecided", False)
    assert verdict.undecided == ((b"a", b"b"),)
    assert verdict.steps < 1100


def test_many_unknown_writes_that_nobody_saw_leave_a_violation_visible() -> None:
    """What faults leave behind: each of these may be done at any time."""
    unknown = [op(n, None, f"SET a u{n}") for n in range(30)]
    good = [op(100, 101, "SET a 1", "OK"), op(102, 103, "GET a", "u7"), op(104, 105, "GET a", "1")]
    assert judged(*unknown, *good[:2]) == "linearizable"
    assert judged(*unknown, *good) == "violation"


def test_an_offence_is_small() -> None:
    """A stale read among much that is right: what was there, and itself."""
    before = [
        o for n in range(0, 4000, 40)
        for o in (op(n, n + 5, f"SET a {n}", "OK"), op(n + 10, n + 25, "GET a", f"{n}"),
                  op(n + 12, n + 27, f"SET b {n}", "OK"))
    ]  # fmt: skip
    wrong = [
        op(5000, 5001, "SET a x", "OK"), op(5002, 5003, "SET a y", "OK"),
        op(5004, 5005, "GET a", "x"), op(5006, 5007, "SET a z", "OK"), op(5008, 5009, "GET a", "z"),
    ]  # fmt: skip
    (offence,) = check([*before, *wrong], MODEL).offences
    assert offence.operations[1:] == (wrong[2],)
    assert lines(offence.operations, MODEL, unit=1) == [
        "client    called  returned  operation",
        "(before)   0.000     0.000  SET a y -> OK",
        "c          1.000     2.000  GET a -> x",
    ]


def test_all_offending_keys_are_told() -> None:
    verdict = check(
        [op(0, 1, "GET a", "1"), op(0, 1, "GET b", None), op(0, 1, "GET c", "1")], MODEL
    )
    assert [offence.keys for offence in verdict.offences] == [(b"a",), (b"c",)]
    assert (verdict.operations, verdict.partitions) == (3, 3)


@pytest.mark.parametrize(
    "wrong",
    [Operation("c", 5, 4, (b"GET", b"a"), None), Operation("c", 5, None, (b"GET", b"a"), b"1"),
     Operation("c", 5, 6, (b"GET", b"a"))],
)  # fmt: skip
def test_operations_that_cannot_be_are_refused(wrong: Operation) -> None:
    with pytest.raises(ValueError, match="Operation"):
        check([wrong], MODEL)
