from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore import resp
from kvstore.resp import ChunkReader, Command, CommandParser, PlainParser, ProtocolError
from tests.kvstore.serving import pack

CHUNKS = ChunkReader()


arguments = st.binary(max_size=20) | st.sampled_from([b"SET", b"\r\n", b"*3\r\n", b"\r\n$1", b"*"])
array = st.lists(arguments, max_size=5).map(lambda words: pack(*words))
inline = st.sampled_from(
    [b"PING\r\n", b"SET a 'b c'\n", b"\r\n", b'echo "\\x00\\n"\r\n', b"+OK\r\n"]
)
oddity = st.sampled_from(
    [b"*0\r\n", b"*-1\r\n", b"*1\r\n:5\r\n", b"*1\r\n$-1\r\n", b"*1\r\n*1\r\n$1\r\na\r\n",
     b"+x\r\n", b"*01\r\n", b"*1000000\r\n", b"%1\r\n$1\r\na\r\n$1\r\nb\r\n", b"*1\r\n+a\r\n",
     b"*1\r\n~0\r\n", b"*9999999999\r\n", b"|1\r\n", b"*1\r\n%1\r\n%0\r\n:1\r\n",
     b'"', b"$5\r\nhello\r\n"]
)


def parse(pieces: list[bytes]) -> tuple[list[Command], str | None]:
    parser = CommandParser(CHUNKS)
    commands: list[Command] = []
    for piece in pieces:
        if parser.error is None:
            commands += parser.feed(piece)
    return commands, parser.error


def plainly(stream: bytes) -> tuple[list[Command], str | None]:
    """What the rule says, without hiredis and in one piece."""
    parser = PlainParser()
    parser.feed(stream)
    commands: list[Command] = []
    try:
        while (command := parser.next_command()) is not None:
            commands.append(command)
    except ProtocolError as error:
        return commands, str(error)
    return commands, None


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges) if a < b]


places = st.lists(st.integers(0, 1 << 16), max_size=8)


@given(st.lists(array, max_size=20), places)
def test_any_split_of_arrays_gives_the_same_commands(parts: list[bytes], where: list[int]) -> None:
    stream = b"".join(parts)
    assert parse(cut(stream, where)) == plainly(stream)


@given(st.lists(array | inline | oddity | st.binary(max_size=8), max_size=12), places)
def test_any_split_of_anything_gives_the_same_commands(
    parts: list[bytes], where: list[int]
) -> None:
    stream = b"".join(parts)
    assert parse(cut(stream, where)) == plainly(stream)


@given(st.binary(max_size=200), places)
def test_garbage_raises_nothing(stream: bytes, where: list[int]) -> None:
    assert parse(cut(stream, where)) == plainly(stream)


@pytest.mark.parametrize(
    "stream",
    [
        b"*1\r\n$4\r\nPING\r\n%1\r\n$5\r\n\r\n*ab\r\n:5\r\n",
        b"*1\r\n$4\r\nPING\r\n~2\r\n$1\r\na\r\n$4\r\n\r\n*b\r\n",
        b"*2\r\n+GET\r\n$1\r\n$\r\n",
        b"*2\r\n+a\r\n$1\r\n*\r\n$0\r\n\r\n",
        b"*2\r\n=7\r\ntxt:GET\r\n$1\r\n$\r\n",
        b"*1\r\n$4\r\nPINGxx%1\r\n$1\r\n*\r\n:5\r\n",
        b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n",
    ],
)
def test_a_value_makes_up_for_no_mark_of_another_type(stream: bytes) -> None:
    """hiredis takes these for commands; some of its values cannot even be looked at as one."""
    assert parse([stream]) == plainly(stream)


@pytest.mark.parametrize("between", [b"\r\n", b"xx"])
def test_an_array_that_hiredis_would_allocate_at_once_is_not_for_it(between: bytes) -> None:
    stream = b"*1\r\n$4\r\nPING" + between
    for size in (b"100000", b"1000000", b"4294967295"):
        assert CHUNKS.read(b"*" + size + b"\r\n") == ([], 0)
        assert CHUNKS.read(stream + b"*" + size + b"\r\n") == ([], 0)
        assert CHUNKS.read(stream + b"%" + size + b"\r\n") == ([], 0)


def test_hiredis_serves_again_behind_a_stream_that_it_could_not_read() -> None:
    assert parse([b"*1\r\n:5\r\n"]) == ([], "expected '$', got ':'")
    chunk = pack(b"GET", b"k")
    assert CHUNKS.read(chunk) == ([[b"GET", b"k"]], len(chunk))


