"""Pairs of stacks, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import make_dataclass
from typing import Any

import pytest

from p4xos.chunnels import (
    Chunnel,
    Ends,
    NoAgreement,
    Runtime,
    Scope,
    anycast,
    datagrams,
    implementation,
    layer,
    local_or_remote,
    reliable,
    select,
    serialize,
    shard,
)
from p4xos.chunnels.builtin import IMPLEMENTATIONS
from p4xos.chunnels.choosing import Candidate, Choice, Free, choose
from p4xos.chunnels.implementations import Implementation
from p4xos.chunnels.offers import pack, unpack_untrusted
from p4xos.chunnels.view import View
from tests.chunnels.messages import Op

Stack = Chunnel[Any, Any] | None


def unused(*arguments: Any) -> Any:
    raise AssertionError("nothing is run here")


def made(type: str, name: str, **declared: Any) -> Implementation:
    return implementation(type, name, **declared)(unused)


EXTRA = (
    made("log", "here", ends=Ends.EITHER),
    made("audit", "server", ends=Ends.SERVER),
    made("mark", "client", ends=Ends.CLIENT),
    made("crypt", "soft", priority=1),
    made("crypt", "card", priority=9, scope=Scope.HOST, resources={"card.slots": 1}),
    made("crypt", "far", priority=20, scope=Scope.LOCAL_NETWORK),
    made("kept", "only-registered", when_registered=True, priority=9),
    made("kept", "fallback"),
)


def op_like(**fields: type) -> type:
    return make_dataclass("Op", list(fields.items()))


def agree(
    client: Stack,
    server: Stack,
    *,
    host: str = "same",
    process: bool = False,
    free: Free | None = None,
    view: View | None = None,
    **more: Any,
) -> Choice:
    """As two ends do it, through the bytes of their offers."""
    ends = []
    for stack, name in ((client, "c"), (server, "s")):
        runtime = Runtime(builtin=False)  # whatever else is installed here
        runtime.register(*IMPLEMENTATIONS, *EXTRA)
        runtime.place = runtime.place._replace(
            process="one" if process else name, host="h" if host == "same" else name
        )
        nodes = None if stack is None else stack.nodes
        ends.append(unpack_untrusted(pack(runtime.offer(nodes, view or View()))))
    return choose(*ends, free=free, **more)


def told(choice: Choice) -> str:
    return " | ".join(
        f"{each.type}:{each.client or '-'}/{each.server or '-'}" for each in choice.layers
    )


def of(type: str) -> Chunnel[Any, Any]:
    return layer(type)


def sharded(targets: Sequence[Any] = (), *, by: Any) -> Chunnel[bytes, bytes]:
    """Shards of messages that are bytes, to stand right above datagrams."""
    return shard(bytes, targets, by=by)


SERIAL = "serialize:msgpack/msgpack"
PAIRS: list[tuple[str, Stack, Stack, dict[str, Any], str]] = [
    # name, client, server, how, what comes of it: layers, or the layer that stops it and why
    ("equal", serialize(Op) | local_or_remote(), serialize(Op) | local_or_remote(), {},
     f"{SERIAL} | transport:unix/unix"),
    ("one process", local_or_remote(), local_or_remote(), {"process": True},
     "transport:memory/memory"),
    ("two hosts", local_or_remote(), local_or_remote(), {"host": "other"}, "transport:udp/udp"),
    ("client takes datagrams only", datagrams(), local_or_remote(), {}, "transport:udp/udp"),
    ("server takes datagrams only", local_or_remote(), datagrams(), {"process": True},
     "transport:udp/udp"),
    ("host only, apart", local_or_remote().at(Scope.HOST), local_or_remote(), {"host": "other"},
     "transport! runs in scope global, beyond host"),
    ("host only, together", local_or_remote(), local_or_remote().at(Scope.HOST), {},
     "transport:unix/unix"),
    ("application only, on one host", local_or_remote().at(Scope.APPLICATION), local_or_remote(),
     {}, "transport! further apart than one application"),
    ("codec of the client", serialize(Op).require(codec="json") | datagrams(),
     serialize(Op) | datagrams(), {}, "serialize:json/json | transport:udp/udp"),
    ("codecs that differ", serialize(Op).require(codec="json") | datagrams(),
     serialize(Op).require(codec="msgpack") | datagrams(), {}, "serialize! codec=json is required"),
    ("schemas that differ", serialize(Op) | datagrams(),
     serialize(op_like(verb=str)) | datagrams(), {}, "serialize! schema is"),
    ("schemas of one shape", serialize(Op) | datagrams(),
     serialize(op_like(verb=str, key=str, value=bytes)) | datagrams(), {},
     f"{SERIAL} | transport:udp/udp"),
    ("empty client", None, serialize(Op) | reliable() | datagrams(), {},
     f"{SERIAL} | reliable:window/window | transport:udp/udp"),
    ("layer that the server lacks", reliable() | datagrams(), datagrams(), {},
     "reliable! the server does not have it"),
    ("layer that the client lacks", datagrams(), reliable() | datagrams(), {},
     "reliable! the client does not have it"),
    ("unknown layer", of("warp") | datagrams(), of("warp") | datagrams(), {},
     "warp! the client offers no implementation"),
    ("more than it provides", reliable().require(order="total") | datagrams(),
     reliable() | datagrams(), {}, "reliable! order=total is required and it provides fifo"),
    ("as much as it provides", reliable().require(order="fifo") | datagrams(),
     reliable() | datagrams(), {}, "reliable:window/window | transport:udp/udp"),
    ("either end: the client's", of("log") | datagrams(), datagrams(), {},
     "log:here/- | transport:udp/udp"),
    ("either end: the server's", datagrams(), of("log") | datagrams(), {},
     "log:-/here | transport:udp/udp"),
    ("either end: the client's first", of("log") | datagrams(), of("log") | datagrams(), {},
     "log:here/- | transport:udp/udp"),
    ("server alone", datagrams(), of("audit") | datagrams(), {},
     "audit:-/server | transport:udp/udp"),
    ("server alone, asked by the client", of("audit") | datagrams(), datagrams(), {},
     "audit! the server does not have it"),
    ("client alone", of("mark") | datagrams(), datagrams(), {},
     "mark:client/- | transport:udp/udp"),
    ("anycast is the client's", serialize(Op) | anycast() | datagrams(),
     serialize(Op) | datagrams(), {}, f"{SERIAL} | anycast:discovery/- | transport:udp/udp"),
    ("priority", of("crypt") | datagrams(), of("crypt") | datagrams(), {},
     "crypt:far/far | transport:udp/udp"),
    ("scope before priority, nothing free", of("crypt").at(Scope.HOST) | datagrams(),
     of("crypt") | datagrams(), {}, "crypt:soft/soft | transport:udp/udp"),
    ("scope before priority, one free", of("crypt").at(Scope.HOST) | datagrams(),
     of("crypt") | datagrams(), {"free": Free({"card.slots": 1})},
     "crypt:card/card | transport:udp/udp"),
    ("not registered", of("kept") | datagrams(), of("kept") | datagrams(), {},
     "kept:fallback/fallback | transport:udp/udp"),
    ("registered", of("kept") | datagrams(), of("kept") | datagrams(),
     {"view": View({("kept", "only-registered"): {}})},
     "kept:only-registered/only-registered | transport:udp/udp"),
    ("select: the first that both have", select(of("warp"), reliable()) | datagrams(),
     reliable() | datagrams(), {}, "reliable:window/window | transport:udp/udp"),
    ("select at the server", reliable() | datagrams(),
     select(of("crypt"), reliable()) | datagrams(), {},
     "reliable:window/window | transport:udp/udp"),
    ("push by a field", None, sharded([("h", 1)], by="key") | datagrams(), {},
     "shard:push/- | transport:udp/udp"),
    ("relay by a function", None, sharded([("h", 1)], by=lambda op: op.key) | datagrams(), {},
     "shard:-/relay | transport:udp/udp"),
    ("relay for who does not shard", datagrams(), sharded([("h", 1)], by="key") | datagrams(), {},
     "shard:-/relay | transport:udp/udp"),
    ("relay where keys differ", sharded(by="verb") | datagrams(),
     sharded([("h", 1)], by="key") | datagrams(), {}, "shard:-/relay | transport:udp/udp"),
    ("relay where shards are called", None, sharded([unused], by="key") | datagrams(), {},
     "shard:-/relay | transport:udp/udp"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("client", "server", "how", "outcome"),
    [pair[1:] for pair in PAIRS],
    ids=[pair[0] for pair in PAIRS],
)
def test_two_stacks(client: Stack, server: Stack, how: dict[str, Any], outcome: str) -> None:
    if "!" not in outcome:
        assert told(agree(client, server, **how)) == outcome
        return
    named, why = outcome.split("! ")
    with pytest.raises(NoAgreement) as raised:
        agree(client, server, **how)
    assert raised.value.layer == named
    assert why in str(raised.value)


def test_the_table_is_long_enough() -> None:
    assert len(PAIRS) >= 20


def test_equal_functions_of_two_programs_push() -> None:
    mine, yours = (lambda op: op.key for _ in range(2))
    client = sharded(by=mine) | datagrams()
    server = sharded([("h", 1)], by=yours) | datagrams()
    assert told(agree(client, server)).startswith("shard:push/-")


def test_a_failure_tells_what_each_end_offers_and_what_to_do() -> None:
    with pytest.raises(NoAgreement) as raised:
        agree(serialize(Op).require(codec="json") | datagrams(), datagrams())
    said = str(raised.value)
    assert said.startswith("layer serialize: the client offers msgpack [both] (codec=msgpack), ")
    assert "and requires codec=json" in said
    assert "the server does not have it" in said
    assert said.endswith("or register one that runs at one end alone")


def test_the_policy_chooses_and_forbids() -> None:
    def slowest(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        return sorted(candidates, key=lambda each: each.priority)

    stack = local_or_remote()
    assert told(agree(stack, stack, process=True, policy=slowest)) == "transport:udp/udp"
    with pytest.raises(NoAgreement, match="the policy forbids it"):
        agree(stack, stack, policy=lambda candidates: [])


def test_why_is_told_of_the_choice_too() -> None:
    (chosen,) = agree(local_or_remote(), local_or_remote()).layers
    assert chosen.reason == (
        "priority 20; also possible: udp (10); "
        "not memory (both ends): the ends are further apart than one application"
    )
