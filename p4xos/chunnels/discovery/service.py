"""The discovery service: a process at a Unix socket, in the frames of `p4xos.framing`.

    asked, each with the version                             answered
    look    reserve                                          lease, reserved; body: the picture
    watch                                                    for ever: body: the picture
    hold    kind, ttl_ms, data, teardown, lease              lease          or an error
    renew   leases                                           lost: leases that are not held
    release lease                                            {}
    settle  lease, resources                                 nothing

A look may reserve resources that its connection may need, so that looking and claiming are one
round trip; it settles then how much it needs, before long. Whoever wants what is reserved waits
for that, for a moment.

Whoever reaches the socket is believed, as its mode says; a teardown is taken only from the user
who runs the service, and from root. Bytes that are no request close their connection.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import socket
import stat
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import msgpack
import trio

from p4xos.chunnels.discovery import VERSION
from p4xos.chunnels.discovery.book import Book, Full, Hold, Kind
from p4xos.chunnels.errors import Busy
from p4xos.chunnels.offers import (
    KEYS_MAX,
    TEXT_MAX,
    amounts_untrusted,
    integer_untrusted,
    text_untrusted,
)
from p4xos.chunnels.passes import KEY_BYTES
from p4xos.chunnels.unwrapping import open_plain_nursery
from p4xos.errors import BadPacket, P4xosError
from p4xos.framing import Frame, FrameStream
from p4xos.framing import integer_untrusted as whole_untrusted
from p4xos.framing import text_untrusted as word_untrusted
from p4xos.remote_errors import Refused, error_head

log = logging.getLogger(__name__)

STATE_VERSION = 1
"""Of the file of what outlives the service."""
CONNECTIONS_MAX = 4096
TTL_MS_MIN, TTL_MS_MAX = 10, 3_600_000
TEARDOWN_WORDS_MAX = 64
TEARDOWN_S = 30.0
"""How long a teardown may take."""
UNSETTLED_S = 0.1
"""How long who wants resources waits for who has only reserved them: an offer and its answer."""
WANTED_MAX = 64
"""Of one reservation."""
SOCKET_MODE = 0o600
PATH_BYTES_MAX = 107
"""Of a Unix socket; the kernel's field has room for these and a zero."""
_CREDENTIALS = struct.Struct("3i")


class InUse(P4xosError):
    """Another service is at the socket."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: a discovery service runs there already; stop it, or name another socket"
        )


class NewerState(P4xosError):
    """The file of what outlives the service is of another release."""

    def __init__(self, path: Path, found: int) -> None:
        super().__init__(
            f"{path} has version {found} and this release reads {STATE_VERSION}; upgrade it, or "
            "remove the file, and with it what is to be torn down"
        )


class DamagedState(P4xosError):
    """The file of what outlives the service cannot be read."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} does not hold what is to be torn down ({why}): restore it, or remove it, and "
            "tear down by hand what owners that were killed have set up"
        )


