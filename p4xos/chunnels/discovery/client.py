"""What runtimes use of the discovery service; all of it works without one, on fallbacks."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import msgpack
import trio

from p4xos.chunnels.choosing import Free
from p4xos.chunnels.discovery import VERSION
from p4xos.chunnels.errors import Busy
from p4xos.chunnels.offers import amounts_untrusted, integer_untrusted, text_untrusted
from p4xos.chunnels.passes import KEY_BYTES
from p4xos.chunnels.places import Place
from p4xos.chunnels.unwrapping import open_plain_nursery
from p4xos.chunnels.view import NO_DISCOVERY, Instance, View
from p4xos.errors import BadPacket, P4xosError
from p4xos.framing import Frame, FrameStream
from p4xos.framing import integer_untrusted as whole_untrusted
from p4xos.framing import text_untrusted as word_untrusted
from p4xos.remote_errors import Refused, raise_error_untrusted

log = logging.getLogger(__name__)

PATIENCE_S = 0.5
"""How long the service may take to answer; then everything goes on without it."""
FRESH_S = 0.2
"""How old a picture may be that is used without asking again, where nobody watches."""
TRY_AGAIN_S = 0.25
TTL_S = 5.0
"""Of leases, unless their owner says otherwise."""
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, BadPacket)
"""What a service that is down, or no service, looks like."""


class Down(P4xosError):
    """The discovery service does not answer."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"no discovery service answers at {path} ({why}): start one "
            f"(p4xos discovery --socket {path}); without it fallbacks are used"
        )


