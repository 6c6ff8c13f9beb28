from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.packing import (
    VALUE_OVERHEAD_BYTES,
    BadValue,
    join_value,
    pack_commands,
    split_value,
    take_database,
)
from kvstore.resp import Command

commands = st.lists(st.lists(st.binary(max_size=12), min_size=1, max_size=4), max_size=40)


@given(commands, st.integers(0, 15), st.integers(0, (1 << 63) - 1), st.integers(0, 0xFFFF))
def test_what_is_packed_comes_back(
    batch: list[Command], database: int, stamp: int, origin: int
) -> None:
    packed = pack_commands(batch, database)
    value = join_value(packed, stamp, origin)
    assert len(value) <= sum(map(len, packed)) + VALUE_OVERHEAD_BYTES
    assert split_value(value)[:2] == (stamp, origin)
    got = [take_database(command) for command in split_value(value)[2]]
    if database:
        assert got == [(database, command) for command in batch]
    else:
        assert split_value(value)[2] == batch


@given(st.binary(max_size=60))
def test_foreign_bytes_are_bad_or_commands(payload: bytes) -> None:
    try:
        _, _, got = split_value(payload)
    except BadValue:
        return
    assert all(command and all(type(word) is bytes for word in command) for command in got)


@pytest.mark.parametrize(
    "value",
    [None, 5, b"abc", {"a": 1}, {b"a": 1}, [b"abc"], [[]], [["text"]], [[1]], [[b"a"], [None]],
     [{b"k": b"v"}], [[[b"a"]]],
     [1, 1, []], [1, 1, b"abc"], [1, 1, ["text"]], [1, 1, [b"a"], [None]], [1, 1, [[b"a"]]],
     [1, 1, {b"k": b"v"}], [1, 1, {}], [], [1], [1, [b"a"]], [-1, 1, [b"a"]], [1, -1], [1 << 63, 1],
     [1, 1 << 16], [1.0, 1], [True, 1], [1, None], [b"1", 1]],
)
def test_other_msgpack_is_bad(value: object) -> None:
    with pytest.raises(BadValue):
        split_value(msgpack.packb(value))


def test_truncated_and_trailing_bytes_are_bad() -> None:
    value = join_value(pack_commands([[b"SET", b"k", b"v"]], 0), 1, 1)
    for bad in (b"", value[:-1], value + b"\x00", b"\xc1"):
        with pytest.raises(BadValue):
            split_value(bad)
