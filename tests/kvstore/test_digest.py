"""The state hash: of the state alone, whatever batches led to it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import digest as digest_module
from kvstore.digest import Answers, Digest, MomentPassed, digest_beside, digest_of, overlaid
from kvstore.machine import KvStateMachine
from kvstore.packing import join_value, pack_commands
from kvstore.store import Store
from p4xos.errors import BadPacket
from p4xos.log import Delivered

CLUSTER = 7
START_MS = 1_700_000_000_000
ENTRIES = 40
COMMANDS = [
    [b"SET", b"a%d", b"x" * 30],
    [b"SET", b"due%d", b"soon", b"PX", b"3"],
    [b"DEL", b"a%d"],
    [b"APPEND", b"b%d", b"more"],
    [b"FLUSHDB"],
    [b"SWAPDB", b"0", b"2"],
]


def entry(number: int) -> Delivered:
    """The same for everybody; sets, deletes, expires and empties."""
    packed = []
    for turn in range(3):
        special = 4 if number % 17 == 11 else 5 if number % 13 == 7 else None
        kind = COMMANDS[(number + turn) % 4 if special is None or turn != 1 else special]
        words = [word % (number % 7) if b"%d" in word else word for word in kind]
        packed += pack_commands([words], turn)
    return Delivered(number, None, join_value(packed, START_MS + number, 0))


def run(machine: KvStateMachine, cuts: list[int]) -> None:
    """Applies all entries, in batches that end at these instances."""
    for last, through in pairwise([0, *cuts, ENTRIES]):
        if through > last:
            batch = [entry(number) for number in range(last + 1, through + 1)]
            machine.apply(batch, through, {})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store", CLUSTER) as opened:
        yield opened


def digest_at(directory: Path, cuts: list[int]) -> tuple[Digest, list[int]]:
    with Store(directory, CLUSTER) as store:
        run(KvStateMachine(store), cuts)
        view = store.view(store.applied)
        return digest_of(view), view.counts


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, ENTRIES - 1), unique=True).map(sorted))
def test_it_does_not_depend_on_batches(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    one, counts = digest_at(tmp_path_factory.mktemp("one"), [])
    other, _ = digest_at(tmp_path_factory.mktemp("other"), cuts)
    assert one == other
    assert one.counts == counts
    assert one.keys > 0


@pytest.mark.parametrize("instance", [1, 11, 12, 25, ENTRIES])
async def test_a_moment_inside_of_a_batch(tmp_path: Path, instance: int) -> None:
    """The changes of the batch until then count, the later ones do not."""
    with Store(tmp_path / "reference", CLUSTER) as store:
        machine = KvStateMachine(store)
        machine.apply([entry(n) for n in range(1, instance + 1)], instance, {})
        expected = digest_of(store.view(instance))
    found: list[Digest] = []
    with Store(tmp_path / "store", CLUSTER) as store:
        machine = KvStateMachine(store)

        async def wait(task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            view = await machine.moments.at(instance)
            assert view.instance == instance
            found.append(await digest_beside(view))

        async with trio.open_nursery() as nursery:
            await nursery.start(wait)
            await trio.testing.wait_all_tasks_blocked()
            run(machine, [8])
    assert found == [expected]


async def test_no_ops_end_a_moment_too(store: Store) -> None:
    """Instances without a value for the application: the state is that of the one before."""
    machine = KvStateMachine(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.moments.at, 9)
        await trio.testing.wait_all_tasks_blocked()
        machine.apply([entry(1)], 12, {})
    with pytest.raises(MomentPassed):
        await machine.moments.at(9)
    assert machine.moments.due > 1 << 63


async def test_a_moment_that_does_not_come(
    store: Store, autojump_clock: trio.testing.MockClock
) -> None:
    machine = KvStateMachine(store)
    with pytest.raises(MomentPassed):
        await machine.moments.at(5)
    assert machine.moments.due > 1 << 63


async def test_a_moment_that_a_copy_jumps_over(tmp_path: Path, store: Store) -> None:
    run(KvStateMachine(store), [])
    store.snapshot(tmp_path / "copy")
    with Store(tmp_path / "other", CLUSTER) as other:
        machine = KvStateMachine(other)
        caught: list[MomentPassed] = []

        async def wait() -> None:
            try:
                await machine.moments.at(5)
            except MomentPassed as error:
                caught.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            machine.install(tmp_path / "copy")
        assert [error.applied for error in caught] == [ENTRIES]


async def test_what_a_node_answers(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_module, "TURN_S", 0.0)
    machine = KvStateMachine(store)
    run(machine, [])
    answers = Answers(machine.moments)
    digest = digest_of(store.view(ENTRIES))
    assert await answers.digest_untrusted({"at": ENTRIES}) == {
        "hash": digest.hash, "counts": digest.counts, "kept_counts": store.counts
    }  # fmt: skip
    assert await answers.digest_untrusted({"at": 3}) == {"passed": ENTRIES}
    for bad in ({}, {"at": "3"}, {"at": -1}, {"at": 1 << 70}):
        with pytest.raises(BadPacket):
            await answers.digest_untrusted(bad)


records = st.dictionaries(st.binary(min_size=1, max_size=2), st.binary(max_size=2))


@given(
    stored=records,
    changes=st.dictionaries(
        st.binary(min_size=1, max_size=2), st.one_of(st.none(), st.binary(max_size=2))
    ),
    cleared=st.frozensets(st.integers(0, 255)),
)
def test_overlaid_is_what_a_dictionary_says(
    stored: dict[bytes, bytes], changes: dict[bytes, bytes | None], cleared: frozenset[int]
) -> None:
    model: dict[bytes, bytes | None] = {k: v for k, v in stored.items() if k[0] not in cleared}
    model |= changes
    expected = sorted((key, value) for key, value in model.items() if value is not None)
    assert list(overlaid(iter(sorted(stored.items())), changes, cleared)) == expected


def test_blocks_are_told_apart() -> None:
    """The same bytes, cut otherwise into keys and values, are another state."""

    def hashed(*pairs: tuple[bytes, bytes]) -> str:
        state = digest_module.StateHash(b"", [])
        state.take(list(pairs))
        return state.digest().hash

    cuts = [((b"\x10ab", b"c"),), ((b"\x10a", b"bc"),), ((b"\x10a", b""), (b"b", b"c"))]
    assert len({hashed(*cut) for cut in cuts}) == 3
