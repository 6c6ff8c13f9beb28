"""A very small HTTP server for what watches a node: GET of a few pages, and nothing else.

Every bound is there so that whatever connects here costs the node's other work nothing that it
would notice: a request is one read head of REQUEST_BYTES_MAX that comes within REQUEST_S, an answer
leaves within ANSWER_S, each connection serves one request and is closed, and CONNECTIONS_MAX are
served at once. A library would parse more of HTTP than is wanted on this port.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

import trio

log = logging.getLogger(__name__)

REQUEST_BYTES_MAX = 8192
REQUEST_S = 5.0
ANSWER_S = 10.0
PARTING_S = 0.5
"""A client that still sends when its answer is complete would lose that with a reset."""
CONNECTIONS_MAX = 32
BACKLOG = 64
PLAIN = "text/plain; charset=utf-8"

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.[01]")


class Page(NamedTuple):
    """What a request is answered with."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = PLAIN


class BadRequest(Exception):
    """These bytes are no request that is served here."""

    def __init__(self, status: HTTPStatus, complaint: str) -> None:
        super().__init__(complaint)
        self.page = Page(f"{complaint}\n".encode(), status)


class HttpServer:
    """Serves pages that are made when they are asked for."""

    def __init__(self, pages: Mapping[str, Callable[[], Page]]) -> None:
        """Idle until `run`.

        Args:
          pages: by path.
        """
        self.counters = dict.fromkeys(
            ("requests", "bad_requests", "refused", "lost_connections", "failed_pages"), 0
        )
        self._pages = pages
        self._connections = 0

    async def run(self, listener: socket.socket) -> None:
        """Answers until cancelled; owns the listener, which listens already."""
        listening = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        await trio.serve_listeners(self._serve, [listening])

    async def _serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        """One connection; nothing is raised out of here but cancellation."""
        self._connections += 1
        try:
            if self._connections > CONNECTIONS_MAX:
                self.counters["refused"] += 1
                return
            head, answer = False, Page(b"too slow\n", HTTPStatus.REQUEST_TIMEOUT)
            with trio.move_on_after(REQUEST_S):
                head, answer = await self._answer(stream)
            with trio.move_on_after(ANSWER_S):
                await stream.send_all(encode(answer, head=head))
                await stream.send_eof()
                with trio.move_on_after(PARTING_S):
                    await _drain(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            self.counters["lost_connections"] += 1
        finally:
            self._connections -= 1
            await trio.aclose_forcefully(stream)

    async def _answer(self, stream: trio.abc.HalfCloseableStream) -> tuple[bool, Page]:
        """Whether only the head of an answer is wanted, and the answer."""
        try:
            method, path = await _receive_untrusted(stream)
            page = self._pages.get(path)
            if page is None:
                known = ", ".join(self._pages)
                raise BadRequest(HTTPStatus.NOT_FOUND, f"there is no such page; known are {known}")
            if method not in ("GET", "HEAD"):
                raise BadRequest(HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD are served here")
        except BadRequest as error:
            self.counters["bad_requests"] += 1
            return False, error.page
        self.counters["requests"] += 1
        try:
            return method == "HEAD", page()
        except Exception:
            # A mistake of ours in what is told about the node must not end the node.
            self.counters["failed_pages"] += 1
            log.exception("the page %s failed", path)
            return method == "HEAD", Page(b"this page failed; see the log\n", _FAILED)


_FAILED = HTTPStatus.INTERNAL_SERVER_ERROR


async def _receive_untrusted(stream: trio.abc.HalfCloseableStream) -> tuple[str, str]:
    """A request's method and path, once its whole head is there; a body is not read.

    Raises:
      BadRequest: too long, or no HTTP/1.
      trio.BrokenResourceError: the client left.
    """
    head = b""
    while b"\r\n\r\n" not in head:
        more = await stream.receive_some(REQUEST_BYTES_MAX + 1 - len(head))
        if not more:
            raise trio.BrokenResourceError("the client left before its request was complete")
        head += more
        if len(head) > REQUEST_BYTES_MAX:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise BadRequest(status, f"a request has at most {REQUEST_BYTES_MAX} bytes here")
        if not _might_be_request(head):
            break
    found = _REQUEST_LINE.fullmatch(head.split(b"\r\n", 1)[0])
    if found is None:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "this port speaks HTTP/1.1: GET /metrics")
    return found[1].decode(), found[2].decode().partition("?")[0]


def _might_be_request(head: bytes) -> bool:
    """Whether more bytes could make this a request: anything else is answered at once."""
    line, end, _ = head.partition(b"\r\n")
    if end:
        return _REQUEST_LINE.fullmatch(line) is not None
    return not any((byte < 32 and byte != 13) or byte > 126 for byte in line)


async def _drain(stream: trio.abc.HalfCloseableStream) -> None:
    """Takes what a client still sends, until it ends or time is up."""
    while await stream.receive_some(REQUEST_BYTES_MAX):
        pass


def encode(page: Page, *, head: bool = False) -> bytes:
    """A page as HTTP/1.1.

    Args:
      page: the answer.
      head: without the body, as HEAD asks.
    """
    lines = [
        f"HTTP/1.1 {page.status.value} {page.status.phrase}",
        f"Content-Type: {page.content_type}",
        f"Content-Length: {len(page.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if page.status == HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if head else page.body)
