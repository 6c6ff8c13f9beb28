"""The slow log: what is kept of what, and SLOWLOG as Redis answers it."""

from __future__ import annotations

from collections.abc import Callable

import redis
import trio

from kvstore.slowlog import SlowLog, shown
from tests.kvstore.serving import Running, pack


async def on_thread(function: Callable[[], None]) -> None:
    with trio.fail_after(60):
        await trio.to_thread.run_sync(function)


def slow_log(at_s: float = 1000.0) -> SlowLog:
    return SlowLog(lambda: at_s)


def numbers(log: SlowLog) -> list[int]:
    return [entry.number for entry in log]


def test_the_newest_is_first_and_the_oldest_goes() -> None:
    log = slow_log()
    log.max_length = 3
    for _ in range(5):
        log.note(0.02, (b"get", b"key"))
    assert numbers(log) == [4, 3, 2]
    log.max_length = 2
    assert numbers(log) == [4, 3]
    log.max_length = 10
    log.note(0.02, (b"get", b"key"))
    assert numbers(log) == [5, 4, 3]


def test_reset_forgets_entries_but_goes_on_counting() -> None:
    log = slow_log()
    log.note(0.02, (b"get", b"key"))
    log.reset()
    assert len(log) == 0
    log.note(0.02, (b"get", b"key"))
    assert numbers(log) == [1]


def test_an_entry_tells_when_how_long_what_and_who() -> None:
    log = slow_log(1234.9)
    log.note(0.0125, (b"set", b"key", b"value"), address="127.0.0.1:99", name=b"worker")
    (entry,) = log
    assert entry == (0, 1234, 12500, (b"set", b"key", b"value"), "127.0.0.1:99", b"worker")


def test_a_run_of_a_pipeline_is_one_entry() -> None:
    log = slow_log()
    log.note(0.02, (b"set", b"key", b"value"), more=41)
    (entry,) = log
    assert entry.words == (b"set", b"key", b"value", b"... (41 more commands)")


def test_thresholds() -> None:
    log = slow_log()
    assert (log.slower_than_us, log.threshold_s) == (10_000, 0.01)
    log.slower_than_us = 0
    assert log.threshold_s == 0.0
    log.slower_than_us = -1
    assert log.threshold_s == float("inf")


def test_a_long_length_does_not_take_memory_beforehand() -> None:
    log = slow_log()
    log.max_length = (1 << 63) - 1
    log.note(0.02, (b"get", b"key"))
    assert log.max_length == (1 << 63) - 1
    assert len(log) == 1


def test_arguments_are_cut_as_redis_cuts_them() -> None:
    words = shown([b"set", b"k" * 129, b"v" * 1000])
    assert words == (
        b"set", b"k" * 128 + b"... (1 more bytes)", b"v" * 128 + b"... (872 more bytes)"
    )  # fmt: skip
    many = shown([b"%d" % number for number in range(33)])
    assert len(many) == 32
    assert many[30:] == (b"30", b"... (2 more arguments)")
    assert shown([b"%d" % number for number in range(32)])[-1] == b"31"


async def test_slowlog_through_a_client(running: Running) -> None:
    log = running.server.meter.slowlog
    log.slower_than_us = 0
    log.max_length = 5

    def use() -> None:
        with redis.Redis(port=running.server.port, client_name="tester") as client:
            client.slowlog_reset()
            client.set("key", b"v" * 10_000)
            client.get("key")
            entries = client.slowlog_get()
            commands = [entry["command"] for entry in entries]
            assert commands[0] == b"GET key"
            assert commands[1].startswith(b"SET key vvvv")
            assert commands[1].endswith(b"... (9872 more bytes)")
            assert entries[0]["id"] == entries[1]["id"] + 1
            assert entries[0]["duration"] >= 0
            assert entries[0]["client_name"] == b"tester"
            assert entries[0]["client_address"].startswith(b"127.0.0.1:")
            for _ in range(10):
                client.ping()
            assert client.slowlog_len() == 5
            assert len(client.slowlog_get(2)) == 2
            log.slower_than_us = -1
            client.slowlog_reset()
            client.ping()
            assert client.slowlog_len() == 0

    await on_thread(use)


async def test_a_pipeline_is_one_entry_with_its_first_command(running: Running) -> None:
    talker = await running.connect()
    await talker.send(pack(b"PING"))
    await talker.expect(b"+PONG\r\n")
    running.server.meter.slowlog.slower_than_us = 0
    await talker.send(b"".join(pack(b"SET", b"key%d" % number, b"1") for number in range(20)))
    await talker.expect(b"+OK\r\n" * 20)
    (entry,) = running.server.meter.slowlog
    assert entry.words == (b"SET", b"key0", b"1", b"... (19 more commands)")


def answers(port: int, commands: list[tuple[bytes, ...]]) -> list[object]:
    found: list[object] = []
    with redis.Redis(port=port) as client:
        for words in commands:
            try:
                found.append(client.execute_command(*words))
            except redis.ResponseError as error:
                found.append(str(error))
    return found


async def test_answers_are_those_of_redis(running: Running, real_redis: int) -> None:
    commands = [
        (b"SLOWLOG",), (b"SLOWLOG", b"get", b"1", b"2"), (b"SLOWLOG", b"GET", b"-2"),
        (b"SLOWLOG", b"GET", b"x"), (b"slowlog", b"LEN", b"1"), (b"SLOWLOG", b"xx"),
        (b"SLOWLOG", b"RESET"), (b"SLOWLOG", b"LEN"), (b"SLOWLOG", b"GET", b"-1"),
    ]  # fmt: skip
    running.server.meter.slowlog.slower_than_us = -1

    def compare() -> None:
        with redis.Redis(port=real_redis) as client:
            client.config_set("slowlog-log-slower-than", -1)
        assert answers(running.server.port, commands) == answers(real_redis, commands)

    await on_thread(compare)
