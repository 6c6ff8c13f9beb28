"""Metrics of a node with its store: names, values, and the dashboard that is drawn from them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from kvstore import commands
from kvstore.cluster import StoreApplication
from kvstore.config import endpoint
from kvstore.listening import bound_socket
from kvstore.machine import KvStateMachine
from kvstore.metrics import Histogram, server_status, store_families
from kvstore.node import LOG, attached
from kvstore.server import KvServer
from kvstore.store import Store
from p4xos import watching
from p4xos.application import OneByOne
from p4xos.chunnels import GroupEndpoint, Runtime
from p4xos.creation import Wanted, find_or_create
from p4xos.histogram import BOUNDS_S, quantile, since
from p4xos.metrics import metrics_page
from p4xos.node import Node
from tests.kvstore.serving import Running, pack

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "p4xos.json"
MANUAL = Path(__file__).parents[2] / "docs" / "operating.md"


async def exposition(directory: Path) -> str:
    """What /metrics of a node with all roles and a store says, though it serves nobody yet."""
    directory.mkdir()
    wanted = Wanted(nodes=1, base_port=0, storage="disk")
    cluster = find_or_create(directory, wanted, StoreApplication().complete)
    with Store(cluster.data_directory("n1") / "store", cluster.id) as store:
        machine = KvStateMachine(store)
        with (
            Node(cluster, "n1").open(OneByOne(machine)) as node,
            bound_socket(endpoint(cluster, "n1")) as listener,
        ):
            group = GroupEndpoint("kvstore on n1", LOG, Runtime(builtin=False))
            server = KvServer(attached(group, node), machine, listener)
            server.meter.commands[commands.TABLE[b"get"]] += 1
            node.told["store"] = lambda: server_status(server)
            node.collectors.append(lambda: store_families(server))
            json.dumps(node.status())  # plain data: it travels, and is printed
            page = watching.pages(node)["/metrics"]()
    assert page.status == 200
    return page.body.decode()


def sample_names(families: Iterable[Metric]) -> set[str]:
    found = set()
    for family in families:
        found |= {sample.name for sample in family.samples}
        if family.type == "counter":
            found.add(f"{family.name}_total")
        else:
            found.add(family.name)
            if family.type == "histogram":
                found |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
    return found


def values(families: Iterable[Metric]) -> dict[tuple[str, tuple[str, ...]], float]:
    """Samples by name and values of the labels."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


async def test_names_follow_the_conventions(tmp_path: Path) -> None:
    text = await exposition(tmp_path / "cluster")
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    for family in families:
        assert re.fullmatch(r"(p4xos|kvstore|process)_[a-z][a-z0-9_]*[a-z]", family.name)
        assert family.documentation.endswith(".") or ":" in family.documentation, family.name
        if family.type == "gauge" and not family.name.startswith("process_"):
            assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
    assert {
        "p4xos_acceptor_votes_total", "p4xos_coordinator_round", "p4xos_coordinator_phase",
        "p4xos_learner_delivered_instance", "p4xos_learner_lag_instances",
        "p4xos_learner_low_instance", "p4xos_learner_sessions", "p4xos_drops_total",
        "p4xos_network_sent_total", "p4xos_storage_sync_seconds_bucket", "p4xos_ready",
        "p4xos_catch_up_copy_bytes_total", "kvstore_clients", "kvstore_keys",
        "kvstore_store_bytes", "kvstore_commands_total", "kvstore_command_seconds_bucket",
        "process_cpu_seconds_total", "p4xos_chunnel_messages_total", "p4xos_chunnel_errors_total",
    } <= sample_names(families)  # fmt: skip


def used_names(text: str) -> set[str]:
    return set(re.findall(r"\b(?:p4xos|kvstore|process)_[a-z0-9_]+\b", text))


async def test_the_dashboard_asks_for_metrics_that_exist(tmp_path: Path) -> None:
    exist = sample_names(text_string_to_metric_families(await exposition(tmp_path / "cluster")))
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    expressions = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    ]
    expressions += [
        variable["definition"]
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]
    assert len(expressions) > 30
    for expression in expressions:
        assert used_names(expression), expression
        assert used_names(expression) <= exist, expression


async def test_the_manual_names_metrics_that_exist(tmp_path: Path) -> None:
    exist = sample_names(text_string_to_metric_families(await exposition(tmp_path / "cluster")))
    written = used_names(MANUAL.read_text(encoding="utf-8"))
    assert written
    assert written <= exist


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


