"""A store with damaged files: told when it is opened or read, and never believed."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from kvstore import joining
from kvstore.joining import NodeLost
from kvstore.store import Store, StoreError
from p4xos import generations
from p4xos.config import Cluster
from p4xos.framing import Frame

CLUSTER = 7
KEYS = 300
FLIPS = int(os.environ.get("FLIPS", "6"))
"""Bits changed in each file; the long form is a number beyond the bytes of any of them."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as a killed node leaves it: tables, and a log behind them, all of it synced."""
    directory = tmp_path_factory.mktemp("whole")
    store = Store(directory / "used", CLUSTER)
    for instance in range(1, 31):
        for number in range(instance % 10, KEYS, 10):
            store.keyspaces[0].put(b"key%03d" % number, b"%d:%d," % (number, instance) * 20)
        store.commit(instance, {b"table": b"%d" % instance})
        if instance in (10, 20):
            store.write_out()
    store.sync()
    shutil.copytree(directory / "used", directory / "store")
    store.abandon()
    return directory / "store"


def expected() -> dict[bytes, bytes]:
    last = {number: max(i for i in range(1, 31) if i % 10 == number % 10) for number in range(KEYS)}
    return {b"key%03d" % n: b"%d:%d," % (n, instance) * 20 for n, instance in last.items()}


def outcome(directory: Path, wanted: dict[bytes, bytes]) -> str:
    """What a node meets that starts there and reads everything."""
    try:
        store = Store(directory, CLUSTER)
    except StoreError as error:
        helps = error.damaged and "move the directory away" in str(error)
        return "refused at the start" if helps else f"refused otherwise: {error}"
    try:
        space = store.keyspaces[0]
        right = {key: space.get(key) for key in wanted} == wanted
        listed = sorted(space.scan(None, 2 * KEYS)) == sorted(wanted)
        learner = store.learner_state() == {b"table": b"30"}
        whole = right and listed and learner and store.applied == 30 and space.count() == KEYS
        return "harmless" if whole else "WRONG DATA"
    except StoreError as error:
        return "refused when it was read" if error.damaged else f"refused otherwise: {error}"
    finally:
        store.abandon()


def damages(path: Path, random: Random) -> Iterator[tuple[str, bytes | None]]:
    """Ways in which a file may be damaged, each with the content that is left."""
    content = path.read_bytes()
    size = len(content)
    for position in sorted(random.sample(range(size), min(FLIPS, size))):
        changed = bytearray(content)
        changed[position] ^= 1 << random.randrange(8)
        yield f"bit in byte {position}", bytes(changed)
    yield "cut to a half", content[: size // 2]
    yield "its last byte is missing", content[:-1]
    yield "empty", b""
    yield "missing", None
    if size > 512:
        yield "a sector of zeros", content[:256] + bytes(512) + content[768:]


def damaged(whole: Path, pattern: str, tmp_path: Path) -> Counter[str]:
    """Outcomes of all damages to the files of one kind."""
    random, outcomes, wanted = Random(1), Counter[str](), expected()
    memory = Path("/dev/shm")
    place = (memory if os.access(memory, os.W_OK) else tmp_path) / f"p4xos-damage-{os.getpid()}"
    files = sorted(path for path in whole.rglob(pattern) if path.is_file())
    assert files, f"the store has no {pattern}"
    try:
        for path in files:
            for what, content in damages(path, random):
                shutil.rmtree(place, ignore_errors=True)
                shutil.copytree(whole, place)
                victim = place / path.relative_to(whole)
                victim.unlink()
                if content is not None:
                    victim.write_bytes(content)
                try:
                    outcomes[outcome(place, wanted)] += 1
                except Exception as error:
                    error.add_note(f"{victim.name}: {what}")
                    raise
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(f"{pattern}: {dict(outcomes)}")
    return outcomes


@pytest.mark.parametrize("pattern", ["*.sst", "MANIFEST-*", "generation-*/CURRENT", "*.log"])
def test_damage_is_told_or_does_no_harm(whole: Path, pattern: str, tmp_path: Path) -> None:
    """docs/PROTOCOL.md, section 7: what a replica gives is the state, or an error."""
    outcomes = damaged(whole, pattern, tmp_path)
    assert set(outcomes) <= {"refused at the start", "refused when it was read", "harmless"}
    assert outcomes.total() > outcomes["harmless"], "damage to these files must show"


@pytest.mark.parametrize("pattern", ["DURABLE", "OPTIONS-*", "IDENTITY", "rocksdict-config.json"])
def test_files_that_hold_no_data_do_no_harm(whole: Path, pattern: str, tmp_path: Path) -> None:
    outcomes = damaged(whole, pattern, tmp_path)
    assert set(outcomes) <= {"refused at the start", "harmless"}


# What a node does about it ----------------------------------------------------------------------


def spoiled(cluster: Cluster, name: str) -> Path:
    """The damaged store of a node."""
    directory = joining.store_directory(cluster, name)
    store = Store(directory, cluster.id)
    store.keyspaces[0].put(b"only here", b"v")
    store.commit(5, {})
    store.close()
    next(directory.glob("generation-*/CURRENT")).write_text("nonsense")
    return directory


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith(("LOG", "rocksdict-config"))
    }


