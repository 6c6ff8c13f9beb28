"""The scenario: what it takes of each peer, with stand-ins that answer at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.peers import scenario
from bench.peers.libpaxos import VARIABLE
from bench.peers.peer import Figures, Kind
from bench.peers.scenario import CLIENTS, WRITES, compare
from bench.results import Metric, Point, Sample


class StandIn:
    """A peer that remembers what it was asked, and tells a rate of a thousand a client."""

    def __init__(self, name: str, reads: bool = True, refuses: int | None = None) -> None:
        self.name = name
        self.reads = reads
        self.why: str | None = None
        self.asked: list[tuple[int, Kind, float]] = []
        self.running = False
        self.starts = 0
        self._refuses = refuses

    def missing(self) -> str | None:
        return self.why

    def start(self, scratch: Path) -> None:
        assert scratch.is_dir()
        (scratch / "data").write_text("x")
        self.running = True
        self.starts += 1

    def load(self, clients: int, kind: Kind, seconds: float) -> Figures:
        assert self.running
        if clients == self._refuses:
            raise BenchError("full")
        self.asked.append((clients, kind, seconds))
        return Figures(1000.0 * clients, 0.5, None if clients == 1 else 2.5)

    def stop(self) -> None:
        self.running = False


def test_writes_at_each_number_of_clients_and_reads(tmp_path: Path) -> None:
    peer = StandIn("p")
    taken = list(compare([peer], tmp_path, 1, 0.5))
    assert peer.asked == [
        *((n, "write", s) for n in CLIENTS for s in (0.5, 2.0)),
        (64, "read", 0.5),
        (64, "read", 2.0),
    ]
    assert taken[:3] == [
        Sample(Metric("peers", "p: writes -c 1", "writes/s"), 1000.0),
        Sample(Metric("peers", "p: writes -c 1, p50", "ms"), 0.5),
        Point(WRITES, "p", 1, 1000.0),
    ]
    assert Sample(Metric("peers", "p: writes -c 256, p99", "ms"), 2.5) in taken
    assert Sample(Metric("peers", "p: reads -c 64", "reads/s"), 64_000.0) in taken
    points = [one for one in taken if isinstance(one, Point)]
    assert [(one.x, one.y) for one in points] == [(n, 1000.0 * n) for n in CLIENTS]
    assert not list(tmp_path.iterdir()), "the data of a peer are removed before the next runs"


def test_reads_that_are_not_linearizable_are_not_taken(tmp_path: Path) -> None:
    peer = StandIn("p", reads=False)
    taken = list(compare([peer], tmp_path, 1, 1))
    assert {kind for _, kind, _ in peer.asked} == {"write"}
    assert not [one for one in taken if isinstance(one, Sample) and "reads" in one.metric.name]


def test_each_run_starts_all_peers_in_turn(tmp_path: Path) -> None:
    peers = [StandIn("a"), StandIn("b")]
    taken = list(compare(peers, tmp_path, 2, 1))
    assert [peer.starts for peer in peers] == [2, 2]
    assert [one.series for one in taken if isinstance(one, Point)] == [
        name for name in ("a", "b", "a", "b") for _ in CLIENTS
    ]


def test_what_is_not_installed_is_skipped_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent, present = StandIn("etcd"), StandIn("p")
    absent.why = "no etcd; apt-get install etcd-server"
    taken = list(compare([absent, present], tmp_path, 2, 1))
    assert capsys.readouterr().err == (
        "peers: etcd: skipped: no etcd; apt-get install etcd-server\n"
    )
    assert absent.starts == 0
    assert {one.series for one in taken if isinstance(one, Point)} == {"p"}


def test_a_peer_that_fails_is_told_and_keeps_the_others(tmp_path: Path) -> None:
    failing, other = StandIn("a", refuses=64), StandIn("b")
    taken: list[Sample | Point] = []
    with pytest.raises(BenchError, match=r"^a: full$"):
        taken.extend(compare([failing, other], tmp_path, 2, 1))
    assert (failing.starts, failing.running) == (1, False)
    assert other.starts == 2
    points = [one for one in taken if isinstance(one, Point)]
    assert [one.x for one in points if one.series == "a"] == [1, 16]
    assert len([one for one in points if one.series == "b"]) == 2 * len(CLIENTS)
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_given_up_stops_its_peer(tmp_path: Path) -> None:
    peer = StandIn("p")
    taking = compare([peer], tmp_path, 1, 1)
    next(taking)
    assert peer.running
    taking.close()  # type: ignore[attr-defined]  # it is a generator
    assert not peer.running


def test_peers_have_names_of_their_own_and_say_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    found = scenario.peers()
    assert len({peer.name for peer in found}) == len(found)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("bench.peers.pysyncobj.find_spec", lambda name: None)
    others = [peer for peer in found if not peer.name.startswith("ours")]
    for peer in others:
        why = str(peer.missing())
        assert any(how in why for how in ("apt-get install", "pip install", "build libpaxos3"))
    with pytest.raises(BenchError, match="redis-benchmark is missing"):
        scenario.needs()
