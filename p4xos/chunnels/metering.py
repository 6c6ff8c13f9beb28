"""What layers carry: counted where one is called by the next, in as few calls as that takes.

Every call through a stack passes an `await` of each layer, and counting as a layer of its own would
double them. So a `Metered` counts for several layers at once:

- one that hands on what is below it as it is (`yield below`) adds nothing, and shares its counts;
- those made of two functions (`Mapped`) run within the frame that counts for what they stand on;
- any other is called by one frame, which counts for it.

What a program's connections have carried is summed by their kind, for Prometheus (`metrics`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import trio

from p4xos.chunnels.connection import RECEIVE_MANY, Mapped, Messages
from p4xos.histogram import Histogram

SAMPLE = 64
"""How long sending takes is measured once in about so many messages: a clock costs as much as all
the rest here. A power of two."""
ENDPOINTS_MAX = 64
"""Endpoints of a runtime that are counted by their names; programs may make names as they go."""
OTHERS = "(others)"
NO_FAILURE = (trio.Cancelled, trio.EndOfChannel, trio.ClosedResourceError)
"""How calls end when a connection does, at either end."""


class LayerMetrics:
    """What went through a layer, at its upper side."""

    __slots__ = ("errors", "received", "received_bytes", "seconds", "sent", "sent_bytes")

    def __init__(self, seconds: Histogram | None = None) -> None:
        self.sent = 0
        """Messages that it was given, those among them of calls that failed."""
        self.sent_bytes = 0
        """Of messages that are bytes; others have no length before a layer below writes them."""
        self.received = 0
        self.received_bytes = 0
        self.errors = 0
        """Calls that failed; one that fails at the wire does so at each layer above, too."""
        self.seconds = seconds or Histogram()
        """How long sending took, everything below included; see SAMPLE."""

    def add(self, other: LayerMetrics) -> None:
        """Counts what another one has counted; durations are the kind's from the start."""
        self.sent += other.sent
        self.sent_bytes += other.sent_bytes
        self.received += other.received
        self.received_bytes += other.received_bytes
        self.errors += other.errors

    def fail(self, error: BaseException) -> None:
        """A call of the layer has ended with an error."""
        if not isinstance(error, NO_FAILURE):
            self.errors += 1


class Metered(Messages[Any]):
    """A layer, and what it has carried."""

    def __init__(self, below: Messages[Any], metrics: LayerMetrics) -> None:
        """Made by `metered`."""
        self.below = below
        self.metrics = metrics
        self._send_many = below.send_many
        self._receive_many = below.receive_many

    @property
    def top(self) -> LayerMetrics:
        """The counts of the uppermost layer in it."""
        return self.metrics

    async def send_many(self, values: Sequence[Any]) -> None:
        """As Messages."""
        metrics = self.metrics
        if not metrics.sent & (SAMPLE - 1):
            return await self._send_timed(values)
        count = len(values)
        metrics.sent += count
        if count == 1:
            if isinstance(values[0], bytes):
                metrics.sent_bytes += len(values[0])
        else:
            metrics.sent_bytes += bytes_of(values)
        try:
            await self._send_many(values)
        except BaseException as error:
            metrics.fail(error)
            raise

    async def _send_timed(self, values: Sequence[Any]) -> None:
        """As `send_many`, with a look at the clock."""
        metrics = self.metrics
        metrics.sent += len(values)
        metrics.sent_bytes += bytes_of(values)
        began = time.perf_counter()
        try:
            await self._send_many(values)
        except BaseException as error:
            metrics.fail(error)
            raise
        metrics.seconds.observe(time.perf_counter() - began)

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[Any]:
        """As Messages."""
        metrics = self.metrics
        try:
            values = await self._receive_many(limit)
        except BaseException as error:
            metrics.fail(error)
            raise
        count = len(values)
        metrics.received += count
        if count == 1:
            if isinstance(values[0], bytes):
                metrics.received_bytes += len(values[0])
        else:
            metrics.received_bytes += bytes_of(values)
        return values

    async def aclose(self) -> None:
        """As Messages."""
        await self.below.aclose()


