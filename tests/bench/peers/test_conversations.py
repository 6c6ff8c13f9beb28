"""What is said to etcd and Redis, and what of their answers is believed, on recorded bytes."""

from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.peers.grpc import Call, frame
from bench.peers.peer import KEYS, item
from bench.peers.resp import Writes

SETTINGS = b"\0\0\x0c\4\0\0\0\0\0\0\5\0\0@\0\0\3\xff\xff\xff\xff" + frame(4, 1, 0, b"")
PING = frame(6, 0, 0, b"\2\4\x10\x10\t\x0e\7\7")
PONG = frame(6, 1, 0, b"\2\4\x10\x10\t\x0e\7\7")
HEADERS = b"\0\0\x0e\1\4\0\0\0\1\x88_\x8b\x1du\xd0b\r&=LMed"
MESSAGE = (
    b"\0\0!\0\0\0\0\0\1\0\0\0\0\x1c\n\x1a\x08\xf9\xc6\xc9\xab\x8d\xd3\xc7\xbf\xc1\1"
    b"\x10\xc0\xad\x82\xe7\xb1\xa3\xdd\x98\xe5\1\x18\2 \2"
)
TRAILERS = (
    b"\0\0\x18\1\5\0\0\0\1@\x88\x9a\xca\xc8\xb2\x124\xda\x8f\x010@\x89\x9a\xca\xc8\xb5%B\x071\x7f\0"
)
ANSWER = SETTINGS + frame(8, 0, 0, b"\0\0\0Y") + PING + HEADERS + MESSAGE + TRAILERS
"""Of etcd 3.4.23 to a first Put."""
UNIMPLEMENTED = (
    b"\0\0I\1\5\0\0\0\1\x88_\x8b\x1du\xd0b\r&=LMed@\x88\x9a\xca\xc8\xb2\x124\xda\x8f\x0212@\x89\x9a"
    b"\xca\xc8\xb5%B\x071\x7f\xa2\xb6\xae\xb5\x1f\xc5JRT\xcey\x14\xd6t\xa9)\xecQ\5\xb3\xb9\x88U\n"
    b"\x92H\x82\xd9\xdc\xb6W\x1a\xf9\xb8\xff"
)
"""Of the same to a method that it does not have."""


def asked() -> Call:
    call = Call("write", "127.0.0.1:2379")
    call.request(7)
    return call


def test_a_put_is_answered() -> None:
    answered, sending = asked().receive(ANSWER)
    assert answered
    assert sending == frame(4, 1, 0, b"") + PONG


def test_an_answer_in_pieces_is_complete_once() -> None:
    call = asked()
    pieces = [call.receive(ANSWER[k : k + 1]) for k in range(len(ANSWER))]
    assert [answered for answered, _ in pieces] == [False] * (len(ANSWER) - 1) + [True]
    assert b"".join(sending for _, sending in pieces) == frame(4, 1, 0, b"") + PONG


@pytest.mark.parametrize(
    "answer",
    [UNIMPLEMENTED, HEADERS + TRAILERS, frame(3, 0, 1, b"\0\0\0\2"), frame(7, 0, 0, b"too many")],
)
def test_a_refusal_is_no_answer(answer: bytes) -> None:
    with pytest.raises(BenchError, match="the server"):
        asked().receive(answer)


def test_a_message_of_the_last_call_does_not_count_for_the_next() -> None:
    call = asked()
    assert call.receive(ANSWER)[0]
    call.request(8)
    with pytest.raises(BenchError, match="refused a write"):
        call.receive(UNIMPLEMENTED)


def test_requests_use_odd_streams_and_name_their_fields_once() -> None:
    call = Call("read", "127.0.0.1:2379")
    first, second = call.request(0), call.request(1)
    assert b"/etcdserverpb.KV/Range" in first
    assert b"application/grpc" in first
    assert first[5:9] == (1).to_bytes(4)
    assert second[5:9] == (3).to_bytes(4)
    assert second.endswith(b"\0\0\0\0\x12\n\x10key:000000000001")
    assert len(second) < 60, "the fields are indexes into the table of the connection"


def test_a_key_has_one_value() -> None:
    key, value = item(3)
    assert (key, value) == item(3 + KEYS)
    assert len(value) == 64
    assert value.startswith(key)
    assert len({item(number) for number in range(2 * KEYS)}) == KEYS


def test_a_set_alone() -> None:
    writes = Writes()
    key, value = item(5)
    sent = b"*3\r\n$3\r\nSET\r\n$16\r\n%b\r\n$64\r\n%b\r\n" % (key, value)
    assert writes.request(5) == sent
    assert writes.receive(b"+O") == (False, b"")
    assert writes.receive(b"K\r\n") == (True, b"")


def test_a_set_that_waits_is_complete_with_the_replicas() -> None:
    writes = Writes(replicas=1)
    assert writes.request(5).endswith(b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$5\r\n10000\r\n")
    assert writes.receive(b"+OK\r\n") == (False, b"")
    assert writes.receive(b":2\r\n") == (True, b"")
    writes.request(6)
    assert writes.receive(b"+OK\r\n:1\r\n") == (True, b"")


@pytest.mark.parametrize("answer", [b"-ERR full\r\n", b"+OK\r\n:0\r\n", b"+OK\r\n-ERR no\r\n"])
def test_what_was_not_replicated_was_not_acknowledged(answer: bytes) -> None:
    writes = Writes(replicas=1)
    writes.request(0)
    with pytest.raises(BenchError, match="was answered"):
        writes.receive(answer)