class Service:
    """One service; `run` serves."""

    def __init__(
        self, path: Path, state: Path | None = None, capacities: Mapping[str, int] | None = None
    ) -> None:
        """Nothing is open yet.

        Args:
          path: of the socket.
          state: the file of what outlives the service; None: beside the socket.
          capacities: resources that are always there.
        """
        self.book = Book(capacities)
        self.path = path
        self.counters = dict.fromkeys(
            (
                "connections", "bad_frames", "requests", "settled", "refused", "expired",
                "teardowns", "failed_teardowns", "not_stored", "failed_connections",
            ),
            0,
        )  # fmt: skip
        self._state = state or path.with_name(path.name + ".state")
        self._unfinished = self._state.with_name(self._state.name + ".unfinished")
        self._connections = 0
        self._changed = trio.Event()
        self._stored = ""
        self._key = secrets.token_bytes(KEY_BYTES)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; the socket goes with it, what outlives it stays in a file.

        Raises:
          InUse: another one serves there.
          NewerState, DamagedState: the file is of a later release, or spoilt.
          OSError: the socket or the file cannot be had.
        """
        listener = self._bind()
        try:
            if self._state.exists():
                self.book.restore(self._stored_holds(), trio.current_time())
            self._unfinished.touch(SOCKET_MODE)  # who could not write it says so before it must
            self._unfinished.unlink()
            listening = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._reap)
                task_status.started()
                log.info("discovery serves at %s", self.path)
                await trio.serve_listeners(self._serve, [listening], handler_nursery=nursery)
        finally:
            listener.close()
            self.path.unlink(missing_ok=True)

    def _stored_holds(self) -> dict[str, Any]:
        """What the service before this one has left."""
        try:
            stored = json.loads(self._state.read_text())
            if stored["version"] != STATE_VERSION:
                raise NewerState(self._state, stored["version"])
            holds: dict[str, Any] = stored["holds"]
            Book().restore(holds, 0.0)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamagedState(self._state, f"{type(error).__name__}: {error}") from None
        return holds

    def _bind(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with suppress(FileNotFoundError):
                if not stat.S_ISSOCK(self.path.lstat().st_mode):
                    raise FileExistsError(
                        errno.EEXIST, "there is something else already; name a file that is not"
                    )
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                    try:
                        probe.connect(str(self.path))
                    except ConnectionRefusedError:
                        self.path.unlink()  # of a service that was killed
                    else:
                        raise InUse(self.path)
            if len(os.fsencode(self.path)) > PATH_BYTES_MAX:
                raise OSError(
                    errno.ENAMETOOLONG, f"the path of a socket has at most {PATH_BYTES_MAX} bytes"
                )
            before = os.umask(0o777 & ~SOCKET_MODE)
            try:
                listener.bind(str(self.path))
            finally:
                os.umask(before)
            listener.listen(128)
            listener.setblocking(False)
        except OSError as error:  # which does not tell of what socket
            listener.close()
            raise OSError(error.errno, error.strerror or str(error), str(self.path)) from None
        except BaseException:
            listener.close()
            raise
        return listener

    # Leases --------------------------------------------------------------------------------------

    async def _reap(self) -> None:
        """Ends what was not renewed, and runs its teardown."""
        while True:
            changed = self._changed
            deadline = self.book.deadline()
            with trio.move_on_at(float("inf") if deadline is None else deadline):
                await changed.wait()
            for hold in self.book.expire(trio.current_time()):
                self.counters["expired"] += 1
                log.warning("a lease has expired: %s %s", hold.kind, hold.data)
                if hold.teardown:
                    self._nursery.start_soon(self._tear_down, hold)
                self._tell()

    async def _tear_down(self, hold: Hold) -> None:
        self.counters["teardowns"] += 1
        try:
            with trio.fail_after(TEARDOWN_S):
                done = await trio.run_process(
                    hold.teardown, check=False, capture_stdout=True, capture_stderr=True
                )
        except (OSError, ValueError, trio.TooSlowError) as error:  # Value: a word that none takes
            self.counters["failed_teardowns"] += 1
            log.error("teardown %s failed: %s; run it by hand", hold.teardown, error)
            return
        if done.returncode:
            self.counters["failed_teardowns"] += 1
            told = done.stderr.decode(errors="replace").strip()[-500:]
            log.error(
                "teardown %s ended with %d: %s; run it by hand", hold.teardown, done.returncode,
                told,
            )  # fmt: skip
        else:
            log.info("teardown %s is done", hold.teardown)

    def _tell(self) -> None:
        """Something has changed: whoever watches is told, and what must last is written."""
        self._changed.set()
        self._changed = trio.Event()
        lasting = self._lasting()
        if lasting != self._stored and (self.book.lasting() or self._state.exists()):
            try:
                self._store(lasting)
            except OSError as error:
                self.counters["not_stored"] += 1
                log.error(
                    "%s cannot be written: %s; until it can, what is held now is not torn down "
                    "should this service be killed", self._state, error,
                )  # fmt: skip

    def _lasting(self) -> str:
        return json.dumps({"version": STATE_VERSION, "holds": self.book.lasting()})

    def _store(self, lasting: str) -> None:
        """Writes what must last; the file is always whole."""
        self._unfinished.write_text(lasting)
        self._unfinished.chmod(SOCKET_MODE)
        self._unfinished.replace(self._state)
        self._stored = lasting

    # Connections ---------------------------------------------------------------------------------

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.counters["connections"] += 1
        if self._connections >= CONNECTIONS_MAX:
            self.counters["refused"] += 1
            await trio.aclose_forcefully(stream)
            return
        frames = FrameStream(stream, body_bytes_max=0)
        held: set[str] = set()
        self._connections += 1
        try:
            await self._answer_untrusted(frames, held, trusted=_trusted(stream))
        except BadPacket as error:
            self.counters["bad_frames"] += 1
            log.warning("a connection is closed: %s", error)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass  # it has gone; its leases tell the rest
        except Exception:
            # A mistake of ours in one answer must not end the service for all others.
            self.counters["failed_connections"] += 1
            log.exception("a connection failed")
        finally:
            self._connections -= 1
            self.book.lost(held)
            self._tell()
            await frames.aclose()

    async def _answer_untrusted(
        self, frames: FrameStream, held: set[str], *, trusted: bool
    ) -> None:
        while (frame := await frames.receive_untrusted()) is not None:
            version = whole_untrusted(frame.head, "version")
            if version != VERSION:
                frames.post(
                    error_head(
                        Refused(
                            f"this discovery service speaks version {VERSION} and you {version}; "
                            "use the same release on both sides: upgrade the older one"
                        )
                    )
                )
                await frames.flush()
                return
            asked = word_untrusted(frame.head, "ask")
            self.counters["settled" if asked == "settle" else "requests"] += 1
            match asked:
                case "look":
                    wanted = wanted_untrusted(frame.head.get("reserve", []))
                    lease = await self._reserve(wanted) if wanted else ""
                    if lease:
                        held.add(lease)
                    told = {"lease": lease, "reserved": self._reserved(lease)}
                    frames.post(told, self._picture())
                case "watch":
                    await self._watch(frames)
                case "hold":
                    try:
                        hold = self._to_hold_untrusted(frame, trusted=trusted)
                        if hold.kind == "claim":
                            await self._wait_for([hold.data["resources"]])
                        lease = self.book.hold(hold, _lease_untrusted(frame))
                    except P4xosError as error:
                        if isinstance(error, BadPacket):
                            raise
                        frames.post(busy_head(error))
                    else:
                        held.add(lease)
                        frames.post({"lease": lease})
                        self._tell()
                case "settle":
                    # Nobody waits for an answer to it, so there is none.
                    self._settle_untrusted(frame, held)
                case "renew":
                    frames.post({"lost": self._renew_untrusted(frame)})
                case "release":
                    lease = word_untrusted(frame.head, "lease")
                    self.book.release(lease)
                    held.discard(lease)
                    frames.post({})
                    self._tell()
                case other:
                    raise BadPacket(f"the request {other[:40]!r} is unknown")
            await frames.flush()

    def _picture(self) -> bytes:
        packed: bytes = msgpack.packb({**self.book.picture(), "key": self._key})
        return packed

    # Claims --------------------------------------------------------------------------------------

    async def _wait_for(self, wanted: Sequence[Mapping[str, int]]) -> None:
        """Until no reservation stands in the way, or for a moment."""
        with trio.move_on_after(UNSETTLED_S):
            while any(map(self.book.in_question, wanted)):
                await self._changed.wait()

    async def _reserve(self, wanted: list[dict[str, int]]) -> str:
        """Takes of each what has room, the first ones first; returns the lease, if it is one."""
        await self._wait_for(wanted)
        free = self.book.free()
        granted: list[dict[str, int]] = []
        for each in wanted:
            together = _sum([*granted, each])
            fits = all(free.get(name, 0) >= amount for name, amount in together.items())
            if fits and len(together) <= KEYS_MAX:
                granted.append(each)
        if not granted:
            return ""
        data = {"resources": _sum(granted)}
        try:
            return self.book.hold(Hold("claim", 0.0, None, data, reserved=True))
        except Full:
            return ""  # who then claims is told so

    def _reserved(self, lease: str) -> dict[str, int]:
        hold = self.book.holds.get(lease)
        return {} if hold is None else dict(hold.data["resources"])

    def _settle_untrusted(self, frame: Frame, held: set[str]) -> None:
        """What of a reservation is needed; the rest is free."""
        lease = word_untrusted(frame.head, "lease")
        resources = amounts_untrusted(frame.head.get("resources"))
        before = self.book.holds.get(lease)
        if lease not in held or before is None or before.kind != "claim":
            raise BadPacket("this is no reservation of this connection")
        if any(before.data["resources"].get(name, 0) < n for name, n in resources.items()):
            raise BadPacket("more is settled than was reserved")
        self.book.settle(lease, resources)
        self._tell()

    async def _watch(self, frames: FrameStream) -> None:
        """Tells of every change, or of several at once, until the peer is gone."""
        async with open_plain_nursery() as nursery:

            async def until_gone() -> None:
                while await frames.stream.receive_some(1024):
                    pass  # whoever watches says nothing more
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_gone)
            told = -1
            while True:
                changed = self._changed
                if told != self.book.version:
                    told = self.book.version
                    frames.post({}, self._picture())
                    await frames.flush()
                await changed.wait()

    def _renew_untrusted(self, frame: Frame) -> list[str]:
        leases = frame.head.get("leases")
        if not isinstance(leases, list) or not all(isinstance(each, str) for each in leases):
            raise BadPacket("leases are a list of texts")
        now = trio.current_time()
        return [each for each in leases if not self.book.renew(each, now)]

    def _to_hold_untrusted(self, frame: Frame, *, trusted: bool) -> Hold:
        head = frame.head
        kind = word_untrusted(head, "kind")
        if kind not in get_args(Kind):
            raise BadPacket(f"unknown kind {kind[:40]!r}")
        ttl_s = whole_untrusted(head, "ttl_ms", TTL_MS_MIN, TTL_MS_MAX) / 1000
        teardown = head.get("teardown", [])
        if (
            not isinstance(teardown, list) or len(teardown) > TEARDOWN_WORDS_MAX
            or not all(isinstance(word, str) and "\0" not in word for word in teardown)
        ):  # fmt: skip
            raise BadPacket("a teardown is a list of words, none with a zero byte in it")
        if teardown and not trusted:
            raise NotTrusted()
        data = data_untrusted(kind, head.get("data"))
        expires = None if kind == "claim" else trio.current_time() + ttl_s
        return Hold(kind, ttl_s, expires, data, teardown)  # type: ignore[arg-type]  # a Kind


def _lease_untrusted(frame: Frame) -> str | None:
    lease = word_untrusted(frame.head, "lease") if "lease" in frame.head else None
    if lease is not None and len(lease) > TEXT_MAX:
        raise BadPacket("no lease")
    return lease


def wanted_untrusted(value: object) -> list[dict[str, int]]:
    """What is to be reserved."""
    if not isinstance(value, list) or len(value) > WANTED_MAX:
        raise BadPacket("what is wanted is a short list")
    return [amounts_untrusted(each) for each in value]


def _sum(wanted: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in wanted:
        for name, amount in each.items():
            found[name] = found.get(name, 0) + amount
    return found


class NotTrusted(P4xosError):
    """A stranger asks for something that the service would run."""

    def __init__(self) -> None:
        super().__init__(
            "a teardown is taken only from the user of the service and from root; hold without one"
        )


def busy_head(error: P4xosError) -> dict[str, object]:
    """An error as the head of a frame."""
    head = error_head(error)
    if isinstance(error, Busy):
        head |= {"resource": error.resource, "free": error.free, "wanted": error.wanted}
    return head


def data_untrusted(kind: str, data: object) -> dict[str, Any]:
    """What is held, as `Hold.data` says."""
    match kind, data:
        case "implementation", {"type": type, "name": name, "parameters": dict(parameters),
                                "capacities": capacities}:  # fmt: skip
            return {
                "type": text_untrusted(type), "name": text_untrusted(name),
                "parameters": {
                    text_untrusted(key): _plain_untrusted(each) for key, each in parameters.items()
                },
                "capacities": amounts_untrusted(capacities),
            }  # fmt: skip
        case "instance", {"name": name, "address": [host, int(port)], "place": [p, h, s]}:
            address = [text_untrusted(host), integer_untrusted(port)]
            place = [text_untrusted(each) for each in (p, h, s)]
            return {"name": text_untrusted(name), "address": address, "place": place}
        case "claim", {"resources": resources}:
            return {"resources": amounts_untrusted(resources)}
    raise BadPacket(f"this is no {kind}")


def _plain_untrusted(value: object) -> str | int:
    return text_untrusted(value) if isinstance(value, str) else integer_untrusted(value)


def _trusted(stream: trio.SocketStream) -> bool:
    """Whether the peer is the user of this process, or root."""
    data = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(data)
    return user in (0, os.getuid())
