"""What layers carry: counted right, by as few frames as that takes, and told to Prometheus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from random import Random

import pytest
import trio

from p4xos.chunnels import (
    BadMessage,
    Chunnel,
    Context,
    Mapped,
    Messages,
    Runtime,
    endpoint,
    layer,
    local_or_remote,
    mapping,
    reliable,
    serialize,
)
from p4xos.chunnels.connection import RECEIVE_MANY
from p4xos.chunnels.implementations import Functions
from p4xos.chunnels.metering import (
    ENDPOINTS_MAX,
    OTHERS,
    SAMPLE,
    Composed,
    Kind,
    LayerMetrics,
    Metered,
    Meters,
    Tally,
    metered,
)
from p4xos.chunnels.metrics import families
from p4xos.chunnels.stack import Layer
from p4xos.metrics import metrics_page
from tests.chunnels.messages import ANYWHERE, Op, Pipe, echo, elsewhere, patiently

STACK = serialize(Op) | reliable() | local_or_remote()
OP = Op("put", "a", b"1")


class Plain(Messages[bytes]):
    """A layer with methods of its own."""

    def __init__(self, below: Messages[bytes]) -> None:
        self.below = below

    async def send_many(self, values: Sequence[bytes]) -> None:
        await self.below.send_many(values)

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[bytes]:
        return await self.below.receive_many(limit)

    async def aclose(self) -> None:
        await self.below.aclose()


def mapped(below: Messages[bytes], mark: bytes = b"+") -> Mapped[bytes, bytes]:
    """Adds a byte; leaves out what comes without it."""
    return Mapped(
        below, lambda values: [mark + value for value in values],
        lambda values: [value[1:] for value in values if value[:1] == mark],
    )  # fmt: skip


def stacked(
    bottom: Messages[bytes], *layers: Callable[[Messages[bytes]], Messages[bytes]]
) -> tuple[Metered, list[LayerMetrics]]:
    """Layers from the wire up, and their counts."""
    meters = Meters(Tally(), "e", "client")
    top = metered(bottom, None, partial(meters.layer, "bottom", "x"))
    for k, make in enumerate(layers):
        top = metered(make(top), top, partial(meters.layer, str(k), "x"))
    return top, [counted for _, counted in meters.layers]


def numbers(counted: LayerMetrics) -> tuple[int, int, int, int, int]:
    each = counted
    return each.sent, each.sent_bytes, each.received, each.received_bytes, each.errors


async def test_a_layer_that_hands_on_adds_nothing_and_is_counted() -> None:
    ours, theirs = Pipe.pair()
    top, (bottom, upper) = stacked(ours, lambda below: below)
    assert type(top) is Metered
    assert top.below is ours
    await top.send(b"abc")
    await theirs.send(b"de")
    assert await top.receive() == b"de"
    assert numbers(bottom) == numbers(upper) == (1, 3, 1, 2, 0)


async def test_layers_of_functions_run_within_one_frame() -> None:
    ours, theirs = Pipe.pair()
    top, counted = stacked(ours, mapped, partial(mapped, mark=b"-"), Plain, mapped)
    assert type(top) is Composed
    assert len(top.stages) == 1
    plain = top.below
    assert isinstance(plain, Plain)
    assert isinstance(plain.below, Composed)
    assert plain.below.below is ours
    assert len(plain.below.stages) == 2
    await top.send_many([b"a", b"bc"])
    assert await theirs.receive_many() == [b"+-+a", b"+-+bc"]
    await theirs.send_many([b"+-+x", b"nonsense", b"+nonsense", b"+-+"])
    assert await top.receive_many() == [b"x", b""]
    assert [numbers(each) for each in counted] == [
        (2, 9, 4, 24, 0),  # at the wire: the mark of each layer
        (2, 7, 3, 13, 0),
        (2, 5, 2, 3, 0),
        (2, 5, 2, 3, 0),
        (2, 3, 2, 1, 0),
    ]


async def test_a_class_of_somebodys_own_keeps_its_methods() -> None:
    class Louder(Mapped[bytes, bytes]):
        async def send_many(self, values: Sequence[bytes]) -> None:
            await super().send_many([value.upper() for value in values])

    ours, theirs = Pipe.pair()
    top, _ = stacked(ours, lambda below: Louder(below, list, list))
    await top.send(b"a")
    assert await theirs.receive() == b"A"


async def test_composed_layers_are_equal_to_layers_on_one_another() -> None:
    """On random traffic, batches of any size, some of them of nothing but what is left out."""
    for seed in range(20):
        random = Random(seed)
        pipes = [Pipe.pair(), Pipe.pair()]
        marks = [bytes([random.choice(b"abc")]) for _ in range(random.randint(1, 4))]
        layers = [partial(mapped, mark=mark) for mark in marks]
        one, _ = stacked(pipes[0][0], *layers)
        other: Messages[bytes] = pipes[1][0]
        for make in layers:
            other = make(other)
        for _ in range(50):
            batch = [random.randbytes(random.randint(0, 3)) for _ in range(random.randint(1, 4))]
            prefix = b"".join(random.sample(marks, random.randint(0, len(marks))))
            back = [prefix + value for value in batch] + [b"".join(marks) + b"!"]
            for top, (_, theirs) in ((one, pipes[0]), (other, pipes[1])):
                await top.send_many(batch)
                await theirs.send_many(back)
            assert await pipes[0][1].receive_many() == await pipes[1][1].receive_many()
            limit = random.randint(1, 5)
            found: list[list[bytes]] = [[], []]
            for k, top in enumerate((one, other)):
                while not found[k] or found[k][-1] != b"!":
                    found[k] += await top.receive_many(limit)
            assert found[0] == found[1]


async def test_an_error_counts_where_it_comes_out_and_above() -> None:
    def fails(values: Sequence[bytes]) -> list[bytes]:
        raise BadMessage("word", "it is not")

    ours, theirs = Pipe.pair()
    top, counted = stacked(
        ours, mapped, lambda below: Mapped(below, list, fails), mapped, Plain
    )
    await theirs.send(b"+x")
    with pytest.raises(BadMessage):
        await top.receive()
    assert [each.errors for each in counted] == [0, 0, 1, 1, 1]
    await theirs.aclose()
    with pytest.raises(trio.EndOfChannel):  # which is no failure
        await top.receive()
    with pytest.raises(trio.BrokenResourceError):
        await top.send_many([b"a"])
    assert [each.errors for each in counted] == [1, 1, 2, 2, 2]
    assert [each.sent for each in counted] == [1] * 5


@pytest.mark.parametrize("first", [b"ab", 7])
async def test_messages_of_several_types_are_carried(first: bytes | int) -> None:
    """Counting is never what ends a connection: what has no bytes adds none."""
    mixed: list[bytes | int | str] = [first, 7, "text", b"abc"]
    stack = serialize(bytes | int | str) | local_or_remote()  # type: ignore[arg-type]  # a union
    async with (
        patiently(),
        endpoint("kv", stack).serving(echo, ANYWHERE) as address,
        endpoint("c", stack).connect(address) as connection,
    ):
        for values in (mixed, mixed[:1], [*mixed, *mixed]):
            await connection.send_many(values)
            found: list[bytes | int | str] = []
            while len(found) < len(values):
                found += await connection.receive_many()
            assert found == values
        carried = connection.metrics["serialize"]
        twos = 4 if isinstance(first, bytes) else 0
        assert carried.sent_bytes == carried.received_bytes == 3 * 3 + twos * 2


async def test_who_is_cancelled_has_not_failed() -> None:
    ours, _ = Pipe.pair()
    top, counted = stacked(ours, mapped)
    with trio.move_on_after(0):
        await top.receive()
    assert [each.errors for each in counted] == [0, 0]


async def test_some_are_timed_from_the_first_on() -> None:
    ours, _ = Pipe.pair()
    top, counted = stacked(ours, mapped, Plain)
    for sent in range(1, 2 * SAMPLE + 1):
        await top.send(b"x")
        assert {each.seconds.count for each in counted} == {1 + (sent - 1) // SAMPLE}
    above, below = counted[2].seconds, counted[0].seconds
    assert above.sum > below.sum  # what is below is part of it


# Of a runtime ------------------------------------------------------------------------------------


def samples(runtime: Runtime, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in families(runtime)
        for sample in family.samples
        if sample.name == f"p4xos_chunnel_{name}"
    }


async def test_connections_of_a_kind_are_summed_open_or_not() -> None:
    client, server = elsewhere(), Runtime()
    async with (
        patiently(),
        endpoint("kv", STACK, runtime=server).serving(echo, ANYWHERE) as address,
    ):
        for _ in range(2):
            async with endpoint("c", STACK, runtime=client).connect(address) as connection:
                for _ in range(3):
                    await connection.send(OP)
                    assert await connection.receive() == OP
                assert samples(client, "connections") == {("c", "client"): 1}
                wire = connection.metrics["transport"]
        messages = samples(client, "messages_total")
        for kind in (("serialize", "msgpack"), ("reliable", "window")):
            assert messages["c", "client", *kind, "sent"] == 6
            assert messages["c", "client", *kind, "received"] == 6
        assert messages["c", "client", "transport", "udp", "sent"] >= wire.sent + 3
        sizes = samples(client, "bytes_total")
        assert sizes["c", "client", "reliable", "window", "sent"] > 6 * len(b"putverbkeyvalue")
        assert ("c", "client", "serialize", "msgpack", "sent") not in sizes  # no bytes yet
        assert samples(client, "connections") == {("c", "client"): 0}
        assert samples(client, "connections_opened_total") == {("c", "client"): 2}
        assert samples(client, "send_seconds_count")["c", "client", "serialize", "msgpack"] == 2
        assert samples(client, "errors_total")["c", "client", "serialize", "msgpack"] == 0
        theirs = samples(server, "messages_total")
        assert theirs["kv", "server", "serialize", "msgpack", "received"] == 6
        assert samples(server, "server_events_total")["kv", "offers"] == 2
        assert samples(server, "events_total")["bad_messages",] == 0
    assert samples(server, "server_events_total")["kv", "offers"] == 2  # it has ended
    page = metrics_page([lambda: families(server)])()
    assert b'p4xos_chunnel_server_events_total{endpoint="kv",event="offers"} 2.0' in page.body


async def test_names_that_a_program_makes_up_stay_bounded() -> None:
    runtime = Runtime()
    for k in range(3 * ENDPOINTS_MAX):
        with runtime.tally.connection(f"client {k}", "client") as meters:
            meters.layer("serialize", "msgpack").sent += 1
    found = runtime.tally.carried()
    assert len(found) == ENDPOINTS_MAX + 1
    assert found[Kind(OTHERS, "client", "serialize", "msgpack")].sent == 2 * ENDPOINTS_MAX
    assert len(runtime.tally.opened) == ENDPOINTS_MAX + 1


@pytest.mark.parametrize("meter", [True, False])
async def test_an_initialised_layer_may_use_what_is_below_it(meter: bool) -> None:
    """Before it yields its functions, which then run with those of its neighbours."""
    runtime = Runtime(meter=meter)

    @runtime.implementation("greeting", "g")
    @asynccontextmanager
    async def greeting(below: Messages[bytes], context: Context) -> AsyncIterator[Messages[bytes]]:
        await below.send(b"hello")
        assert await below.receive() == b"hello"
        yield Mapped(below, list, list)

    @mapping("reversed", "r")
    def reverse(layer: Layer) -> Functions:
        def backwards(values: Sequence[bytes]) -> list[bytes]:
            return [value[::-1] for value in values]

        return backwards, backwards

    runtime.register(reverse)
    upper: Chunnel[bytes, bytes] = layer("reversed")
    lower: Chunnel[bytes, bytes] = layer("greeting")
    stack = upper | lower | local_or_remote()
    async with (
        patiently(),
        endpoint("kv", stack, runtime=runtime).serving(echo, ANYWHERE) as address,
        endpoint("c", stack, runtime=runtime).connect(address) as connection,
    ):
        await connection.send(b"abc")
        assert await connection.receive() == b"abc"
        if meter:
            assert isinstance(connection._top, Composed)
            assert connection.metrics["transport"].sent == 2
            assert connection.metrics["reversed"].sent == 1
        else:
            assert not connection.metrics
