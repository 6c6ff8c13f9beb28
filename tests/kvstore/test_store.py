from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import keyspace as keyspace_module
from kvstore import memory as memory_module
from kvstore import store as store_module
from kvstore.keyspace import Keyspace
from kvstore.store import Store, StoreError
from p4xos.write_ahead import WriteAhead

CLUSTER = 7
SESSIONS = {b"table": b"sessions"}


def fill(store: Store, count: int, through: int) -> None:
    for number in range(count):
        store.keyspaces[0].put(b"key%d" % number, b"v%d" % number)
    store.commit(through, SESSIONS)


def test_a_batch_is_found_again_with_its_instance(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", CLUSTER)
    assert (store.applied, store.learner_state()) == (0, {})
    fill(store, 3, through=17)
    assert store.sync() == 17
    store.close()
    store = Store(tmp_path / "s", CLUSTER)
    assert (store.applied, store.learner_state()) == (17, SESSIONS)
    assert [store.keyspaces[0].get(b"key%d" % n) for n in range(4)] == [b"v0", b"v1", b"v2", None]
    assert store.keyspaces[0].count() == 3
    store.close()


def test_trap_17_keys_of_any_length(tmp_path: Path) -> None:
    """docs/traps.md, 17: no key is too short, the empty one included."""
    keys = [b"", b"\x00", b"a", b"ab", b"abc", b"a" * 4096]
    store = Store(tmp_path / "s", CLUSTER)
    for number, key in enumerate(keys):
        store.keyspaces[0].put(key, b"%d" % number)
    store.commit(1, {})
    store.close()
    store = Store(tmp_path / "s", CLUSTER)
    assert [store.keyspaces[0].get(key) for key in keys] == [b"%d" % n for n in range(len(keys))]
    assert store.keyspaces[0].count() == len(keys)
    store.close()


operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 1), st.integers(0, 5)),
        st.tuples(st.just("remove"), st.integers(0, 1), st.integers(0, 5)),
        st.tuples(st.just("clear"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("commit"), st.just(0), st.just(0)),
        st.tuples(st.just("reopen"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@given(operations, st.sampled_from([0, 64]), st.sampled_from([2, 65536]))
@settings(max_examples=40, deadline=None)
def test_the_store_is_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]],
    point_deletes: int, cache_keys: int,
) -> None:
    """Against plain dictionaries, with caches that turn all the time, and range deletes or not."""
    directory = tmp_path_factory.mktemp("model") / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "POINT_DELETES", point_deletes)
        patch.setattr(keyspace_module, "CACHE_KEYS", cache_keys)
        patch.setattr(memory_module, "CACHE_KEYS", cache_keys)
        store = Store(directory, CLUSTER)
        model: list[dict[bytes, bytes]] = [{}, {}]
        applied = 0
        for step, (what, database, number) in enumerate(steps):
            space, key = store.keyspaces[database], b"k%d" % number
            if what == "put":
                space.put(key, b"%d" % step)
                model[database][key] = b"%d" % step
            elif what == "remove":
                assert space.remove(key) is (model[database].pop(key, None) is not None)
            elif what == "clear":
                space.clear()
                model[database].clear()
            else:
                applied += 1
                store.commit(applied, {})
                if what == "reopen":
                    store.close()
                    store = Store(directory, CLUSTER)
                    assert store.applied == applied
            for space, expected in zip(store.keyspaces, model, strict=False):
                assert space.count() == len(expected)
                for other in range(6):
                    assert space.get(b"k%d" % other) == expected.get(b"k%d" % other)
        store.commit(applied + 1, {})
        store.close()


def test_emptying_a_large_database_leaves_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", CLUSTER)
    fill(store, 1000, through=1)
    store.keyspaces[1].put(b"k", b"other")
    store.commit(2, {})
    store.keyspaces[0].clear()
    store.keyspaces[0].put(b"key5", b"new")
    assert store.keyspaces[0].get(b"key6") is None
    store.commit(3, {})
    store.close()
    store = Store(tmp_path / "s", CLUSTER)
    assert [store.keyspaces[n].count() for n in range(2)] == [1, 1]
    assert store.keyspaces[0].get(b"key5") == b"new"
    assert store.keyspaces[0].get(b"key6") is None
    assert store.keyspaces[1].get(b"k") == b"other"
    store.close()


