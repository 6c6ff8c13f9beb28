"""The optimizer: what it does to stacks, and that the result does the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from p4xos.chunnels import Chunnel, Runtime, Scope, datagrams, endpoint, layer, mapping
from p4xos.chunnels.choosing import Choice, Chosen
from p4xos.chunnels.implementations import Functions, Implementation
from p4xos.chunnels.levels import Level
from p4xos.chunnels.optimizing import optimize
from p4xos.chunnels.stack import Layer
from tests.chunnels.messages import ANYWHERE, echo, patiently


def each(change: Callable[[bytes], bytes], back: Callable[[bytes], bytes]) -> Any:
    def functions(layer: Layer) -> Functions:
        def outgoing(values: Sequence[bytes]) -> list[bytes]:
            return [change(value) for value in values]

        def incoming(values: Sequence[bytes]) -> list[bytes]:
            return [back(value) for value in values]

        return outgoing, incoming

    return functions


def flip(value: bytes) -> bytes:
    return bytes(byte ^ 0x5A for byte in value)


def turn(value: bytes) -> bytes:
    return value[::-1]


def turned_and_flipped(value: bytes) -> bytes:
    return bytes(byte ^ 0x5A for byte in reversed(value))


NIC = Scope.HOST
# As in the paper's section 6: the card can encrypt and do TCP, and in between stands software.
encrypt = mapping("encrypt", "card", scope=NIC, commutes=frozenset({"http"}))(each(flip, flip))
http = mapping("http", "software", commutes=frozenset({"encrypt"}))(
    each(lambda v: b"H" + v, lambda v: v[1:])
)
tcp = mapping(
    "tcp", "card", scope=NIC, provides={"order": "fifo", "loss": "none"}
)(each(turn, turn))
tls = mapping("tls", "card", scope=NIC, merges=("encrypt", "tcp"))(
    each(turned_and_flipped, turned_and_flipped)
)
ordered = mapping("ordered", "software", removable=True, provides={"order": "fifo"})(
    each(lambda v: v, lambda v: v)
)
ALL = (encrypt, http, tcp, tls, ordered)
KNOWN = {(own.type, own.name): own for own in ALL}
MERGING = (("card", ("encrypt", "tcp")),)


def chosen(*owns: Implementation, ends: str = "both ends") -> Choice:
    return Choice(
        0, 0,
        tuple(
            Chosen(own.type, own.name, own.name, own.provides, "", ends, own.scope) for own in owns
        ),
    )  # fmt: skip


def types(choice: Choice) -> list[str]:
    return [layer.type for layer in choice.layers]


def test_the_papers_example_is_reordered_and_merged() -> None:
    better, notes = optimize(chosen(encrypt, http, tcp), KNOWN, MERGING)
    assert types(better) == ["http", "tls"]
    assert better.layers[1].merged == ("encrypt", "tcp")
    assert notes == (
        "reordered to http | encrypt | tcp: 1 steps between places instead of 3",
        "encrypt | tcp run as one: tls (card)",
    )


def test_without_a_common_merger_it_is_only_reordered() -> None:
    better, notes = optimize(chosen(encrypt, http, tcp), KNOWN)
    assert types(better) == ["http", "encrypt", "tcp"]
    assert len(notes) == 1


def test_what_a_stronger_layer_provides_is_left_out() -> None:
    better, notes = optimize(chosen(ordered, tcp), KNOWN)
    assert types(better) == ["tcp"]
    assert notes == ("ordered is left out: tcp provides as much",)


def test_a_layer_stays_that_adds_something_or_is_no_weaker_below() -> None:
    weaker = dict[str, Level]({"order": "none"})
    below = chosen(ordered, tcp)
    below = below._replace(
        layers=(below.layers[0], below.layers[1]._replace(levels=weaker))
    )
    assert types(optimize(below, KNOWN)[0]) == ["ordered", "tcp"]
    assert types(optimize(chosen(tcp, ordered), KNOWN)[0]) == ["tcp", "ordered"]


def test_only_what_declares_it_at_both_layers_changes_places() -> None:
    stubborn = mapping("http", "software")(each(lambda v: v, lambda v: v))
    known = {**KNOWN, ("http", "software"): stubborn}
    assert types(optimize(chosen(encrypt, stubborn, tcp), known)[0]) == ["encrypt", "http", "tcp"]
    assert types(optimize(chosen(encrypt, http, tcp), {})[0]) == ["encrypt", "http", "tcp"]


def test_an_order_that_is_no_better_stays() -> None:
    stack = chosen(http, encrypt, tcp)
    assert optimize(stack, KNOWN) == (stack, ())


def test_layers_of_one_end_are_never_merged() -> None:
    alone = chosen(encrypt, tcp)
    alone = alone._replace(
        layers=tuple(layer._replace(server=None) for layer in alone.layers)
    )
    assert types(optimize(alone, KNOWN, MERGING)[0]) == ["encrypt", "tcp"]


# The same on random traffic ----------------------------------------------------------------------


async def exchanged(stack: Chunnel[bytes, bytes], messages: list[bytes], *, optimizing: bool) -> (
    tuple[list[bytes], list[bytes], tuple[str, ...], list[str]]
):  # fmt: skip
    """What a server saw, what came back, what was done to the stack, and what is left of it."""
    runtime = Runtime(optimize=optimizing)
    runtime.register(*ALL)
    seen: list[bytes] = []

    async def handler(connection: Any) -> None:
        async for message in connection:
            seen.append(message)
            await connection.send(message)

    lowest = stack | datagrams()
    async with (
        patiently(),
        endpoint("s", lowest, runtime=runtime).serving(handler, ANYWHERE) as address,
        endpoint("c", lowest, runtime=runtime).connect(address) as connection,
    ):
        back = []
        for message in messages:
            await connection.send(message)
            back.append(await connection.receive())
        told = connection.explain()
        return seen, back, told.notes, [layer.type for layer in told.layers]


@pytest.mark.parametrize("seed", range(8))
async def test_an_optimized_stack_does_what_the_plain_one_does(seed: int) -> None:
    random = Random(seed)
    names = ["encrypt", "http", "tcp", "ordered"]
    random.shuffle(names)
    stack: Chunnel[bytes, bytes] = layer(names[0])
    for name in names[1 : random.randint(2, 4)]:
        below: Chunnel[bytes, bytes] = layer(name)
        stack = stack | below
    messages = [random.randbytes(random.randint(0, 300)) for _ in range(40)]
    plain = await exchanged(stack, messages, optimizing=False)
    better = await exchanged(stack, messages, optimizing=True)
    assert plain[:2] == better[:2] == (messages, messages)
    assert plain[2] == ()
    assert (better[2] == ()) == (better[3] == plain[3])


async def test_a_merged_layer_speaks_as_its_parts_did() -> None:
    """What stands on the wire is the same: the card does what two layers of software would."""
    upper: Chunnel[bytes, bytes] = layer("encrypt")
    lower: Chunnel[bytes, bytes] = layer("tcp")
    messages = [b"abc", b"", b"x" * 100]
    _, back, notes, left = await exchanged(upper | lower, messages, optimizing=True)
    assert back == messages
    assert left == ["tls", "transport"]
    assert notes == ("encrypt | tcp run as one: tls (card)",)


async def test_ends_that_do_not_both_optimize_still_agree() -> None:
    """The server decides, and the client follows."""
    plain, better = Runtime(optimize=False), Runtime()
    upper: Chunnel[bytes, bytes] = layer("encrypt")
    stack = upper | datagrams()
    for runtime in (plain, better):
        runtime.register(*ALL)
    async with (
        patiently(),
        endpoint("s", stack, runtime=better).serving(echo, ANYWHERE) as address,
        endpoint("c", stack, runtime=plain).connect(address) as connection,
    ):
        await connection.send(b"x")
        assert await connection.receive() == b"x"


