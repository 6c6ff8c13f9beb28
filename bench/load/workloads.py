"""YCSB's workloads on a store of strings: what is done how often, and the requests as bytes.

A record is a string under `user` and twelve digits (in YCSB's Redis binding a hash of ten fields):

    read                 GET
    update, insert       SET of the whole record
    scan                 MGET of 1 to 100 records from the drawn one on, in the order of their keys
    read-modify-write    GET; when it is answered, SET; one operation from the first to the last

The store has no ordered scans, so a scan (workload E) names its keys: what is read is what a scan
from that key would return; finding the keys, which YCSB's binding does by a sorted set of its own,
is not part of it.

Source: Cooper et al. 2010, table 2; YCSB's workloads/workloada to workloadf.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.load import keys

if TYPE_CHECKING:
    from bench.load.plan import Plan

SCAN_MOST = 100
"""YCSB's maxscanlength; lengths are uniform from 1."""
_CHUNK = 4096
_CHUNK_BYTES = 4 << 20
"""Requests are made in chunks of this many, or of so many bytes: values may be large."""
_VALUES = 16
"""Different values, so that a compressing store does not see one again and again."""


class Kind(IntEnum):
    """An operation."""

    READ = 0
    UPDATE = 1
    INSERT = 2
    SCAN = 3
    READ_MODIFY_WRITE = 4


_KINDS = tuple(Kind)
NAMES = {kind: kind.name.lower().replace("_", "-") for kind in Kind}

MIXES: dict[str, dict[Kind, float]] = {
    "A": {Kind.READ: 0.5, Kind.UPDATE: 0.5},
    "B": {Kind.READ: 0.95, Kind.UPDATE: 0.05},
    "C": {Kind.READ: 1.0},
    "D": {Kind.READ: 0.95, Kind.INSERT: 0.05},
    "E": {Kind.SCAN: 0.95, Kind.INSERT: 0.05},
    "F": {Kind.READ: 0.5, Kind.READ_MODIFY_WRITE: 0.5},
    "update": {Kind.UPDATE: 1.0},
    "load": {Kind.INSERT: 1.0},
}
"""Shares by name: YCSB's six, writes alone, and `load`, which inserts the records from 0 on."""


class Operation(NamedTuple):
    """One operation, ready to be sent."""

    kind: Kind
    request: bytes
    second: bytes | None
    """Of a read-modify-write: what is sent when the first request is answered."""


def key(record: int) -> bytes:
    """A record's key."""
    return b"user%012d" % record


def command(*words: bytes) -> bytes:
    """A command as RESP."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(parts)


def operations(plan: Plan) -> Iterator[Operation]:
    """The operations of a plan, without end; the same plan, the same operations."""
    random = np.random.default_rng((plan.seed, plan.part))
    values = [command(random.bytes(plan.value_bytes))[4:] for _ in range(_VALUES)]
    shares = MIXES[plan.workload]
    kinds = [int(kind) for kind in shares]
    largest = plan.value_bytes if shares.keys() - {Kind.READ, Kind.SCAN} else 1
    chunk = max(8, min(_CHUNK, _CHUNK_BYTES // largest))
    # Inserted records continue those that are there; several generators interleave theirs.
    inserted = 0 if plan.workload == "load" else plan.records
    inserted += plan.part
    zeta = keys.zeta(plan.records) if plan.distribution == "latest" else 0.0
    while True:
        drawn = random.choice(kinds, chunk, p=list(shares.values()))
        is_insert = drawn == Kind.INSERT
        newest = inserted + np.cumsum(is_insert) * plan.parts  # the one that comes next
        records = _records(plan, random, newest - plan.parts, zeta)
        records[is_insert] = newest[is_insert] - plan.parts
        inserted = int(newest[-1])
        lengths = random.integers(1, SCAN_MOST + 1, chunk)
        for kind, record, length in zip(
            drawn.tolist(), records.tolist(), lengths.tolist(), strict=True
        ):
            yield _operation(_KINDS[kind], record, length, values)


def _records(plan: Plan, random: keys.Generator, newest: keys.Records, zeta: float) -> keys.Records:
    """A record for each operation; of `latest` the newer ones, of which `newest` are the last."""
    count = len(newest)
    if plan.distribution == "uniform":
        return keys.uniform(random, count, plan.records)
    if plan.distribution == "zipfian":
        return keys.scrambled_zipfian(random, count, plan.records)
    back = keys.zipfian(random, count, plan.records, zeta)
    found: keys.Records = np.maximum(newest - back, 0)
    return found


def _operation(kind: Kind, record: int, length: int, values: list[bytes]) -> Operation:
    if kind is Kind.READ:
        return Operation(kind, b"*2\r\n$3\r\nGET\r\n$16\r\nuser%012d\r\n" % record, None)
    if kind is Kind.SCAN:
        asked = command(b"MGET", *(key(record + k) for k in range(length)))
        return Operation(kind, asked, None)
    head = b"*3\r\n$3\r\nSET\r\n$16\r\nuser%012d\r\n" % record
    write = head + values[record % _VALUES]
    if kind is Kind.READ_MODIFY_WRITE:
        return Operation(kind, b"*2\r\n$3\r\nGET\r\n$16\r\nuser%012d\r\n" % record, write)
    return Operation(kind, write, None)
