"""A small client to type commands at: line editing, replies shown as redis-cli shows them."""

from __future__ import annotations

import getpass
import os
import socket
import ssl
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple

import hiredis

from kvstore.resp import ProtocolError, split_inline
from kvstore.tls import reason
from kvstore.users import PASSWORD_VARIABLE

TIMEOUT_S = 30.0
"""Longer than any reply takes: a server without a majority answers with an error before."""
LENGTH_DIGITS_MAX = 10
"""Of a length that a server announces: as many bytes are waited for."""
DEPTH_MAX = 64
"""Arrays within arrays; no command replies more than a few."""
_ESCAPES = {0x07: "\\a", 0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}


class Shown(NamedTuple):
    """A reply ready to be shown."""

    lines: list[str]
    """As on a terminal."""
    raw: bytes
    """As into a pipe."""
    failed: bool = False


class Shell:
    """A connection that is opened when needed, and again when it was lost."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        credentials: tuple[str, str] | None = None,
    ) -> None:
        """Connects to nothing yet.

        Args:
          host: of a node.
          port: its port for clients; with `tls` that behind TLS.
          tls: None: none is spoken.
          credentials: a user's name and password.
        """
        self._address = (host, port)
        self._tls = tls
        self._credentials = credentials
        self._socket: socket.socket | None = None
        self._stream: BinaryIO | None = None

    @property
    def prompt(self) -> str:
        """What stands before the line that is typed."""
        host, port = self._address
        return f"{host}:{port}> "

    def call(self, words: Sequence[bytes]) -> Shown:
        """Sends one command and waits for its reply.

        Raises:
          OSError: no connection, or lost; whether the command ran is then unknown.
        """
        try:
            if self._stream is None:
                self._connect()
                if self._credentials is not None:
                    shown = self._exchange([b"AUTH", *(w.encode() for w in self._credentials)])
                    if shown.failed:
                        self.close()
                        return shown
            return self._exchange(words)
        except OSError:
            self.close()
            raise

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._address, TIMEOUT_S)
        if self._tls is not None:
            self._socket = self._tls.wrap_socket(self._socket, server_hostname=self._address[0])
        self._stream = self._socket.makefile("rb")

    def _exchange(self, words: Sequence[bytes]) -> Shown:
        assert self._socket is not None
        assert self._stream is not None
        self._socket.sendall(hiredis.pack_command(tuple[Any, ...](words)))
        return read_reply(self._stream)

    def close(self) -> None:
        """Closes the connection; the next call opens another."""
        if self._stream is not None:
            self._stream.close()
        if self._socket is not None:
            self._socket.close()
        self._socket = self._stream = None


def read_reply(stream: BinaryIO, depth: int = 0) -> Shown:
    """Reads one reply of RESP2 or RESP3.

    Raises:
      ConnectionError: the stream ended, or is no RESP.
    """
    if depth > DEPTH_MAX:
        raise ConnectionError(f"this is no RESP: arrays in arrays, {depth} deep")
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("the server closed the connection; the command may have run")
    kind, text = line[:1], line[1:-2]
    shown = text.decode("utf-8", "replace")
    if kind == b"+":
        return Shown([shown], text)
    if kind in b"-!":
        message = text if kind == b"-" else _body(stream, text)
        return Shown(["(error) " + message.decode("utf-8", "replace")], message, failed=True)
    if kind == b":":
        return Shown([f"(integer) {shown}"], text)
    if kind == b",":
        return Shown([f"(double) {shown}"], text)
    if kind == b"#":
        return Shown(["(true)" if text == b"t" else "(false)"], text)
    if kind == b"_" or text == b"-1":
        return Shown(["(nil)"], b"")
    if kind == b"$":
        body = _body(stream, text)
        return Shown([quoted(body)], body)
    if kind == b"=":
        body = _body(stream, text)[4:]
        return Shown(body.decode("utf-8", "replace").splitlines(), body)
    if kind in b"*~>%":
        return _aggregate(stream, kind, _length(text), depth)
    raise ConnectionError(f"this is no RESP: {line[:40]!r}")


def _length(text: bytes) -> int:
    if not text.isdigit() or len(text) > LENGTH_DIGITS_MAX:
        raise ConnectionError(f"this is no RESP: {text[:40]!r} is no length")
    return int(text)


def _body(stream: BinaryIO, text: bytes) -> bytes:
    length = _length(text)
    body = stream.read(length + 2)
    if len(body) != length + 2:
        raise ConnectionError("the server closed the connection; the command may have run")
    return body[:-2]


def _aggregate(stream: BinaryIO, kind: bytes, count: int, depth: int) -> Shown:
    """An array, set or map; nested ones are indented behind their number."""
    name = {b"%": "hash", b"~": "set"}.get(kind, "array")
    if count == 0:
        return Shown([f"(empty {name})"], b"")
    mark = {b"%": "#", b"~": "~"}.get(kind, ")")
    lines: list[str] = []
    raws: list[bytes] = []
    width = len(str(count))
    for number in range(1, count + 1):
        item = read_reply(stream, depth + 1)
        raws.append(item.raw)
        shown = item.lines
        if kind == b"%":
            value = read_reply(stream, depth + 1)
            raws.append(value.raw)
            key = f"{shown[0]} => "
            shown = [key + value.lines[0], *(" " * len(key) + line for line in value.lines[1:])]
        lines.append(f"{number:{width}}{mark} {shown[0]}")
        lines += [" " * (width + 2) + line for line in shown[1:]]
    return Shown(lines, b"\n".join(raws))


def quoted(text: bytes) -> str:
    """Bytes between quotes, what is not printable escaped, as redis-cli does."""
    parts = []
    for byte in text:
        if byte in b'"\\':
            parts.append(f"\\{chr(byte)}")
        elif byte in _ESCAPES:
            parts.append(_ESCAPES[byte])
        else:
            parts.append(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}")
    return f'"{"".join(parts)}"'


def password_of(user: str) -> str:
    """A user's password: from the environment, or typed; never an argument, which `ps` shows.

    Raises:
      ValueError: neither is there.
    """
    password = os.environ.get(PASSWORD_VARIABLE)
    if password is None and sys.stdin.isatty():
        password = getpass.getpass(f"Password of {user}: ")
    if not password:
        raise ValueError(f"the password is missing: put it into {PASSWORD_VARIABLE}, or type it")
    return password


def run(shell: Shell, words: Sequence[str] = ()) -> int:
    """Runs one command, or those of standard input, or what is typed.

    Args:
      shell: to a node.
      words: one command; none: commands are read, one a line.

    Returns:
      0; or 1 when a command that was not typed failed.
    """
    try:
        if words:
            return _execute(shell, [word.encode("utf-8", "surrogateescape") for word in words])
        if sys.stdin.isatty():
            return _interact(shell)
        return _execute_lines(shell, sys.stdin.buffer)
    finally:
        shell.close()


def _execute(shell: Shell, words: Sequence[bytes]) -> int:
    try:
        shown = shell.call(words)
    except OSError as error:
        said = f"TLS: {reason(error)}" if isinstance(error, ssl.SSLError) else str(error)
        print(f"{shell.prompt[:-2]}: {said}; look whether the node runs", file=sys.stderr)
        return 1
    if sys.stdout.isatty():
        print("\n".join(shown.lines))
    else:
        sys.stdout.buffer.write(shown.raw + b"\n")
        sys.stdout.buffer.flush()
    return int(shown.failed)


def _execute_lines(shell: Shell, lines: Iterable[bytes]) -> int:
    """Runs every line, in order, whatever becomes of the ones before."""
    result = 0
    for line in lines:
        try:
            words = split_inline(line.rstrip(b"\r\n"))
        except ProtocolError:
            print("Invalid argument(s)", file=sys.stderr)
            result = 1
            continue
        if words:
            result = max(result, _execute(shell, words))
    return result


def _interact(shell: Shell) -> int:
    with suppress(ImportError):  # some Pythons are built without; typing works all the same
        import readline  # noqa: F401
    while True:
        try:
            line = input(shell.prompt)
        except EOFError:
            print()
            return 0
        except KeyboardInterrupt:
            print()
            continue
        if line.strip().lower() in ("quit", "exit"):
            return 0
        _execute_lines(shell, [line.encode("utf-8", "surrogateescape")])