async def test_the_only_store_is_never_begun_anew(tmp_path: Path) -> None:
    cluster = Cluster.template(nodes=1, directory=tmp_path)
    directory = spoiled(cluster, "n1")
    before = tree(directory)
    with pytest.raises(NodeLost, match=r"damaged .* is the only one .* restore a backup"):
        await joining.open_store(cluster, "n1")
    assert tree(directory) == before
    assert generations.kept_aside(directory) == []


async def test_without_a_node_that_has_a_copy_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "COPY_PATIENCE_S", 0.5)
    cluster = Cluster.template(nodes=3, directory=tmp_path)
    directory = spoiled(cluster, "n1")
    before = tree(directory)
    with pytest.raises(NodeLost, match=r"no other node can give a copy .* start the others first"):
        await joining.open_store(cluster, "n1")
    assert tree(directory) == before


@pytest.mark.parametrize(
    ("learner", "why"),
    [
        ({"delivered": 9, "behind": True}, "it is behind itself"),
        ({"delivered": 0, "behind": False}, "it has no data itself"),
        ({"delivered": 9, "behind": False}, ""),
    ],
)
async def test_who_may_be_relied_on_for_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learner: dict[str, object], why: str
) -> None:
    """docs/PROTOCOL.md, section 7: one that lacks nothing that only other learners have."""

    async def answer(*_: object) -> dict[str, Frame]:
        return {"n2": Frame({"status": {"learner": learner}}, b"")}

    monkeypatch.setattr(joining, "ask_each", answer)
    monkeypatch.setattr(joining, "COPY_PATIENCE_S", 0.1)
    cluster = Cluster.template(nodes=3, directory=tmp_path)
    directory = spoiled(cluster, "n1")
    if why:
        with pytest.raises(NodeLost, match=why):
            await joining.open_store(cluster, "n1")
        return
    with await joining.open_store(cluster, "n1") as store:
        assert store.applied == 0
    (aside,) = generations.kept_aside(directory)
    assert aside.name == "store.damaged-1"
    assert next(aside.glob("generation-*/CURRENT")).read_text() == "nonsense"


def test_damage_found_in_use_is_remembered(tmp_path: Path) -> None:
    cluster = Cluster.template(nodes=3, directory=tmp_path)
    directory = joining.store_directory(cluster, "n1")
    Store(directory, cluster.id).close()
    joining.condemn(cluster, "n1", StoreError(directory, "the disk is full"))
    Store(directory, cluster.id).close()
    joining.condemn(
        cluster, "n1", StoreError(directory, generations.explain("Corruption: a block"))
    )
    with pytest.raises(
        StoreError, match=r"damaged \(Corruption: found before: .*a block"
    ) as caught:
        Store(directory, cluster.id)
    assert caught.value.damaged


def test_a_damaged_copy_is_told_before_it_is_installed(whole: Path, tmp_path: Path) -> None:
    """Whoever gives a copy links to its tables and reads none of them."""
    shutil.copytree(whole, tmp_path / "giver")
    giver, taker = Store(tmp_path / "giver", CLUSTER), Store(tmp_path / "taker", CLUSTER)
    giver.snapshot(tmp_path / "good")
    assert taker.verify(tmp_path / "good") == 30
    giver.snapshot(tmp_path / "bad")
    table = max((tmp_path / "bad").glob("*.sst"), key=lambda path: path.stat().st_size)
    content = bytearray(table.read_bytes())
    for position in range(len(content) // 4, len(content) // 2, 50):
        content[position] ^= 4
    table.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        taker.verify(tmp_path / "bad")
    assert taker.applied == 0
    giver.abandon()
    taker.close()
