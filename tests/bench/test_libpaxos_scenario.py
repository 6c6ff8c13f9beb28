"""The scenario libpaxos, without libpaxos' programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import libpaxos
from bench.errors import BenchError
from bench.peers.libpaxos import VARIABLE
from bench.results import Sample


def test_without_its_programs_our_own_client_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))  # nothing compiles the library
    found = list(libpaxos.run(tmp_path, 1, 0.01))
    assert [sample.metric for sample in found if isinstance(sample, Sample)] == [libpaxos.OWN]
    said = capfd.readouterr().err
    assert VARIABLE in said
    assert "the C library is skipped" in said


def test_the_library_is_measured_at_addresses_that_name_replicas(tmp_path: Path) -> None:
    conf = tmp_path / "paxos.conf"
    conf.write_text("acceptor 0 127.0.0.1 8800\nproposer 0 127.0.0.1 8810\nverbosity error\n")
    program = tmp_path / "measure"
    program.write_text(
        "#!/bin/sh\n"
        'echo "$@" >&2; grep -q "^replica 0 127.0.0.1 8800$" "$1" || exit 3\n'
        """echo '{"values": 7, "values_s": 70, "mean_us": 5}'\n"""
    )
    program.chmod(0o755)
    assert libpaxos._measure(program, conf, 10, 1.0) == libpaxos.Measured(70, 5)
    program.write_text("#!/bin/sh\necho no cluster >&2; exit 1\n")
    with pytest.raises(BenchError, match="ended with 1: no cluster"):
        libpaxos._measure(program, conf, 10, 1.0)
