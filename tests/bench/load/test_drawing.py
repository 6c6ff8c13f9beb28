"""Keys, operations and intended times, as they are drawn."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import hiredis
import numpy as np
import pytest

from bench.load import keys
from bench.load.plan import Distribution, Plan
from bench.load.schedule import intended
from bench.load.workloads import MIXES, SCAN_MOST, Kind, Operation, command, operations
from p4xos.tables import Address

PLAN = Plan((Address("127.0.0.1", 1),))
DRAWN = 100_000


def random() -> np.random.Generator:
    return np.random.default_rng(7)


def words(request: bytes) -> list[bytes]:
    reader = hiredis.Reader()
    reader.feed(request)
    found: list[bytes] = reader.gets()
    assert reader.gets() is False
    return found


def some(plan: Plan, count: int = 5000) -> list[Operation]:
    return list(islice(operations(plan), count))


@pytest.mark.parametrize("items", [1, 2, 3, 1000])
def test_zipfian_ranks(items: int) -> None:
    ranks = keys.zipfian(random(), DRAWN, items)
    counts = np.bincount(ranks, minlength=items)
    assert len(counts) == items
    total = keys.zeta(items)
    for rank in range(min(items, 2)):  # those that are exact
        share = 1 / (rank + 1) ** keys.THETA / total
        assert abs(counts[rank] / DRAWN - share) < 0.01
    assert np.all(np.diff(counts[:3]) <= 0)


def test_scrambled_zipfian_is_ycsbs() -> None:
    records = keys.scrambled_zipfian(random(), DRAWN, 1000)
    assert records.min() >= 0
    assert records.max() < 1000
    counts = Counter(records.tolist())
    (first, most), *_ = counts.most_common(1)
    assert first == keys.fnv_hash(np.array([0]))[0] % 1000
    # Rank 0's share of all, and at most what the other ranks that fall on its record add.
    assert 0.036 < most / DRAWN < 0.042
    assert len(counts) == 1000


def test_the_hash_is_ycsbs() -> None:
    """Utils.fnvhash64, one number at a time."""

    def slow(value: int) -> int:
        found = 0xCBF29CE484222325
        for _ in range(8):
            found = (found ^ value & 0xFF) * 1099511628211 % (1 << 64)
            value >>= 8
        return abs(found - (1 << 64) if found >> 63 else found)

    values = [0, 1, 255, 256, 9_999_999_999]
    assert keys.fnv_hash(np.array(values)).tolist() == [slow(value) for value in values]


def test_uniform() -> None:
    counts = np.bincount(keys.uniform(random(), DRAWN, 10))
    assert len(counts) == 10
    assert np.all(np.abs(counts / DRAWN - 0.1) < 0.01)


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("distribution", ["uniform", "zipfian", "latest"])
def test_mixes(name: str, distribution: Distribution) -> None:
    drawn = some(PLAN._replace(workload=name, distribution=distribution, value_bytes=100))
    counts = Counter(operation.kind for operation in drawn)
    assert counts.keys() == MIXES[name].keys()
    for kind, share in MIXES[name].items():
        assert abs(counts[kind] / len(drawn) - share) < 0.03


def test_requests() -> None:
    by_kind: dict[Kind, Operation] = {}
    for name in "ADEF":
        for operation in some(PLAN._replace(workload=name, records=9, value_bytes=20), 200):
            by_kind.setdefault(operation.kind, operation)
    keys_there = {b"user%012d" % record for record in range(9)}
    get, key = words(by_kind[Kind.READ].request)
    assert (get, key in keys_there) == (b"GET", True)
    for kind in (Kind.UPDATE, Kind.INSERT):
        set_, key, value = words(by_kind[kind].request)
        assert (set_, key in keys_there, len(value)) == (b"SET", kind is Kind.UPDATE, 20)
    mget, *scanned = words(by_kind[Kind.SCAN].request)
    assert mget == b"MGET"
    assert 1 <= len(scanned) <= SCAN_MOST
    assert scanned == sorted(set(scanned)), "consecutive records, in the order of their keys"
    both = by_kind[Kind.READ_MODIFY_WRITE]
    assert both.second is not None
    assert words(both.request)[1] == words(both.second)[1]
    assert words(both.second)[0] == b"SET"


def test_inserts_continue_and_parts_do_not_meet() -> None:
    def inserted(part: int) -> list[bytes]:
        plan = PLAN._replace(workload="D", distribution="latest", records=50, part=part, parts=2)
        return [words(o.request)[1] for o in some(plan) if o.kind is Kind.INSERT]

    even, odd = inserted(0), inserted(1)
    assert even == [b"user%012d" % (50 + 2 * k) for k in range(len(even))]
    assert odd == [b"user%012d" % (51 + 2 * k) for k in range(len(odd))]


def test_latest_reads_what_was_inserted_last() -> None:
    newest, back = 49, []
    for operation in some(PLAN._replace(workload="D", distribution="latest", records=50)):
        record = int(words(operation.request)[1].removeprefix(b"user"))
        if operation.kind is Kind.INSERT:
            newest = record
        else:
            back.append(newest - record)
    assert min(back) == 0
    assert max(back) < 50
    assert Counter(back).most_common(1)[0][0] == 0


def test_the_same_plan_is_the_same_load_and_another_part_is_not() -> None:
    assert some(PLAN) == some(PLAN)
    assert some(PLAN) != some(PLAN._replace(part=1, parts=2))
    assert some(PLAN) != some(PLAN._replace(seed=2))


def test_large_values_are_not_made_by_the_thousand() -> None:
    first = next(operations(PLAN._replace(workload="update", value_bytes=1 << 20)))
    assert len(words(first.request)[2]) == 1 << 20


def test_constant_times_interleave() -> None:
    plan = PLAN._replace(rate=1000.0, arrivals="constant", parts=2)
    first, second = (list(islice(intended(plan._replace(part=p)), 5000)) for p in (0, 1))
    assert first == [k * 1_000_000 for k in range(5000)]
    assert second == [k * 1_000_000 + 500_000 for k in range(5000)]


def test_a_closed_loop_has_no_times() -> None:
    with pytest.raises(ValueError, match="rate"):
        next(intended(PLAN))


def test_command() -> None:
    assert command(b"GET", b"k") == b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"addresses": ()}, "addresses"),
        ({"workload": "Z"}, 'workload "Z"'),
        ({"distribution": "normal"}, "distribution"),
        ({"arrivals": "never"}, "arrivals"),
        ({"clients": 0}, "clients"),
        ({"rate": 0.0}, "rate"),
        ({"rate": 5.0, "operations": 5}, "operations"),
        ({"seconds": 0.0}, "seconds"),
        ({"part": 1}, "part"),
    ],
)
def test_plans_without_sense(changed: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        PLAN._replace(**changed).check()  # type: ignore[arg-type]  # wrong on purpose


def test_a_plan_survives_json() -> None:
    plan = PLAN._replace(rate=5.0, addresses=(Address("a", 1), Address("b", 2)))
    assert Plan.from_json(plan.as_json()) == plan
