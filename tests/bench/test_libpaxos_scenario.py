"""The scenario libpaxos, without libpaxos' programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import libpaxos
from bench.peers.libpaxos import VARIABLE
from bench.results import Sample


def test_without_its_programs_our_own_client_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    found = list(libpaxos.run(tmp_path, 1, 0.01))
    assert [sample.metric for sample in found if isinstance(sample, Sample)] == [libpaxos.OWN]
    assert VARIABLE in capfd.readouterr().err