def test_whole_commands_before_an_unfinished_one_are_read_by_hiredis() -> None:
    whole = pack(b"SET", b"k", b"v")
    assert CHUNKS.read(whole * 3 + whole[:9]) == ([[b"SET", b"k", b"v"]] * 3, 3 * len(whole))


def test_the_guard_swallowed_by_an_unfinished_value_is_no_command() -> None:
    assert parse([b"*1\r\n$30\r\n", b"x" * 30 + b"\r\n"]) == ([[b"x" * 30]], None)


@given(st.lists(array | oddity | st.binary(max_size=8), min_size=1, max_size=8))
def test_commands_of_many_connections_are_theirs(chunks: list[bytes]) -> None:
    """Read together if each chunk is a command, and else not at all: none goes to a neighbour."""
    alone = [plainly(chunk) for chunk in chunks]
    whole = all(
        len(commands) == 1 and error is None and pack(*commands[0]) == chunk
        for (commands, error), chunk in zip(alone, chunks, strict=True)
    )
    found = CHUNKS.read_each(chunks)
    assert found == ([commands[0] for commands, _ in alone] if whole else None)
    assert CHUNKS.read_each([pack(b"GET", b"k")]) == [[b"GET", b"k"]]


def test_a_command_that_a_neighbour_goes_on_with_is_not_read() -> None:
    for begun in (b"=", b"*", b"*1\r", b"*2\r\n$3\r\nGET\r\n"):
        assert CHUNKS.read_each([begun]) is None
        assert CHUNKS.read_each([pack(b"GET", b"k")]) == [[b"GET", b"k"]]
    halves = [b"*1\r\n$4\r\nPI", b"NG\r\n*1\r\n$4\r\nPING\r\n"]
    assert CHUNKS.read_each(halves) is None
    # As many commands as chunks, and the first has swallowed a stranger's.
    stolen = pack(b"SET", b"mine", pack(b"GET", b"yours"))
    cut_short = stolen[: stolen.index(pack(b"GET", b"yours"))]
    assert CHUNKS.read_each([cut_short, pack(b"GET", b"yours"), b"\r\n" + pack(b"PING")]) is None


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*1\r\nx\r\n", "expected '$', got 'x'"),
        (b"*1\r\n\r\n", "expected '$', got ' '"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$%d\r\n" % (resp.MAX_BULK_BYTES + 1), "invalid bulk length"),
        (b"*" + b"1" * (resp.MAX_LINE_BYTES + 1), "too big mbulk count string"),
        (b"*1\r\n$" + b"1" * (resp.MAX_LINE_BYTES + 1), "too big bulk count string"),
        (b"a" * (resp.MAX_LINE_BYTES + 1), "too big inline request"),
        (b'"abc\r\n', "unbalanced quotes in request"),
        (b'"abc"d\r\n', "unbalanced quotes in request"),
    ],
)
def test_errors_in_redis_words(stream: bytes, error: str) -> None:
    assert parse([stream]) == ([], error)


def test_a_command_is_bounded_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resp, "MAX_COMMAND_BYTES", 10)
    assert parse([b"*2\r\n$6\r\nabcdef\r\n$6\r\nabcdef\r\n", b"x"])[1] is None  # whole: hiredis
    assert parse([b"*2\r\n$6\r\nabcdef\r\n$6\r\nab", b"cdef\r\n"])[1] == "too big command"


def test_a_large_value_in_small_pieces_is_not_read_again_and_again() -> None:
    """Counts what the parser looks at: every search starts where the one before it ended."""
    parser = CommandParser(CHUNKS)
    piece = b"v" * 1000
    assert parser.feed(b"*1\r\n$1000000\r\n") == []
    for _ in range(999):
        assert parser.feed(piece) == []
    assert parser.buffered_bytes == 999_000
    assert parser.feed(piece + b"\r\n") == [[b"v" * 1_000_000]]
    assert parser.buffered_bytes == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"SET a b", [b"SET", b"a", b"b"]),
        (b"  a \t b  ", [b"a", b"b"]),
        (b'echo "\\x41\\n\\q\\""', [b"echo", b'A\nq"']),
        (b"echo 'it\\'s' ", [b"echo", b"it's"]),
        (b"a\0b", [b"a"]),
        (b'""', [b""]),
        (b"", []),
    ],
)
def test_inline_words(line: bytes, words: Command) -> None:
    assert resp.split_inline(line) == words
