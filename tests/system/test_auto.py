"""A cluster that leaves open what runs it: each role takes the best that it can have here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.processes import wait_until
from kvstore.status import described
from p4xos import inquiries
from p4xos.chunnels.policies import POLICY_VARIABLE
from p4xos.creation import CLUSTER_NAME
from tests.switch.kernel import in_the_kernel
from tests.system.test_data_plane import LIMIT_S, SwitchedCluster

pytestmark = pytest.mark.skipif(
    shutil.which("redis-cli") is None, reason="there is no redis-cli (deploy/setup test)"
)
ROLES = ("a1", "a2", "a3", "c1", "c2", "c3")
NO_KERNEL = """
def no_kernel(candidates):
    return [each for each in candidates if each.name != "xdp"]
"""


@contextmanager
def running(folder: Path, **variables: str) -> Iterator[SwitchedCluster]:
    """A cluster of `auto`, of processes that have these variables besides."""
    started = SwitchedCluster(folder, "auto", {**os.environ, **variables})
    try:
        yield started
    finally:
        started.stop()


def chosen(cluster: SwitchedCluster) -> set[tuple[str, str]]:
    """What runs the roles by their status, and why, once all have answered; and Redis works."""
    assert cluster.cli("n1", "set", "key", "value") == "OK"
    assert cluster.cli("n2", "get", "key") == "value"
    found: set[tuple[str, str]] = set()

    def told() -> bool:
        status = inquiries.status(cluster.cluster)
        found.clear()
        for node in ROLES:
            each = status[node]
            assert isinstance(each, dict)
            if "log" not in each:
                return False
            (layer,) = each["log"]["layers"]
            found.add((layer["implementation"], layer["reason"]))
        return True

    wait_until(told, LIMIT_S, "that all roles answer")
    return found


@in_the_kernel
def test_in_the_kernel_where_that_can_be(tmp_path: Path) -> None:
    with running(tmp_path) as cluster:
        assert chosen(cluster) == {("xdp", "priority 2; also possible: numpy (1)")}
        lines = described(inquiries.status(cluster.cluster))
        assert lines["a1"].startswith("acceptor 0 on xdp")
        assert lines["n1"].split("; NOT READY")[0].endswith("log on auto")
        assert "ordered_mcast  xdp" in cluster.log("a1")


def test_in_software_where_it_cannot_be(tmp_path: Path) -> None:
    """Each role has one line that says why, in its log and in `kvstore status`."""
    nothing = tmp_path / "nothing-installed"
    nothing.mkdir()
    with running(tmp_path, PATH=str(nothing)) as cluster:
        ((name, reason),) = chosen(cluster)
        assert name == "numpy"
        assert "; not xdp: XDP cannot run here: " in reason
        command = [
            sys.executable, "-m", "kvstore", "status", "--json",
            "--cluster", str(cluster.directory / CLUSTER_NAME),
        ]  # fmt: skip
        status = json.loads(
            subprocess.run(
                command, env=cluster.environment, capture_output=True, check=True, timeout=LIMIT_S
            ).stdout
        )
        for node in ROLES:
            line = described(status)[node]
            assert line.count("not on xdp: XDP cannot run here: ") == 1
            warned = [row for row in cluster.log(node).splitlines() if "cannot be on xdp" in row]
            assert len(warned) == 1
            assert "serve in software" in warned[0]


@in_the_kernel
def test_in_software_where_the_policy_says_so(tmp_path: Path) -> None:
    """What could be had, and is forbidden, is not tried."""
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "site_rules.py").write_text(NO_KERNEL)
    with running(tmp_path, **{POLICY_VARIABLE: "site_rules:no_kernel"}) as cluster:
        reason = "the only one that fits; not xdp (server): the policy forbids it"
        assert chosen(cluster) == {("numpy", reason)}
        assert "cannot be on xdp" not in cluster.log("a1")
