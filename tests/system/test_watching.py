"""How a cluster is watched: the HTTP port of each node, `kvstore status` and `kvstore top`."""

from __future__ import annotations

import http.client
import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.processes import wait_until
from bench.store_cluster import StoreCluster
from bench.writers import connect
from p4xos.creation import CLUSTER_NAME
from p4xos.logs import FORMAT_VARIABLE

LIMIT_S = 60


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreCluster]:
    """A cluster whose nodes write their logs as JSON."""
    with pytest.MonkeyPatch.context() as patch, StoreCluster(
        tmp_path_factory.mktemp("watched")
    ) as cluster:
        patch.setenv(FORMAT_VARIABLE, "json")
        cluster.start()
        cluster.wait_until_writable()
        yield cluster


def page(cluster: StoreCluster, name: str, path: str) -> tuple[int, str]:
    """Status and body; status 0 when nothing answers."""
    address = cluster.cluster.node(name).metrics
    assert address is not None
    connection = http.client.HTTPConnection(*address, timeout=LIMIT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def metrics(cluster: StoreCluster, name: str) -> dict[tuple[str, ...], float]:
    """Samples by name and values of their labels."""
    status, text = page(cluster, name, "/metrics")
    assert status == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def run(cluster: StoreCluster, *verb: str) -> str:
    """What a verb of the command line prints; it must not complain."""
    file = str(cluster.cluster.directory / CLUSTER_NAME)
    done = subprocess.run(
        [sys.executable, "-m", "kvstore", *verb, "--cluster", file],
        capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def told_when_ready(cluster: StoreCluster, *verb: str) -> dict[str, Any]:
    """What a verb tells as JSON once no node has a problem: a busy machine may make one late."""
    found: dict[str, Any] = {}

    def healthy() -> bool:
        found.update(json.loads(run(cluster, *verb, "--json")))
        nodes = found.get("nodes", found)
        return not any(nodes[name]["problems"] for name in cluster.names)

    wait_until(healthy, LIMIT_S, "health of all nodes at a time")
    return found


def test_every_node_is_alive_and_ready(watched: StoreCluster) -> None:
    for name in watched.names:
        assert page(watched, name, "/healthz") == (200, "alive\n")
        wait_until(lambda name=name: page(watched, name, "/readyz")[0] == 200, LIMIT_S, "ready")  # type: ignore[misc]  # a default is no argument
        assert page(watched, name, "/")[0] == 404


def test_metrics_tell_what_clients_did(watched: StoreCluster) -> None:
    before = metrics(watched, "n1")
    with connect(watched.endpoint("n1")) as client:
        for number in range(20):
            client.set(f"watched{number}", "x")
            client.get(f"watched{number}")
        during = metrics(watched, "n1")
    grown = {key: value - before.get(key, 0) for key, value in during.items()}
    assert grown["kvstore_commands_total", "set"] == 20
    assert grown["kvstore_commands_total", "get"] == 20
    assert grown["kvstore_command_seconds_count", "write"] == 20
    assert grown["p4xos_acceptor_votes_total", "0"] >= 20
    assert grown["p4xos_storage_sync_seconds_count", "0"] >= 1
    assert grown["p4xos_learner_delivered_instance",] >= 20
    assert during["kvstore_clients",] >= 1
    assert during["kvstore_keys", "0"] >= 20
    assert during["p4xos_ready",] == 1
    serving = [metrics(watched, name)["p4xos_coordinator_phase", "serving"]
               for name in watched.names]  # fmt: skip
    assert sum(serving) == 1


def test_garbage_on_the_port_harms_nothing(watched: StoreCluster) -> None:
    chance = random.Random(3)
    address = watched.cluster.node("n1").metrics
    assert address is not None
    held = []
    for number in range(100):
        stream = socket.create_connection(address, LIMIT_S)
        with suppress(OSError):
            stream.sendall(chance.randbytes(chance.choice((1, 100, 10_000, 100_000))))
        if number % 10:
            stream.close()
        else:
            held.append(stream)  # and some stay, silent
    with connect(watched.endpoint("n1")) as client:
        assert client.set("after", "garbage")
    assert page(watched, "n1", "/healthz")[0] == 200
    for stream in held:
        stream.close()
    assert watched.children["n1"].running


def test_status_as_text_and_as_json(watched: StoreCluster) -> None:
    text = run(watched, "status")
    assert "leader: coordinator" in text
    assert text.count(" clients, ") == 3
    told = told_when_ready(watched, "status")
    for name in watched.names:
        assert told[name]["store"]["commands"]["ping"] >= 1


def test_top_once_as_text_and_as_json(watched: StoreCluster) -> None:
    top = ("top", "--once", "--interval", "0.1")
    told = told_when_ready(watched, *top)
    assert set(told["nodes"]) == set(watched.names)
    assert told["interval_s"] > 0
    for line in told["nodes"].values():
        assert line["state"] == "ready"
        assert line["ops_per_s"] >= 0
        assert {"round", "delivered", "lag", "low", "drops", "writes_p99_ms"} <= line.keys()
    text = run(watched, *top)
    assert "ops/s" in text
    assert "dropped: " in text


def test_logs_are_json(watched: StoreCluster) -> None:
    text = (watched.cluster.directory / "n1.txt").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert any("serves RESP" in line["message"] for line in lines)
    assert all(line["fields"]["node"] == "n1" for line in lines)
    assert {frozenset(line) for line in lines} == {
        frozenset(("time", "level", "logger", "message", "fields"))
    }


def test_a_node_without_a_majority_is_alive_but_not_ready(tmp_path: Path) -> None:
    with StoreCluster(tmp_path / "cluster") as cluster:
        cluster.start()
        cluster.wait_until_writable()
        survivor = next(name for name in cluster.names if name != cluster.coordinator())
        cluster.kill(*(name for name in cluster.names if name != survivor))
        wait_until(
            lambda: page(cluster, survivor, "/readyz")[0] == 503, LIMIT_S, "not ready any more"
        )
        assert "no coordinator is known" in page(cluster, survivor, "/readyz")[1]
        assert page(cluster, survivor, "/healthz") == (200, "alive\n")
        assert metrics(cluster, survivor)["p4xos_ready",] == 0
        text = run(cluster, "status")
        assert "NOT READY" in text
        assert text.count("unreachable") == 2
        told = json.loads(run(cluster, "top", "--once", "--json", "--interval", "0.1"))
        states = [line["state"] for line in told["nodes"].values()]
        assert sorted(states) == ["not ready", "unreachable", "unreachable"]
        cluster.start(*(name for name in cluster.names if name != survivor))
        wait_until(lambda: page(cluster, survivor, "/readyz")[0] == 200, LIMIT_S, "ready again")
