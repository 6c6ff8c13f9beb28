"""Which learners are marked as new, and that a mark is used once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from p4xos import newcomers
from p4xos.config import Cluster


def test_only_learners_apart_from_acceptors_are_marked_and_once(tmp_path: Path) -> None:
    cluster = Cluster.template(3, base_port=7000, directory=tmp_path)
    apart = replace(cluster, acceptors=(replace(cluster.acceptors[0], node="n2"),))
    newcomers.mark(apart)
    one, two, three = apart.learners
    assert newcomers.take_mark(apart, one)
    assert not newcomers.take_mark(apart, one)
    assert not newcomers.take_mark(apart, two)  # its node's acceptor has a mark
    assert newcomers.take_mark(apart, three)
