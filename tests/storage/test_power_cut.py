"""A power cut after any call of an acceptor and a coordinator on a real disk.

Their calls are recorded; then, after each, the directory is built as the cut may leave it, and both
start from it: every promise, vote and round that had left is there, nothing else is, and no start
fails. POWER_CUTS=all tries many more workloads.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from p4xos.storage import Forgetful, RoundFile, create_mark
from p4xos.testing.disk import SimulatedDisk
from tests.storage.helpers import OWNER, Node, State, open_log, traffic
from tests.storage.traces import Call, RecordingDisk, Survivors, losses

STEPS = 30
SEEDS = 40 if os.environ.get("POWER_CUTS") == "all" else 1
PLACE = Path("/left")
ACCEPTOR, ROUND = Path("node") / "acceptor-1", Path("node") / "coordinator-1" / "round"
ROUND_OWNER = {"cluster": 1, "group": 2, "coordinator": 3}


class Moment(NamedTuple):
    """What had been said, and what was being written, when so many calls had been made."""

    calls: int
    marked: bool = False
    """The acceptor's mark was made: from now on it never counts as one that forgot."""
    states: tuple[State, ...] = ()
    """Of the acceptor: what an answer has left of, and what may be found besides."""
    rounds: tuple[int, ...] = (0,)


def work(root: Path, seed: int) -> tuple[list[Call], list[Moment]]:
    """Records a life of both: created, started, ended, started again."""
    trace: list[Call] = []
    disk = RecordingDisk(trace)
    moments = [Moment(0)]

    def note(**changes: object) -> None:
        moments.append(moments[-1]._replace(calls=len(trace), **changes))  # type: ignore[arg-type]

    create_mark(root / ACCEPTOR, **OWNER, disk=disk)
    note(marked=True)
    random = Random(seed)
    rows = traffic(random, STEPS)
    for steps in (STEPS // 2, STEPS):
        node = Node(disk, root / ACCEPTOR)
        note(states=(node.state(),))
        file = RoundFile(root / ROUND, **ROUND_OWNER, disk=disk)
        round = file.read()
        for step, batch in zip(range(steps), rows, strict=False):
            effects = node.acceptor.step(batch.copy(), 0.0)
            note(states=(moments[-1].states[-1], node.state()))
            node.log.append(effects.persist)
            note(states=(node.state(),))
            if step % 5 == 0:
                note(rounds=(round, round + 256))
                round += 256
                file.write(round)
                note(rounds=(round,))
        node.log.close()
    return trace, moments


def disk_with(tree: dict[Path, bytes | None]) -> SimulatedDisk:
    """What is left, as a disk."""
    disk = SimulatedDisk()
    for path, content in tree.items():
        if content is None:
            disk.make_directory(PLACE / path)
        else:
            disk.put(PLACE / path, content)
    return disk


def check(disk: SimulatedDisk, moment: Moment) -> None:
    """Both start from what is left, twice: what the first start found, the second finds too."""
    if not moment.states and isinstance(open_log(disk, PLACE / ACCEPTOR), Forgetful):
        assert not moment.marked, "the mark is gone, and the log is not there yet"
        return
    disk.kill()
    node = Node(disk, PLACE / ACCEPTOR)
    if moment.states:
        assert node.state() in moment.states
    found = node.state()
    file = RoundFile(PLACE / ROUND, **ROUND_OWNER, disk=disk)
    assert file.read() in moment.rounds
    disk.crash(lambda: False)
    assert Node(disk, PLACE / ACCEPTOR).state() == found


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_power_cut_after_any_call(tmp_path: Path, seed: int) -> None:
    """docs/PROTOCOL.md, sections 3, 4 and 10: durability."""
    trace, moments = work(tmp_path, seed)
    kinds = Counter(call.kind for call in trace)
    assert kinds["U"] > 2, "the workload must roll and delete"
    survivors, random = Survivors(tmp_path), Random(seed)
    tried, seen = 0, set()
    for index, call in enumerate(trace):
        survivors.follow(call)
        # Between two moments both what the earlier and what the later allows may be there.
        moment = [moment for moment in moments if moment.calls <= index + 1][-1]
        for loss in losses(random):
            tried += 1
            left = survivors.left(loss)
            if (key := (moment, frozenset(left.items()))) in seen:
                continue  # nothing was pending, or chance kept the same
            seen.add(key)
            try:
                check(disk_with(left), moment)
            except Exception as error:
                error.add_note(f"{loss.name}, after call {index} of {len(trace)}, {call.kind}")
                raise
    print(f"{tried} power cuts, {len(seen)} different outcomes, {len(trace)} calls")


def test_the_order_of_syncs_is_what_saves_it(tmp_path: Path) -> None:
    """The check can fail: without one kind of sync something is lost."""
    trace, moments = work(tmp_path, 0)
    for forgotten in ("files", "directories"):
        survivors, lost = Survivors(tmp_path), 0
        for index, call in enumerate(trace[: len(trace) // 2]):
            if call.kind == "S" and (call.handle == -2) == (forgotten == "directories"):
                continue
            survivors.follow(call)
            moment = [moment for moment in moments if moment.calls <= index + 1][-1]
            try:
                check(disk_with(survivors.left(losses(Random(1))[0])), moment)
            except Exception:
                lost += 1
        assert lost > len(trace) // 8, forgotten