APPLIER = """
import sys
from pathlib import Path
from kvstore.store import Store
store = Store(Path(sys.argv[1]), 7)
instance = store.applied
while True:
    instance += 1
    for lane in range(20):
        store.keyspaces[0].put(b"lane%d" % lane, b"%d" % instance)
    store.keyspaces[0].put(b"new%d" % instance, b"")
    store.commit(instance, {b"table": b"%d" % instance})
    if instance % 50 == 0:
        print(store.sync(), flush=True)
"""


def test_trap_14_killed_while_applying_data_and_instance_agree(tmp_path: Path) -> None:
    """docs/traps.md, 14: the applied position is never apart from the data."""
    directory = tmp_path / "s"
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", APPLIER, str(directory)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(4):
            synced = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        store = Store(directory, CLUSTER)
        applied = store.applied
        assert applied >= synced
        assert store.learner_state() == {b"table": b"%d" % applied}
        assert {store.keyspaces[0].get(b"lane%d" % lane) for lane in range(20)} == {b"%d" % applied}
        assert store.keyspaces[0].count() == 20 + applied
        store.close()


def test_a_snapshot_is_a_copy_and_installs(tmp_path: Path) -> None:
    source, target = Store(tmp_path / "a", CLUSTER), Store(tmp_path / "b", CLUSTER)
    fill(source, 100, through=9)
    assert source.snapshot(tmp_path / "copy") == 9
    fill(source, 200, through=10)
    target.keyspaces[0].put(b"old", b"x")
    target.commit(3, {})
    target.install(tmp_path / "copy")
    assert (target.applied, target.learner_state()) == (9, SESSIONS)
    assert target.keyspaces[0].count() == 100
    assert target.keyspaces[0].get(b"old") is None
    target.keyspaces[0].put(b"more", b"x")
    target.commit(10, {})
    target.close()
    target = Store(tmp_path / "b", CLUSTER)
    assert (target.applied, target.keyspaces[0].count()) == (10, 101)
    assert len(list((tmp_path / "b").glob("generation-*"))) == 1
    target.close()
    source.close()
    again = Store(tmp_path / "copy2", CLUSTER)
    again.install(tmp_path / "copy")  # the snapshot is still what it was
    assert (again.applied, again.keyspaces[0].count()) == (9, 100)
    again.close()


def test_a_bad_snapshot_changes_nothing(tmp_path: Path) -> None:
    store, foreign = Store(tmp_path / "s", CLUSTER), Store(tmp_path / "f", CLUSTER + 1)
    fill(store, 5, through=4)
    foreign.snapshot(tmp_path / "copy")
    with pytest.raises(StoreError, match="belongs to cluster 00000008"):
        store.install(tmp_path / "copy")
    (tmp_path / "copy" / "CURRENT").write_text("nonsense")
    with pytest.raises(StoreError, match="damaged"):
        store.install(tmp_path / "copy")
    assert store.keyspaces[0].get(b"key1") == b"v1"
    store.close()
    foreign.close()
    store = Store(tmp_path / "s", CLUSTER)
    assert (store.applied, store.keyspaces[0].count()) == (4, 5)
    store.close()


def test_a_crash_before_the_snapshot_is_named_leaves_the_old_state(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", CLUSTER)
    fill(store, 5, through=4)
    store.close()
    (tmp_path / "s" / "generation-000002").mkdir()
    (tmp_path / "s" / "CURRENT.new").write_text("generation-0000")
    store = Store(tmp_path / "s", CLUSTER)
    assert (store.applied, store.keyspaces[0].count()) == (4, 5)
    assert not (tmp_path / "s" / "generation-000002").exists()
    store.close()


def test_another_cluster_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "s", CLUSTER).close()
    with pytest.raises(StoreError, match="belongs to cluster 00000007, not to 00000008"):
        Store(tmp_path / "s", CLUSTER + 1)


def test_a_store_in_use_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", CLUSTER)
    with pytest.raises(StoreError, match="another process uses it"):
        Store(tmp_path / "s", CLUSTER)
    store.close()


