"""What p4c says of a program is compared with what a controller names, before bmv2 sees any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from switch.bmv2.layout import Layout, LayoutError, Register
from switch.control.p4_plane import program
from tests.switch.bmv2.fake_switch import described


@pytest.fixture
def told() -> dict[str, Any]:
    return described(program("acceptor", value_bytes=32, window=8, acceptors=3))


def read(folder: Path, told: object) -> Layout:
    path = folder / "acceptor.json"
    path.write_text(json.dumps(told))
    return Layout.read(path)


def test_widths_are_read(tmp_path: Path, told: dict[str, Any]) -> None:
    layout = read(tmp_path, told)
    assert layout.register("low").bits == 64
    assert layout.register("low").readable
    assert not layout.register("slot_value").readable
    assert layout.counter("outcomes")[1] == 32
    table, keys, action, arguments = layout.entry("endpoint", (0x7F000001, 7), "serve",
                                                  (0, 5, 6, 7, 8, 1))  # fmt: skip
    assert (table.rpartition(".")[2], action.rpartition(".")[2]) == ("endpoint", "serve")
    assert keys == [b"\x7f\0\0\x01", b"\0\x07"]
    assert arguments == [b"\0", b"\0\x05", b"\0\0\0\x06", b"\0\x07", b"\0\0\0\x08", b"\0\x01"]


@pytest.mark.parametrize(
    ("table", "keys", "action", "arguments", "message"),
    [
        ("endpoints", (), "serve", (), "has no table endpoints, only "),
        ("endpoint", (1, 2), "server", (), "has no action of .*endpoint server, only "),
        ("endpoint", (1,), "serve", (), "keys of .*endpoint are 2, not 1"),
        ("endpoint", (1, 1 << 16), "serve", (0,) * 6, "65536 has more than 16 bits"),
        ("endpoint", (1, 2), "serve", (0,), "arguments of .*serve are 6, not 1"),
        ("endpoint", (1, 2), "serve", (2, 0, 0, 0, 0, 1), "serve: 2 has more than 1 bits"),
    ],
)
def test_what_the_program_has_not_is_named(
    tmp_path: Path, told: dict[str, Any], table: str, keys: tuple[int, ...], action: str,
    arguments: tuple[int, ...], message: str,
) -> None:  # fmt: skip
    layout = read(tmp_path, told)
    with pytest.raises(LayoutError, match=message) as caught:
        layout.entry(table, keys, action, arguments)
    assert str(layout.path) in str(caught.value)
    assert "remove the file" in str(caught.value)


def test_registers_and_counters_that_are_not_there_are_named(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    layout = read(tmp_path, told | {"counter_arrays": []})
    with pytest.raises(ValueError, match="no register votes"):
        layout.register("votes")
    with pytest.raises(LayoutError, match="has no counter outcomes, only "):
        layout.counter("outcomes")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "is no program of bmv2"),
        ("{}", "is no program of bmv2: KeyError"),
        ('{"header_types": [{"name": "a"}]}', "is no program of bmv2: KeyError"),
    ],
)
def test_what_is_no_program_is_refused(tmp_path: Path, data: str, message: str) -> None:
    path = tmp_path / "acceptor.json"
    path.write_text(data)
    with pytest.raises(LayoutError, match=message):
        Layout.read(path)
    with pytest.raises(LayoutError, match="cannot be read"):
        Layout.read(tmp_path / "none.json")


def test_keys_that_are_not_exact_are_not_for_this_control_plane(tmp_path: Path) -> None:
    told = {
        "header_types": [{"name": "h_t", "fields": [["a", 9, False], ["b", 8, False]]}],
        "headers": [{"name": "h", "header_type": "h_t"}],
        "actions": [{"name": "c.act", "id": 4, "runtime_data": [{"name": "x", "bitwidth": 12}]}],
        "pipelines": [
            {"tables": [
                {"name": "c.one", "action_ids": [4],
                 "key": [{"match_type": "exact", "target": ["h", "a"]}]},
                {"name": "c.two", "action_ids": [4],
                 "key": [{"match_type": "lpm", "target": ["h", "b"]}]},
            ]},
        ],
        "register_arrays": [{"name": "c.r", "bitwidth": 65, "size": 3}],
        "counter_arrays": [],
    }  # fmt: skip
    layout = read(tmp_path, told)
    assert list(layout.tables) == ["one"]
    assert layout.entry("one", (256,), "act", (1,)) == ("c.one", [b"\x01\0"], "c.act", [b"\0\x01"])
    assert layout.register("r") == Register("c.r", 65, 3)
