from __future__ import annotations

import io

import pytest

from kvstore.shell import read_reply


@pytest.mark.parametrize(
    ("reply", "lines"),
    [
        (b"+OK\r\n", ["OK"]),
        (b"-ERR no\r\n", ["(error) ERR no"]),
        (b":5\r\n", ["(integer) 5"]),
        (b"$-1\r\n", ["(nil)"]),
        (b"_\r\n", ["(nil)"]),
        (b"#t\r\n", ["(true)"]),
        (b",1.5\r\n", ["(double) 1.5"]),
        (b'$7\r\na"\\\n\xffbc\r\n', ['"a\\"\\\\\\n\\xffbc"']),
        (b"=6\r\ntxt:hi\r\n", ["hi"]),
        (b"*0\r\n", ["(empty array)"]),
        (b"*2\r\n:1\r\n*2\r\n:2\r\n:3\r\n", ["1) (integer) 1", "2) 1) (integer) 2",
                                            "   2) (integer) 3"]),
        (b"%1\r\n+a\r\n*2\r\n:1\r\n:2\r\n", ["1# a => 1) (integer) 1", "        2) (integer) 2"]),
        (b"~1\r\n:1\r\n", ["1~ (integer) 1"]),
    ],
)  # fmt: skip
def test_replies_look_as_in_redis_cli(reply: bytes, lines: list[str]) -> None:
    assert read_reply(io.BytesIO(reply)).lines == lines


@pytest.mark.parametrize(
    "reply",
    [
        b"", b"$5\r\nab", b"HTTP/1.1 200\r\n", b"*2\r\n:1\r\n",
        # Found by fuzzing: lengths that are none, and arrays without end.
        b"$2\r3:1\r\n", b"*-1\rx\r\n", b"*1\r\n*-5\r\n", b"$-7\r\nabc\r\n", b"*1\r\n" * 5000,
        b"$" + b"9" * 5000 + b"\r\n",
    ],
)  # fmt: skip
def test_what_is_no_reply_is_a_lost_connection(reply: bytes) -> None:
    with pytest.raises(ConnectionError):
        read_reply(io.BytesIO(reply))
