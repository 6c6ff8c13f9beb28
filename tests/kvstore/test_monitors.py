"""MONITOR: every command that a node gets, to those who look on."""

from __future__ import annotations

import re

import pytest

from kvstore.connection import OUTPUT_BYTES
from kvstore.monitors import quoted
from tests.kvstore.serving import Running, Talker, pack


async def line_of(talker: Talker) -> bytes:
    """One line without its time."""
    line = b""
    while not line.endswith(b"\r\n"):
        line += await talker.receive(1)
    found = re.fullmatch(rb"\+\d+\.\d{6} \[(\d+) 127\.0\.0\.1:\d+\] (.*)\r\n", line)
    assert found is not None, line
    return found[1] + b" " + found[2]


async def looking(running: Running) -> Talker:
    talker = await running.connect()
    await talker.send(pack(b"MONITOR"))
    await talker.expect(b"+OK\r\n")
    return talker


async def test_reads_writes_and_others_are_seen(running: Running) -> None:
    monitor = await looking(running)
    client = await running.connect()
    await client.send(pack(b"select", b"3") + pack(b"SET", b"k", b"\x00\xff\n\"\\"))
    await client.expect(b"+OK\r\n+OK\r\n")
    await client.send(pack(b"GET", b"k") + pack(b"AUTH", b"default", b"secret"))
    await client.expect(b'$5\r\n\x00\xff\n"\\\r\n+OK\r\n')
    await client.send(pack(b"MULTI") + pack(b"INCR", b"n") + pack(b"EXEC"))
    await client.expect(b"+OK\r\n+QUEUED\r\n*1\r\n:1\r\n")
    assert [await line_of(monitor) for _ in range(6)] == [
        b'0 "select" "3"',
        b'3 "SET" "k" "\\x00\\xff\\n\\"\\\\"',
        b'3 "GET" "k"',
        b'3 "MULTI"',
        b'3 "INCR" "n"',
        b'3 "EXEC"',
    ]


async def test_reset_ends_it(running: Running) -> None:
    monitor = await looking(running)
    client = await running.connect()
    await monitor.send(pack(b"RESET"))
    assert await line_of(monitor) == b'0 "RESET"'
    await monitor.expect(b"+RESET\r\n")
    await client.send(pack(b"PING"))
    await client.expect(b"+PONG\r\n")
    await monitor.send(pack(b"ECHO", b"quiet"))
    await monitor.expect(b"$5\r\nquiet\r\n")


async def test_one_who_takes_nothing_is_hung_up_on(running: Running) -> None:
    await looking(running)
    client = await running.connect()
    word = b"x" * 1000
    for _ in range(20 * OUTPUT_BYTES // len(word) // 100):  # the kernel holds some as well
        await client.send(pack(b"PING", word) * 100)
        await client.receive(100 * len(b"$1000\r\n" + word + b"\r\n"))
        if running.server.connected == 1:
            return
    raise AssertionError("the one who looks on and reads nothing is still connected")


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        (b"", b'""'),
        (b"it's", b'"it\'s"'),
        (b"\t\r\n\a\b\x7f\xc3", b'"\\t\\r\\n\\a\\b\\x7f\\xc3"'),
        (b"y" * 1030, b'"' + b"y" * 1024 + b'... (6 more bytes)"'),
    ],
)
def test_words_are_shown_as_redis_shows_them(word: bytes, shown: bytes) -> None:
    assert quoted(word) == shown
