"""Stacks as values: composition, alternatives, constraints, and what a type checker says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from p4xos.chunnels import (
    Chunnel,
    Scope,
    datagrams,
    endpoint,
    local_or_remote,
    ordered_mcast,
    reliable,
    select,
    serialize,
    shard,
)
from p4xos.chunnels.stack import ALTERNATIVES_MAX, LAYERS_MAX, Layer
from tests.chunnels.messages import Op

ROOT = Path(__file__).parents[2]
SNIPPETS = Path(__file__).with_name("typed.py.txt")


def types(stack: tuple[Layer, ...]) -> list[str]:
    return [each.type for each in stack]


def test_layers_are_joined_from_the_application_to_the_wire() -> None:
    stack = serialize(Op) | reliable() | local_or_remote()
    assert types(*stack.alternatives()) == ["serialize", "reliable", "transport"]
    assert repr(stack) == "serialize | reliable | transport"


def test_joining_changes_neither_part() -> None:
    upper, lower = serialize(Op), reliable()
    joined = upper | lower
    assert len(upper.nodes) == len(lower.nodes) == 1
    assert len(joined.nodes) == 2


def test_select_is_read_in_the_order_of_its_options() -> None:
    stack = serialize(Op) | select(reliable() | reliable(), reliable()) | datagrams()
    assert [len(way) for way in stack.alternatives()] == [4, 3]


def test_too_many_ways_are_refused() -> None:
    stack = select(reliable(), reliable())
    for _ in range(4):
        stack = stack | select(reliable(), reliable())
    assert len(stack.alternatives()) == ALTERNATIVES_MAX
    with pytest.raises(ValueError, match="offer fewer"):
        (stack | select(reliable(), reliable())).alternatives()


def test_too_many_layers_are_refused() -> None:
    stack = reliable()
    for _ in range(LAYERS_MAX):
        stack = stack | reliable()
    with pytest.raises(ValueError, match="layers"):
        endpoint("a", stack)


def test_scope_holds_for_each_layer_and_only_narrows() -> None:
    stack = (reliable().at(Scope.APPLICATION) | select(datagrams(), datagrams())).at(Scope.HOST)
    for way in stack.alternatives():
        assert [each.scope for each in way] == [Scope.APPLICATION, Scope.HOST]


def test_requirements_add_up() -> None:
    (layer,) = reliable().require(order="fifo").require(loss="none").alternatives()[0]
    assert layer.requires == {"order": "fifo", "loss": "none"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"order": "some"}, "from weak to strong there is none, fifo, total"),
        ({"durability": 3}, "majority-disk"),
        ({"value_bytes": "long"}, "no whole number"),
        ({"codec": True}, "a text or a whole number"),
    ],
)
def test_a_level_that_is_none_is_refused_with_those_that_are(
    asked: dict[str, str | int], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        reliable().require(**asked)


def test_a_requirement_is_about_one_layer() -> None:
    with pytest.raises(ValueError, match="before it is joined"):
        (serialize(Op) | reliable()).require(order="fifo")


def test_an_endpoint_refuses_what_nothing_can_run() -> None:
    # A type checker would say so before.
    with_end: Chunnel[Any, Any] = reliable() | datagrams()
    without: Chunnel[Any, Any] = reliable()
    group: Chunnel[Any, Any] = ordered_mcast()
    with pytest.raises(ValueError, match="lowest layer"):
        endpoint("a", select(with_end, without))
    with pytest.raises(ValueError, match="a group and a connection"):
        endpoint("a", select(group, with_end))
    with pytest.raises(ValueError, match="limit is 64"):
        shard(Op, [("127.0.0.1", 1)] * 65, by="key")


def test_mypy_refuses_layers_in_the_wrong_order(tmp_path: Path) -> None:
    """One run for all: each line that is marked is refused, and no other."""
    source = tmp_path / "typed.py"
    source.write_text(SNIPPETS.read_text())
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(source)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    refused = {
        int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line
    }
    marked = {
        number
        for number, line in enumerate(source.read_text().splitlines(), 1)
        if line.endswith("# wrong")
    }
    assert refused == marked, done.stdout
