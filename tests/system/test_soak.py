"""A soak of seconds: order and outcome of a long one. Trends need more time, and are not judged."""

from __future__ import annotations

import json
from pathlib import Path

from bench.soak.soaking import Plan, log_errors, soak
from bench.store_cluster import StoreCluster

PLAN = Plan(load_s=3.0, sample_s=0.5, restart_s=1.0, backup_s=1.0, events_min=1)


def test_nothing_is_left_of_the_load(tmp_path: Path) -> None:
    """Descriptors as before it, nobody lags, states alike, counters right, nothing in the logs."""
    said: list[str] = []
    series = tmp_path / "series.jsonl"
    report = soak(tmp_path, PLAN, series, said.append)
    assert report.problems == []
    assert any(line.startswith("restarted n2 after kill -9") for line in said)
    assert any(line.startswith("backup of ") for line in said)
    commands = report.facts["commands"]
    assert isinstance(commands, dict)
    assert {"GET", "SET", "INCR"} <= set(commands)
    samples = [json.loads(line) for line in series.read_text().splitlines()]
    assert {sample["node"] for sample in samples} == {"n1", "n2", "n3"}
    assert not (tmp_path / "backup.tar").exists()


def test_an_error_in_a_log_is_found(store: StoreCluster) -> None:
    child = store.children[store.names[0]]
    assert log_errors(store) == []
    with child.log.open("a") as file:
        file.write("2026-01-01 00:00:00,000 ERROR   kvstore.replies: internal error\n")
    (found,) = log_errors(store)
    assert "internal error" in found