def test_another_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match=r"not a store, and not empty \(it holds 'thesis.tex'\)"):
        Store(tmp_path, CLUSTER)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("")
    with pytest.raises(StoreError, match=r"a file is in the way .* move it away"):
        Store(tmp_path / "s", CLUSTER)


def live_files(directory: Path, suffix: str) -> list[Path]:
    return sorted(next(directory.glob("generation-*")).glob(f"*{suffix}"))


@pytest.mark.parametrize("suffix", [".log", "CURRENT"])
def test_damage_is_an_error_that_names_the_directory(tmp_path: Path, suffix: str) -> None:
    store = Store(tmp_path / "s", CLUSTER)
    for instance in range(1, 50):
        fill(store, 100, through=instance)
    store.sync()
    (tmp_path / "copy").mkdir()
    subprocess.run(["cp", "-r", str(tmp_path / "s"), str(tmp_path / "copy")], check=True)
    store.close()
    victim = live_files(tmp_path / "copy" / "s", suffix)[-1]
    content = bytearray(victim.read_bytes())
    content[len(content) // 3] ^= 0xFF
    victim.write_bytes(content)
    with pytest.raises(StoreError, match=r"damaged .* move the directory away"):
        Store(tmp_path / "copy" / "s", CLUSTER)


def test_a_torn_end_of_the_log_is_a_crash_and_no_damage(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", CLUSTER)
    for instance in range(1, 50):
        fill(store, 100, through=instance)
        if instance == 40:
            store.sync()
    subprocess.run(["cp", "-r", str(tmp_path / "s"), str(tmp_path / "copy")], check=True)
    store.close()
    victim = live_files(tmp_path / "copy", ".log")[-1]
    victim.write_bytes(victim.read_bytes()[:-11])
    store = Store(tmp_path / "copy", CLUSTER)
    assert store.applied == 48
    assert store.keyspaces[0].count() == 100
    store.close()


def test_a_log_that_ends_before_what_was_synced_is_damage(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", CLUSTER)
    for instance in range(1, 50):
        fill(store, 100, through=instance)
    store.sync()
    subprocess.run(["cp", "-r", str(tmp_path / "s"), str(tmp_path / "copy")], check=True)
    store.close()
    victim = live_files(tmp_path / "copy", ".log")[-1]
    victim.write_bytes(victim.read_bytes()[:-11])
    with pytest.raises(StoreError, match=r"damaged .* durable through instance 49.* ends at 48"):
        Store(tmp_path / "copy", CLUSTER)


def test_a_failed_write_is_loud(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", CLUSTER)

    class FullDisk:
        def get(self, key: bytes) -> None:
            return None

        def write(self, batch: object) -> None:
            raise Exception("IO error: No space left on device")

    real = store._database
    store._database = FullDisk()  # type: ignore[assignment]
    store._log = WriteAhead(store._database)
    Keyspace(store, 0).put(b"k", b"v")
    with pytest.raises(StoreError, match=r"the disk is full .* make room"):
        store.commit(1, {})
    assert store.applied == 0
    real.close()


def test_a_store_of_another_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "FORMAT", 1)
        Store(tmp_path / "s", CLUSTER).close()
    with pytest.raises(StoreError, match="has format 1, this program writes format 2; use the pro"):
        Store(tmp_path / "s", CLUSTER)


def test_databases_that_are_exchanged_stay_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", CLUSTER)
    first, second = store.keyspaces[:2]
    first.put(b"k", b"first", 5)
    second.put(b"k", b"second")
    second.put(b"other", b"v")
    store.commit(1, {})
    store.swap(0, 1)
    first.put(b"new", b"v")
    store.commit(2, {})
    store.close()
    store = Store(tmp_path / "s", CLUSTER)
    first, second = store.keyspaces[:2]
    assert (first.get(b"k"), second.get(b"k")) == (b"second", b"first")
    assert (first.scan(None, 9), second.scan(None, 9)) == ([b"k", b"new", b"other"], [b"k"])
    assert [(s.count(), s.expiring()) for s in (first, second)] == [(3, 0), (1, 1)]
    second.clear()
    store.swap(1, 0)
    assert [space.count() for space in store.keyspaces[:2]] == [0, 3]
    store.commit(3, {})
    store.close()
