"""A power cut at any point of a store's life: RocksDB's own calls, recorded and cut short.

A process uses a store on the real RocksDB while tests/storage/recorder.c writes down each call.
Then the directory is built as a power cut after any of them may leave it, and a store is opened
there: it opens, holds all that was reported durable, and its data are of the instance it names.
POWER_CUTS says after how many calls the power is cut, evenly chosen; "all": after each.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from kvstore.store import Store
from tests.storage.traces import (
    Call,
    Survivors,
    build_recorder,
    losses,
    read_trace,
    rebuild,
    run_recorded,
)

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")

CLUSTER = 7
CUTS = os.environ.get("POWER_CUTS", "12")
FAILURES = os.environ.get("FAILURES", "16")
MARKS = "MARKS"
STORE = Path("node") / "store"

COMMON = """
import os, sys
from pathlib import Path
from kvstore import store as module
from tests.kvstore.test_power_cut import CLUSTER, MARKS, STORE, put

root = Path(sys.argv[1])
marks = os.open(root / MARKS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def mark(what, instance):
    os.write(marks, b"%s %d;" % (what, instance))

def commit(store, instance):
    put(store, instance)
    mark(b"begun", instance)
    store.commit(instance, {b"table": b"%d" % instance})
"""

# Tables written by hand, syncs now and then, a snapshot that is installed; then it is killed.
FIRST = (
    COMMON
    + """
store = module.Store(root / STORE, CLUSTER)
for instance in range(1, 40):
    commit(store, instance)
    if instance % 6 == 0:
        mark(b"durable", store.sync())
    if instance in (15, 31):
        store.write_out()
peer = module.Store(root / "peer", CLUSTER)
for instance in range(1, 61):
    put(peer, instance)
    peer.commit(instance, {b"table": b"%d" % instance})
peer.snapshot(root / "copy")
mark(b"begun", 60)
store.install(root / "copy")
mark(b"durable", store.sync())
for instance in range(61, 75):
    commit(store, instance)
    if instance % 6 == 0:
        mark(b"durable", store.sync())
os._exit(0)
"""
)

# What a killed process had written and not synced is taken for durable by the next.
SECOND = (
    COMMON
    + """
store = module.Store(root / STORE, CLUSTER)
mark(b"durable", store.sync())
commit(store, store.applied + 1)
store.close()
mark(b"durable", store.applied)
os._exit(0)
"""
)

# Tables are written in the background, one after the other, while batches go on.
BACKGROUND = (
    COMMON
    + """
from p4xos import write_ahead
write_ahead.TABLE_BYTES = 48 << 10
store = module.Store(root / STORE, CLUSTER)
for instance in range(1, 400):
    commit(store, instance)
    if instance % 50 == 0:
        mark(b"durable", store.sync())
os._exit(0)
"""
)


# One call after the other fails, each in the life of another store. Whoever is told of an error
# stops; here it goes on, so that a later sync which claims too much would show.
FAILING = (
    COMMON
    + """
import ctypes, errno
from kvstore.store import StoreError
from p4xos import write_ahead

write_ahead.TABLE_BYTES = 8 << 10
fail = ctypes.CDLL(None).recorder_fail
fail.argtypes, fail.restype = (ctypes.c_long, ctypes.c_int), ctypes.c_long

def live(directory):
    errors = 0
    try:
        store = module.Store(directory, CLUSTER)
    except StoreError:
        return 1
    try:
        for instance in range(1, 31):
            try:
                commit(store, instance)
                if instance % 4 == 0:
                    mark(b"durable", store.sync())
            except StoreError:
                errors += 1
                if errors > 2:
                    break
    finally:
        store.abandon()
    return errors

mark(b"run", 0)
fail(-1, 0)
assert live(root / "0" / STORE) == 0
total = fail(-1, 0)
told = 0
for run, number in enumerate(range(0, total, max(1, total // int(sys.argv[2]))), 1):
    mark(b"run", run)
    fail(number, (errno.EIO, errno.ENOSPC)[run % 2])
    told += live(root / str(run) / STORE) > 0
    fail(-1, 0)
    mark(b"over", run)
print(run, told, flush=True)
os._exit(0)
"""
)


def content(instance: int) -> dict[bytes, bytes]:
    """What an instance writes: keys of its own, and some that others write too."""
    shared = {b"k%d" % ((instance + k) % 7): b"%d," % instance * (instance * 37 % 700)
              for k in range(3)}  # fmt: skip
    return {**shared, b"new%d" % instance: b""}


def put(store: Store, instance: int) -> None:
    for key, value in content(instance).items():
        store.keyspaces[0].put(key, value)


class Promised(NamedTuple):
    """What the process had said when the power went."""

    durable: int = 0
    begun: int = 0
    run: int = 0
    over: int = 0

    def told(self, text: bytes) -> Promised:
        """With what it says next."""
        promised = self
        for word, number in (part.split() for part in text.split(b";")[:-1]):
            if word == b"run":
                promised = Promised()
            promised = promised._replace(**{word.decode(): int(number)})
        return promised


def cuts(root: Path, calls: list[Call], wanted: str) -> Iterator[tuple[int, Survivors, Promised]]:
    """Points at which the power may go."""
    survivors, promised, handles = Survivors(root), Promised(), set()
    step = 1 if wanted == "all" else max(1, len(calls) // int(wanted))
    for index, call in enumerate(calls):
        survivors.follow(call)
        assert call.kind != "X", "a file is mapped for writing, which no sync shows"
        if call.kind == "O" and call.first.endswith(os.fsencode("/" + MARKS)):
            handles.add(call.handle)
        elif call.kind == "O":
            handles.discard(call.handle)
        elif call.kind == "W" and call.handle in handles:
            promised = promised.told(call.first)
        if index % step == step - 1 or index == len(calls) - 1:
            yield index, survivors, promised


def check(directory: Path, promised: Promised) -> None:
    """A store that starts there is whole."""
    store = Store(directory / STORE, CLUSTER)
    try:
        assert promised.durable <= store.applied <= promised.begun, "an instance was lost"
        expected: dict[bytes, bytes] = {}
        for instance in range(1, store.applied + 1):
            expected.update(content(instance))
        found = {key: store.keyspaces[0].get(key) for key in expected}
        assert found == expected
        assert store.keyspaces[0].count() == len(expected)
        if store.applied:
            assert store.learner_state() == {b"table": b"%d" % store.applied}
    finally:
        store.abandon()


def store_of(tree: dict[Path, bytes | None]) -> dict[Path, bytes | None]:
    """The store's part of what is left, without what RocksDB tells people (LOG)."""
    return {
        path: content
        for path, content in tree.items()
        if STORE.is_relative_to(path) or (path.is_relative_to(STORE) and path.name[:3] != "LOG")
    }


def place(tmp_path: Path) -> Path:
    """Where what is left is built: in memory, for a disk would sync it hundreds of times."""
    memory = Path("/dev/shm")
    return (memory if os.access(memory, os.W_OK) else tmp_path) / f"p4xos-cut-{os.getpid()}"


@pytest.mark.parametrize("programs", [(FIRST, SECOND), (BACKGROUND,)], ids=["by hand", "by itself"])
def test_a_power_cut_loses_nothing_that_was_durable(
    tmp_path: Path, programs: tuple[str, ...]
) -> None:
    """docs/PROTOCOL.md, section 7; docs/traps.md, 14."""
    root = tmp_path / "root"
    root.mkdir()
    recorder = build_recorder(tmp_path)
    for program in programs:
        done = run_recorded(recorder, root, tmp_path / "trace", program)
        assert done.returncode == 0, done.stderr
    calls = [*read_trace(tmp_path / "trace")]
    random, left = Random(1), place(tmp_path)
    tried: Counter[str] = Counter()
    seen = set()
    try:
        for index, survivors, promised in cuts(root, calls, CUTS):
            for loss in losses(random):
                tried[loss.name] += 1
                tree = store_of(survivors.left(loss))
                if (key := (promised, frozenset(tree.items()))) in seen:
                    continue
                seen.add(key)
                rebuild(tree, left)
                try:
                    check(left, promised)
                except Exception as error:
                    error.add_note(f"{loss.name}, after call {index} of {len(calls)}")
                    raise
    finally:
        shutil.rmtree(left, ignore_errors=True)
    assert min(tried.values()) > 1
    print(f"{tried.total()} power cuts, {len(seen)} different outcomes, {len(calls)} calls")


def test_a_call_that_fails_is_told_and_nothing_is_taken_for_durable(tmp_path: Path) -> None:
    """docs/traps.md, 10 and 14: EIO and ENOSPC, at the write, sync, rename ... of RocksDB.

    A sync that failed has lost what it should have kept, though reading still shows it.
    """
    root = tmp_path / "root"
    root.mkdir()
    trace = tmp_path / "trace"
    done = run_recorded(build_recorder(tmp_path), root, trace, FAILING, FAILURES)
    assert done.returncode == 0, done.stderr
    runs, told = map(int, done.stdout.split())
    assert told > runs // 3
    calls = [*read_trace(trace)]
    left, random = place(tmp_path), Random(1)
    checked = over = 0
    try:
        for index, survivors, promised in cuts(root, calls, "all"):
            if promised.over in (0, over):
                continue
            over = promised.over
            for loss in losses(random)[:2]:
                tree = survivors.left(loss)
                own = {p.relative_to(f"{over}"): c for p, c in tree.items()
                       if p.parts[0] == f"{over}" and p != Path(f"{over}")}  # fmt: skip
                rebuild(own, left)
                try:
                    check(left, promised)
                except Exception as error:
                    failed = [call for call in calls[:index] if call.kind == "E"][-1]
                    error.add_note(f"{loss.name}, run {over}: {failed.first.decode()} failed")
                    raise
                checked += 1
    finally:
        shutil.rmtree(left, ignore_errors=True)
    assert checked == 2 * runs
    print(f"{runs} failures, {told} of them told")
