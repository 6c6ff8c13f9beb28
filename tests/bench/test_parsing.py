"""What the bench reads from other programs and from the kernel, on fixed inputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench import redis_benchmark
from bench.environment import Environment, file_system, look
from bench.errors import BenchError
from bench.processes import parse_cpu_ticks
from bench.redis_benchmark import Load, Result, parse
from p4xos.tables import Address

CSV = (
    '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms",'
    '"p99_latency_ms","max_latency_ms"\n'
    '"SET","3170.07","19.949","3.000","19.631","35.583","45.215","60.127"\n'
)


def test_redis_benchmark_output() -> None:
    assert parse(CSV) == Result(3170.07, 19.631, 45.215, 60.127)


def test_columns_are_found_by_name() -> None:
    more = '"p50_latency_ms","new","max_latency_ms","p99_latency_ms","rps"\n"1","x","3","2","9"\n'
    assert parse(more) == Result(9.0, 1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Could not connect to Redis at 127.0.0.1:1: Connection refused\n",
        CSV + '"GET","1","1","1","1","1","1","1"\n',
        CSV.replace('"rps"', '"speed"'),
        CSV.replace("3170.07", "fast"),
        CSV.splitlines()[0],
    ],
)
def test_other_output_is_an_error(text: str) -> None:
    with pytest.raises(BenchError, match="redis-benchmark"):
        parse(text)


def test_missing_redis_benchmark_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BenchError, match="sudo apt-get install redis-tools"):
        redis_benchmark.run(Load("set", 1, 1, 1), Address("127.0.0.1", 1))


def test_cpu_ticks_of_a_process_with_an_odd_name() -> None:
    stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 1234 56 7 8 20 0 1 0 100 200 300"
    assert parse_cpu_ticks(stat) == 1234 + 56


def test_cpu_ticks_of_this_process() -> None:
    assert parse_cpu_ticks(Path(f"/proc/{os.getpid()}/stat").read_text()) > 0


MOUNTS = """\
/dev/vda / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/vdb /tmp/a\\040disk xfs rw 0 0
overlay /tmp/a\\040disk btrfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/srv/x", "ext4"), ("/tmp/x", "tmpfs"), ("/tmp/a disk/x", "btrfs"), ("/tmpx", "ext4")],
)
def test_file_system_of_a_path(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTS) == kind


QUIET = Environment("cpu", 2, "6.1", "3.11", "2.0", False, 0.1, 0.02, "/srv", "ext4")


def test_a_quiet_machine_with_a_disk_needs_no_warning() -> None:
    assert QUIET.warnings() == []
    assert "2 cores" in QUIET.header()


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (QUIET._replace(load_average=0.9), "not quiet"),
        (QUIET._replace(busy_share=0.5), "not quiet"),
        (QUIET._replace(file_system="tmpfs"), "--directory"),
    ],
)
def test_what_makes_figures_doubtful_is_said(machine: Environment, words: str) -> None:
    (warning,) = machine.warnings()
    assert words in warning


def test_this_machine_is_described(tmp_path: Path) -> None:
    found = look(tmp_path, look_s=0)
    assert found.cpu
    assert found.cores >= 1
    assert 0 <= found.busy_share <= 1
    assert found.file_system != "unknown"
