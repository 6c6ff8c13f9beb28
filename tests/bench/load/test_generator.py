"""The generator against servers of known latencies, in virtual time: figures by construction."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest

from bench.errors import BenchError
from bench.histogram import Histogram
from bench.load.outcome import Late, Outcome, StoodStill, merge
from bench.load.plan import Plan
from p4xos.tables import Address
from tests.bench.load.servers import MS, VirtualServer, stored

S = 1000 * MS
PLAN = Plan((Address("127.0.0.1", 1),), "C", clients=4, seconds=4.0, warm_up_s=1.0)
STALL = (2 * S, 3 * S)
"""In the middle of what is measured."""


def exactly(latencies: list[int], percent: float) -> int:
    return sorted(latencies)[math.ceil(len(latencies) * percent / 100) - 1]


def close_to(exact: int) -> object:
    """Within the width of a bucket."""
    return pytest.approx(exact, rel=1 / 1024)


def test_closed_loop_sends_the_next_when_one_is_answered() -> None:
    outcome = VirtualServer(10 * MS).run(PLAN._replace(pipeline=2))
    assert outcome.rate == 4 * 2 / 0.010
    assert outcome.latency.total == outcome.answered == 3200
    assert (outcome.latency.least_ns, outcome.latency.most_ns) == (10 * MS, 10 * MS)
    assert (outcome.unanswered, outcome.missing, outcome.errors) == (0, 0, Counter())
    assert outcome.lag.total == 0


def test_a_closed_loop_hides_a_stall() -> None:
    outcome = VirtualServer(10 * MS, *STALL).run(PLAN)
    latency = outcome.latency
    # Of 100 turns a second those of one second are not sent; one turn, sent at 1.99 s, is stalled.
    assert latency.total == 4 * 300
    assert latency.most_ns == 3 * S - (2 * S - 10 * MS)
    assert latency.sum_ns == 4 * (299 * 10 * MS + latency.most_ns)
    assert latency.percentile(99) == close_to(10 * MS)


def test_an_open_loop_shows_it() -> None:
    outcome = VirtualServer(10 * MS, *STALL).run(PLAN._replace(rate=1000, arrivals="constant"))
    latency = outcome.latency
    sent = [S + k * MS for k in range(4000)]
    expected = [
        (STALL[1] if STALL[0] <= time + 10 * MS < STALL[1] else time + 10 * MS) - time
        for time in sent
    ]
    assert sum(value > 10 * MS for value in expected) == 1000, "a quarter of them saw the stall"
    assert (latency.total, latency.sum_ns) == (4000, sum(expected))
    for percent in (50.0, 75.0, 90.0, 99.0):
        assert latency.percentile(percent) == close_to(exactly(expected, percent))
    assert outcome.lag.most_ns == 0


def test_poisson_arrivals_have_the_rate_and_no_pattern() -> None:
    server = VirtualServer(MS)
    outcome = server.run(PLAN._replace(rate=2000, seconds=10.0))
    count = outcome.latency.total
    assert abs(count - 20_000) < 5 * math.sqrt(20_000)
    times = [time for time, _ in server.arrivals]
    gaps = [after - before for before, after in pairwise(times)]
    # Of exponential distances a share of 1/e is longer than the mean.
    longer = sum(gap > 0.5 * MS for gap in gaps) / len(gaps)
    assert abs(longer - 1 / math.e) < 0.02
    assert {client for _, client in server.arrivals} == {0, 1, 2, 3}


def test_what_is_never_answered_counts_up_to_the_end() -> None:
    plan = PLAN._replace(rate=100, arrivals="constant", drain_s=2.0)
    outcome = VirtualServer(10 * MS, 3 * S, 100 * S).run(plan)
    # Sent every 10 ms; the answer of whatever was sent from 2.99 s on is stalled.
    assert outcome.unanswered == 201
    assert outcome.answered == 200  # from 1 s on, the answer of what was sent before among them
    latency = outcome.latency
    assert latency.total == 400
    assert latency.most_ns == 7 * S - (3 * S - 10 * MS)
    assert latency.percentile(50) == close_to(2 * S + 10 * MS)


def test_the_warm_up_is_cut() -> None:
    slow_at_first = VirtualServer(10 * MS, 0, S - 50 * MS)
    outcome = slow_at_first.run(PLAN)
    assert outcome.latency.most_ns == 10 * MS
    assert outcome.seconds == 4.0


def test_a_generator_that_does_not_keep_up_is_void() -> None:
    plan = PLAN._replace(rate=1000, arrivals="constant")
    late = VirtualServer(MS, send_cost_ns=2 * MS).run(plan)
    # Sends every 2 ms what was meant every millisecond: the last one is half of all time late.
    assert late.lag_ms > 1000
    assert late.latency.least_ns > 500 * MS, "from the intended time on"
    with pytest.raises(Late, match="void"):
        late.check(plan.lag_limit_ms)
    VirtualServer(MS, send_cost_ns=MS // 10).run(plan).check(plan.lag_limit_ms)


@pytest.mark.parametrize("rate", [None, 1000.0])
def test_a_machine_that_stands_still_makes_the_run_void(rate: float | None) -> None:
    plan = PLAN._replace(rate=rate, arrivals="constant")
    stalled = VirtualServer(10 * MS, *STALL).run(plan)
    assert stalled.overslept_ns == 0, "a server that stalls is no such machine"
    stalled.check(plan.lag_limit_ms)
    frozen = VirtualServer(10 * MS, frozen_ns=(2 * S, 4 * S)).run(plan)
    assert 1.8 * S < frozen.overslept_ns <= 2 * S
    with pytest.raises(StoodStill, match="stood still"):
        frozen.check(1e6)
    assert merge([stalled, frozen]).overslept_ns == frozen.overslept_ns


def test_read_modify_write_is_one_operation_from_its_read_on() -> None:
    server = VirtualServer(10 * MS)
    outcome = server.run(PLAN._replace(workload="F"))
    done = outcome.latencies["read-modify-write"]
    assert (done.least_ns, done.most_ns) == (20 * MS, 20 * MS)
    assert outcome.latencies["read"].most_ns == 10 * MS
    gets = [words[1] for words in server.requests if words[0] == b"GET"]
    sets = [words[1] for words in server.requests if words[0] == b"SET"]
    assert len(sets) + outcome.latencies["read"].total <= len(gets)
    assert not Counter(sets) - Counter(gets), "what is written was read"


def test_errors_and_missing_records() -> None:
    def answer(words: list[bytes]) -> bytes:
        return b"$-1\r\n" if words[0] == b"GET" else b"-NOQUORUM try again\r\n"

    outcome = VirtualServer(10 * MS, answer=answer).run(PLAN._replace(workload="A"))
    assert outcome.missing == outcome.latencies["read"].total > 0
    assert outcome.errors["NOQUORUM try again"] >= outcome.latencies["update"].total > 0
    with pytest.raises(BenchError, match="NOQUORUM"):
        outcome.check(1.0)


def test_a_bounded_load_inserts_every_record_once() -> None:
    server = VirtualServer(MS)
    plan = PLAN._replace(workload="load", records=1000, operations=1000, pipeline=16, warm_up_s=0)
    outcome = server.run(plan)
    assert outcome.answered == outcome.latency.total == 1000
    assert sorted(words[1] for words in server.requests) == [
        b"user%012d" % record for record in range(1000)
    ]
    assert all(stored(words) == b"+OK\r\n" for words in server.requests)
    assert outcome.seconds == pytest.approx(1000 / 64 * 0.001, abs=0.001)


def test_merged_is_as_if_one_had_sent_everything() -> None:
    plan = PLAN._replace(rate=500, arrivals="constant", parts=2)
    parts = [VirtualServer(10 * MS).run(plan._replace(part=part)) for part in (0, 1)]
    both = merge([Outcome.from_json(part.as_json()) for part in parts])
    assert (both.latency.total, both.answered, both.seconds) == (4000, 4000, 4.0)
    assert both.rate == 1000
    both.latencies["read"].record([1])
    assert both.percentile_ms(50) == close_to(10)
    assert both.percentile_ms(50, "scan") is None
    assert parts[0].latency.total == 2000, "a merge leaves its parts alone"


def test_an_outcome_survives_json() -> None:
    outcome = Outcome(2.0, {"read": Histogram()}, answered=3, unanswered=1, missing=2)
    outcome.latencies["read"].record([5, 7])
    outcome.errors["ERR no"] = 4
    assert Outcome.from_json(outcome.as_json()) == outcome