async def test_commands_are_counted_by_name_and_timed_by_run(running: Running) -> None:
    talker = await running.connect()
    await talker.send(b"".join(pack(b"SET", b"key%d" % number, b"1") for number in range(20)))
    await talker.expect(b"+OK\r\n" * 20)
    await talker.send(pack(b"get", b"key1"))
    await talker.expect(b"$1\r\n1\r\n")
    await talker.send(pack(b"PING"))
    await talker.expect(b"+PONG\r\n")
    found = values(store_families(running.server))
    assert found["kvstore_commands_total", ("set",)] == 20
    assert found["kvstore_commands_total", ("get",)] == 1
    assert found["kvstore_commands_total", ("ping",)] == 1
    assert found["kvstore_command_seconds_count", ("write",)] == 1
    assert found["kvstore_command_seconds_count", ("read",)] == 1
    assert found["kvstore_command_seconds_bucket", ("read", "+Inf")] == 1
    assert found["kvstore_keys", ("0",)] == 20
    assert found["kvstore_clients", ()] == 1
    assert found["kvstore_store_bytes", ("memory",)] > 0


async def test_a_pipeline_that_is_cut_counts_each_command_once(running: Running) -> None:
    talker = await running.connect()
    count = 300
    await talker.send(b"".join(pack(b"SET", b"key", b"v" * 1000) for _ in range(count)))
    await talker.expect(b"+OK\r\n" * count)
    found = values(store_families(running.server))
    assert found["kvstore_commands_total", ("set",)] == count
    assert found["kvstore_command_seconds_count", ("write",)] > 1


async def test_a_page_of_a_broken_collector_is_an_error_and_no_more(tmp_path: Path) -> None:
    def broken() -> Iterable[Metric]:
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError):
        metrics_page([broken])()  # the server answers 500: tests/service/test_http.py


def test_histogram_counts_into_doubling_buckets() -> None:
    histogram = Histogram()
    for seconds in (0.0, BOUNDS_S[0], BOUNDS_S[0] * 1.01, BOUNDS_S[1], 1e9):
        histogram.observe(seconds)
    assert histogram.counts[:3] == [2, 2, 0]
    assert histogram.counts[-1] == 1
    histogram.observe(1.5)
    assert histogram.counts[BOUNDS_S.index(2.0)] == 1
    assert histogram.count == 6
    assert histogram.sum == pytest.approx(1e9 + 1.5, abs=1)


def test_quantiles() -> None:
    histogram = Histogram()
    assert quantile(histogram.counts, 0.5) is None
    for _ in range(99):
        histogram.observe(0.75)
    histogram.observe(1e9)
    median = quantile(histogram.counts, 0.5)
    assert median is not None
    assert 0.5 < median <= 1.0
    assert quantile(histogram.counts, 0.999) == BOUNDS_S[-1]


def test_what_was_counted_between_two_looks() -> None:
    assert since([3, 2, 1], [1, 2, 1]) == [2, 0, 0]
    assert since([3, 2, 1], None) == [3, 2, 1]
    assert since([1, 0, 0], [3, 2, 1]) == [1, 0, 0]  # it was started anew


def test_nothing_is_scraped_while_nobody_asks() -> None:
    asked: list[int] = []

    def collect() -> Iterable[Metric]:
        asked.append(1)
        return ()

    page = metrics_page([collect])
    assert not asked
    page()
    assert len(asked) == 1


async def test_a_node_without_the_address_serves_no_metrics(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    directory.mkdir()
    wanted = Wanted(nodes=1, base_port=0, storage="disk")
    cluster = find_or_create(directory, wanted, StoreApplication().complete)
    text = cluster.to_toml()
    without = "\n".join(line for line in text.splitlines() if not line.startswith("metrics = "))
    assert without.count("\n") == text.count("\n") - 2
    parsed = type(cluster).parse(without, "cluster.toml", directory)
    assert parsed.nodes[0].metrics is None
    assert cluster.nodes[0].metrics is not None
    with (
        Store(directory / "store", cluster.id) as store,
        Node(parsed, "n1").open(OneByOne(KvStateMachine(store))) as node,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            with pytest.raises(OSError, match="connect"):
                await trio.open_tcp_stream(*cluster.nodes[0].metrics)
            nursery.cancel_scope.cancel()