class Stage(NamedTuple):
    """A layer of two functions, within a `Composed`."""

    metrics: LayerMetrics
    layer: Mapped[Any, Any]


class Composed(Metered):
    """Layers of two functions on any other, run and counted in one frame."""

    def __init__(
        self, below: Messages[Any], metrics: LayerMetrics, stages: tuple[Stage, ...]
    ) -> None:
        """Made by `metered`.

        Args:
          below: the layer on which they stand.
          metrics: its counts.
          stages: the others, the lowest first.
        """
        super().__init__(below, metrics)
        self.stages = stages
        self._up = [(each.metrics, each.layer.incoming) for each in stages]
        self._down = [(each.metrics, each.layer.outgoing) for each in reversed(stages)]

    @property
    def top(self) -> LayerMetrics:
        """As Metered."""
        return self.stages[-1].metrics

    async def send_many(self, values: Sequence[Any]) -> None:
        """As Messages."""
        at = self.metrics
        if not at.sent & (SAMPLE - 1):
            return await self._send_timed(values)
        count, size, counted = len(values), bytes_of(values), values
        try:
            for at, make in self._down:
                if values is not counted:
                    count, size, counted = len(values), bytes_of(values), values
                at.sent += count
                at.sent_bytes += size
                values = make(values)
            at = self.metrics
            at.sent += len(values)
            at.sent_bytes += bytes_of(values)
            await self._send_many(values)
        except BaseException as error:
            self._fail(at, error)
            raise

    async def _send_timed(self, values: Sequence[Any]) -> None:
        """As `send_many`, with a look at the clock where each layer is given something."""
        at = self.metrics
        began: list[tuple[LayerMetrics, float]] = []
        try:
            for at, make in self._down:
                began.append((at, time.perf_counter()))
                at.sent += len(values)
                at.sent_bytes += bytes_of(values)
                values = make(values)
            at = self.metrics
            began.append((at, time.perf_counter()))
            at.sent += len(values)
            at.sent_bytes += bytes_of(values)
            await self._send_many(values)
        except BaseException as error:
            self._fail(at, error)
            raise
        now = time.perf_counter()
        for metrics, then in began:
            metrics.seconds.observe(now - then)

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[Any]:
        """As Messages."""
        at = self.metrics
        try:
            while True:
                at = self.metrics
                values = await self._receive_many(limit)
                count, size, counted = len(values), bytes_of(values), values
                at.received += count
                at.received_bytes += size
                for at, make in self._up:
                    values = make(values)
                    if values is not counted:
                        count, size, counted = len(values), bytes_of(values), values
                    at.received += count
                    at.received_bytes += size
                if values:
                    return values
        except BaseException as error:
            self._fail(at, error)
            raise

    def _fail(self, at: LayerMetrics, error: BaseException) -> None:
        """An error came out of a layer, and so of all on it."""
        for metrics, _ in self._down:
            metrics.fail(error)
            if metrics is at:
                return
        self.metrics.fail(error)


def metered(
    layer: Messages[Any], below: Messages[Any] | None, count: Callable[..., LayerMetrics]
) -> Metered:
    """A layer with its counts, in no more frames than are needed.

    Args:
      layer: what runs.
      below: what it was given to stand on, counted as well; None: it is the lowest.
      count: gives the layer its counts; or takes those that it shares, as `Meters.layer`.
    """
    if isinstance(below, Metered):
        if layer is below:
            count(shared=below.top)
            return below
        # No class of somebody's own: that may do more than its functions tell.
        if type(layer) is Mapped and layer.below is below:
            stages = below.stages if isinstance(below, Composed) else ()
            return Composed(below.below, below.metrics, (*stages, Stage(count(), layer)))
    return Metered(layer, count())


def bytes_of(values: Sequence[Any]) -> int:
    """The length of messages that are bytes; others have none."""
    if len(values) == 1:
        return len(values[0]) if isinstance(values[0], bytes) else 0
    return sum([len(value) for value in values if isinstance(value, bytes)])