class Discovery:
    """One service, as this process knows it."""

    def __init__(self, path: Path) -> None:
        """Nothing is asked yet."""
        self.path = path
        self.newest: View | None = None
        """The last picture, while somebody watches; None: there is none."""
        self.asked = 0
        """Round trips to the service."""
        self._seen: tuple[float, View] | None = None
        self._watchers = 0
        self._told_down = False

    # The picture ---------------------------------------------------------------------------------

    async def look(self, ask: Callable[[], Awaitable[View]] | None = None) -> View:
        """The newest picture; an empty one that says why where the service is down.

        Args:
          ask: how, where it must be asked; None: for the picture alone. Raises Down.
        """
        if self.newest is not None:
            return self.newest
        now = trio.current_time()
        if self._seen is not None and now - self._seen[0] < FRESH_S:
            return self._seen[1]
        try:
            view = await (ask or self.picture)()
            self._told_down = False
        except Down as error:
            view = self._nothing(error)
        self._seen = trio.current_time(), view
        return view

    async def picture(self) -> View:
        """The picture as it is now; Down where nobody answers."""
        try:
            return view_untrusted((await self.ask({"ask": "look"})).body)
        except (BadPacket, Refused) as error:
            raise Down(self.path, str(error)) from None

    def _nothing(self, error: Down) -> View:
        if not self._told_down:
            self._told_down = True
            log.warning("%s", error)
        return View(note=str(error))

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Keeps the newest picture, while the `async with` lasts."""
        async with open_plain_nursery() as nursery:
            self._watchers += 1
            try:
                first = trio.Event()
                nursery.start_soon(self._watch, first)
                with trio.move_on_after(PATIENCE_S):
                    await first.wait()
                yield
            finally:
                self._watchers -= 1
                if self._watchers == 0:
                    self.newest = None
            nursery.cancel_scope.cancel()

    async def _watch(self, first: trio.Event) -> None:
        while True:
            try:
                frames = await self.dial()
                try:
                    frames.post({"ask": "watch", "version": VERSION})
                    await frames.flush()
                    while (frame := await frames.receive_untrusted()) is not None:
                        raise_error_untrusted(frame.head)
                        self.newest = view_untrusted(frame.body)
                        self._told_down = False
                        first.set()
                finally:
                    await frames.aclose()
                why = "it has ended"
            except (*GONE, Refused) as error:
                why = str(error)
            self.newest = self._nothing(Down(self.path, why))
            first.set()
            await trio.sleep(TRY_AGAIN_S)

    # Holds ---------------------------------------------------------------------------------------

    @asynccontextmanager
    async def held(
        self,
        kind: str,
        data: Mapping[str, object],
        *,
        ttl_s: float = TTL_S,
        teardown: Sequence[str] = (),
    ) -> AsyncIterator[None]:
        """Holds something while the `async with` lasts, through restarts of the service.

        Args:
          kind: "implementation" or "instance".
          data: what is held; see `book.Hold`.
          ttl_s: how long it outlives this process, should that be killed.
          teardown: a command that the service then runs.
        """
        head: dict[str, object] = {
            "ask": "hold", "kind": kind, "ttl_ms": round(ttl_s * 1000), "data": data,
            "teardown": list(teardown),
        }  # fmt: skip
        async with open_plain_nursery() as nursery:
            first = trio.Event()
            nursery.start_soon(self._hold, head, ttl_s, first)
            with trio.move_on_after(PATIENCE_S):
                await first.wait()
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True), suppress(P4xosError):
                    if "lease" in head:
                        await self.ask({"ask": "release", "lease": head["lease"]})

    async def _hold(self, head: dict[str, object], ttl_s: float, first: trio.Event) -> None:
        while True:
            try:
                frames = await self.dial()
                try:
                    while True:
                        frame = await self.exchange(frames, head)
                        head["lease"] = word_untrusted(frame.head, "lease")
                        first.set()
                        while True:
                            await trio.sleep(ttl_s / 3)
                            renew = {"ask": "renew", "leases": [head["lease"]]}
                            if (await self.exchange(frames, renew)).head.get("lost"):
                                break  # it was too late: held anew, under the same lease
                finally:
                    await frames.aclose()
            except Refused as error:
                log.error("the discovery service does not take %s: %s", head["kind"], error)
                first.set()
                return
            except GONE as error:
                self._nothing(Down(self.path, str(error)))
                first.set()
            await trio.sleep(min(TRY_AGAIN_S, ttl_s / 3))

    # Asking --------------------------------------------------------------------------------------

    async def ask(self, head: Mapping[str, object]) -> Frame:
        """One request, on a connection of its own.

        Raises:
          Down: nobody answers.
          P4xosError: the service refuses.
        """
        with self.patiently():
            frames = await self.dial()
            try:
                return await self.exchange(frames, head)
            finally:
                await frames.aclose()

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """Down where the service is gone, or silent."""
        try:
            with trio.fail_after(PATIENCE_S):
                yield
        except trio.TooSlowError:
            raise Down(self.path, f"not within {PATIENCE_S:g} s") from None
        except GONE as error:
            raise Down(self.path, str(error)) from None

    async def dial(self) -> FrameStream:
        """A connection to the service, for several requests; GONE where there is none."""
        return FrameStream(await trio.open_unix_socket(str(self.path)))

    async def exchange(self, frames: FrameStream, head: Mapping[str, object]) -> Frame:
        """One request and its answer.

        Raises:
          P4xosError: the service refuses, and BadPacket: it is none.
        """
        self.asked += 1
        frames.post({**head, "version": VERSION})
        await frames.flush()
        frame = await frames.receive_untrusted()
        if frame is None:
            raise BadPacket("the service has ended the connection")
        if frame.head.get("error") == "Busy":
            amounts = (whole_untrusted(frame.head, key, 0, 2**62) for key in ("free", "wanted"))
            raise Busy(word_untrusted(frame.head, "resource"), *amounts)
        raise_error_untrusted(frame.head)
        return frame


class Claims:
    """The resources of one connection; held by a connection to the service, so never forgotten."""

    def __init__(self, discovery: Discovery | None) -> None:
        """Holds nothing yet."""
        self.waited = 0
        """Round trips to the service that were waited for."""
        self._discovery = discovery
        self._frames: FrameStream | None = None
        self._lease = ""
        self._reserved: Mapping[str, int] = {}

    @property
    def reserved(self) -> bool:
        """Whether something is held that is not settled."""
        return bool(self._lease)

    async def look(self, wanted: Sequence[Mapping[str, int]]) -> View:
        """The newest picture, and in the same round trip, if it takes one, a reservation.

        Args:
          wanted: what may be needed, the likeliest first; each is reserved for which there is room.
        """
        discovery = self._discovery
        if discovery is None:
            return NO_DISCOVERY

        async def ask() -> View:
            with discovery.patiently():
                self._frames = await discovery.dial()
                try:
                    self.waited += 1
                    head = {"ask": "look", "reserve": [dict(each) for each in wanted]}
                    frame = await discovery.exchange(self._frames, head)
                    self._lease = word_untrusted(frame.head, "lease")
                    self._reserved = amounts_untrusted(frame.head.get("reserved"))
                    return view_untrusted(frame.body)
                except Refused as error:
                    raise Down(discovery.path, str(error)) from None

        try:
            return await discovery.look(ask)
        finally:
            if not self._reserved:
                await self.give_back()

    async def settle(self, resources: Mapping[str, int]) -> None:
        """Gives back what is reserved beyond these; no answer is waited for."""
        lease, self._lease = self._lease, ""
        if lease and self._frames is not None and resources:
            self._frames.post(
                {"ask": "settle", "version": VERSION, "lease": lease, "resources": dict(resources)}
            )
            await self._frames.flush()
        else:
            await self.give_back()

    async def take(self, resources: Mapping[str, int]) -> None:
        """Takes resources until `give_back`; asks nobody where there are none, or all is reserved.

        Raises:
          Busy: somebody else has them, or the service that knows of them is down.
        """
        reserved = self._reserved if self._lease else {}
        if any(reserved.get(name, 0) < wanted for name, wanted in resources.items()):
            await self.give_back()
        if not resources:
            await self.give_back()
            return
        name, wanted = next(iter(sorted(resources.items())))
        if self._discovery is None:
            raise Busy(name, 0, wanted)
        head: dict[str, object] = {
            "ask": "hold", "kind": "claim", "ttl_ms": round(TTL_S * 1000),
            "data": {"resources": dict(resources)},
        }  # fmt: skip
        try:
            with trio.fail_after(PATIENCE_S):
                if self._lease:
                    await self.settle(resources)
                    return
                self.waited += 1
                self._frames = await self._discovery.dial()
                await self._discovery.exchange(self._frames, head)
        except (*GONE, trio.TooSlowError):
            raise Busy(name, 0, wanted) from None

    async def give_back(self) -> None:
        """Gives back all; the service does so too when this process is killed."""
        self._lease = ""
        if self._frames is not None:
            frames, self._frames = self._frames, None
            with trio.CancelScope(shield=True):
                await frames.aclose()


def view_untrusted(data: bytes) -> View:
    """A picture of the service; BadPacket whatever else the bytes are."""
    try:
        told = msgpack.unpackb(data, strict_map_key=False)
        return View(
            {
                (text_untrusted(type), text_untrusted(name)): dict(parameters)
                for type, name, parameters in told["registered"]
            },
            Free({text_untrusted(key): integer_untrusted(n) for key, n in told["free"].items()}),
            {
                text_untrusted(name): tuple(
                    Instance(
                        (text_untrusted(host), integer_untrusted(port)),
                        Place(*(text_untrusted(each) for each in place)),
                    )
                    for host, port, place in instances
                )
                for name, instances in told["names"].items()
            },
            key=_key_untrusted(told["key"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException) as error:
        raise BadPacket(f"no picture of a discovery service ({error})") from None


def _key_untrusted(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != KEY_BYTES:
        raise BadPacket(f"a key has {KEY_BYTES} bytes")
    return value
