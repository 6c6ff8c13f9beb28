"""The store's log is what its node negotiated, with nothing between."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.node import LOG
from p4xos.chunnels import NoAgreement, endpoint, ordered_mcast
from tests.service.clusters import running


async def test_the_log_is_the_nodes_own_once_it_was_agreed_on(tmp_path: Path) -> None:
    async with running(tmp_path, nodes=1, retained_bytes=1 << 20) as nodes:
        node = nodes.running["n1"]
        group = endpoint("kvstore on n1", LOG).attach(node)
        assert group.log is node.application
        assert str(group.explain()).splitlines() == [
            "kvstore on n1 to the group of node n1",
            "  ordered_mcast  numpy  all members  the only one that fits",
        ]


async def test_a_group_that_keeps_less_than_the_store_promises_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, nodes=1, retained_bytes=1 << 20) as nodes:
        stack = ordered_mcast(durability="majority-disk", value_bytes=1 << 20)
        with pytest.raises(NoAgreement, match="member n1 refuses: layer ordered_mcast"):
            endpoint("kvstore on n1", stack).attach(nodes.running["n1"])
