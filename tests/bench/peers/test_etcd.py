"""etcd's option to leave fsync out, which not every etcd has, with a stand-in for the program."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.peers.etcd import Etcd


def stand_in(directory: Path, help_text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An etcd that tells how it was called, and ends."""
    program = directory / "etcd"
    program.write_text(f"#!/bin/sh\n[ $1 = --help ] && echo '{help_text}' || echo called: $@\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=":")


def test_an_etcd_without_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, "--force-new-cluster", monkeypatch)
    assert Etcd("etcd", fsync=True).missing() is None
    assert "no --unsafe-no-fsync" in str(Etcd("etcd", fsync=False).missing())


@pytest.mark.parametrize("fsync", [True, False])
def test_the_option_is_given_when_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool
) -> None:
    stand_in(tmp_path, "--unsafe-no-fsync", monkeypatch)
    peer = Etcd("etcd", fsync)
    assert peer.missing() is None
    with pytest.raises(BenchError, match="ended with status 0; its last lines:\ncalled: ") as told:
        peer.start(tmp_path / "run")
    peer.stop()
    assert ("--unsafe-no-fsync" in str(told.value)) == (not fsync)
