"""The scenario of single hops: each is really taken, and one that cannot be is named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from bench import hops
from bench.results import Point, Sample

ANYWHERE = ["memory channel", "Unix sockets", "loopback UDP"]


def test_each_hop_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = list(hops.run(tmp_path, 1, 0.001))
    names = list(dict.fromkeys(p.series for p in taken if isinstance(p, Point)))
    if os.geteuid() == 0 and shutil.which("ip"):
        assert names == [*ANYWHERE, "veth UDP"]
    else:
        assert names == ANYWHERE
        assert "veth UDP is skipped" in capsys.readouterr().err
    figures = {one.metric.name: one.value for one in taken if isinstance(one, Sample)}
    for name in names:
        assert 0 < figures[f"{name}, round trip, p50"] <= figures[f"{name}, round trip, p99"]


def test_without_root_the_veth_pair_is_skipped_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    taken = list(hops.run(tmp_path, 1, 0.001))
    assert {one.series for one in taken if isinstance(one, Point)} == set(ANYWHERE)
    said = "hops: veth UDP is skipped: network namespaces need root: run it as root\n"
    assert capsys.readouterr().err == said