class Kind(NamedTuple):
    """Whose counts are one: of all connections of an endpoint, a layer's."""

    endpoint: str
    side: str
    """"client", "server"; of a group "client", "member"."""
    layer: str
    implementation: str


class Tally:
    """What all connections of a runtime have carried, those among them that are open."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.opened: dict[tuple[str, str], int] = {}
        """Connections that have begun, by endpoint and side."""
        self.open: dict[tuple[str, str], int] = {}
        """Those of them that have not ended."""
        self._endpoints: set[str] = set()
        self._ended: dict[Kind, LayerMetrics] = {}
        self._live: dict[Kind, set[LayerMetrics]] = {}
        self._attached: list[Callable[[], tuple[Kind, LayerMetrics]]] = []
        self._events: dict[tuple[str, str], int] = {}
        self._telling: dict[int, tuple[str, Mapping[str, int]]] = {}  # by the counters' identity

    def _named(self, endpoint: str) -> str:
        if endpoint not in self._endpoints:
            if len(self._endpoints) >= ENDPOINTS_MAX:
                return OTHERS
            self._endpoints.add(endpoint)
        return endpoint

    @contextmanager
    def connection(self, endpoint: str, side: str) -> Iterator[Meters]:
        """Where the layers of a connection are counted, while it lasts."""
        named = self._named(endpoint), side
        self.opened[named] = self.opened.get(named, 0) + 1
        self.open[named] = self.open.get(named, 0) + 1
        meters = Meters(self, *named)
        try:
            yield meters
        finally:
            self.open[named] -= 1
            for kind, metrics in meters.layers:
                self._live[kind].discard(metrics)
                self._ended[kind].add(metrics)

    @contextmanager
    def telling(self, endpoint: str, *counters: Mapping[str, int]) -> Iterator[None]:
        """Tells what a server counts, while it runs and afterwards."""
        name = self._named(endpoint)
        self._telling |= {id(each): (name, each) for each in counters}
        try:
            yield
        finally:
            for each in counters:
                del self._telling[id(each)]
                _add_events(self._events, name, each)

    def attach(self, carried: Callable[[], tuple[Kind, LayerMetrics]]) -> None:
        """A layer that is counted elsewhere, for as long as this runtime is there."""
        self._attached.append(carried)

    def _begin(self, kind: Kind, metrics: LayerMetrics | None) -> LayerMetrics:
        if kind not in self._ended:
            self._ended[kind], self._live[kind] = LayerMetrics(), set()
        # A histogram a connection would be larger than all else that is kept of it.
        found = metrics or LayerMetrics(self._ended[kind].seconds)
        self._live[kind].add(found)
        return found

    def carried(self) -> dict[Kind, LayerMetrics]:
        """What each layer has carried, by kind of connection."""
        found = dict(carried() for carried in self._attached)
        for kind, ended in self._ended.items():
            found[kind] = LayerMetrics(ended.seconds)
            for each in (ended, *self._live[kind]):
                found[kind].add(each)
        return found

    def events(self) -> dict[tuple[str, str], int]:
        """What servers have counted, by endpoint and what it was."""
        found = dict(self._events)
        for name, each in self._telling.values():
            _add_events(found, name, each)
        return found


class Meters:
    """Of one connection."""

    def __init__(self, tally: Tally, endpoint: str, side: str) -> None:
        """Made by `Tally.connection`."""
        self.layers: list[tuple[Kind, LayerMetrics]] = []
        self._tally = tally
        self._endpoint = endpoint
        self._side = side

    def layer(
        self, type: str, implementation: str, shared: LayerMetrics | None = None
    ) -> LayerMetrics:
        """The counts of a layer; shared are those of the layer that it hands on."""
        kind = Kind(self._endpoint, self._side, type, implementation)
        found = self._tally._begin(kind, shared)
        self.layers.append((kind, found))
        return found


def _add_events(
    to: dict[tuple[str, str], int], endpoint: str, counters: Mapping[str, int]
) -> None:
    for event, count in counters.items():
        to[endpoint, event] = to.get((endpoint, event), 0) + count
