"""What the tables of the P4 programs are filled with, on whatever runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from switch.control.packets import host_number, mac_of
from switch.control.plan import Plan
from switch.lang import ir

GROUP = 0
"""Which of the switch's groups it is: one plane serves one."""
AUDIENCE = 1
"""The multicast group of those it tells."""
VALUE_SIZES = (8, 16, 32, 64, 128)
"""Largest values that the programs can be built for."""
WINDOW_MAX = 4096
"""Instances: in a takeover a switch is asked for one at a time, and more take seconds."""


class Entry(NamedTuple):
    """Of a table whose keys are all exact; names by their last part."""

    table: str
    keys: tuple[int, ...]
    action: str
    arguments: tuple[int, ...]


def sizes(*, value_bytes: int, window: int, acceptors: int) -> dict[str, str]:
    """What a program is built with (sizes.p4); ValueError where it cannot be."""
    if value_bytes not in VALUE_SIZES:
        known = ", ".join(map(str, VALUE_SIZES))
        raise ValueError(f"value_bytes is {value_bytes}: the P4 programs can have one of {known}")
    if window > WINDOW_MAX:
        raise ValueError(
            f"window is {window}: the P4 programs can have {WINDOW_MAX} instances at most"
        )
    return {
        "VALUE_BYTES": str(value_bytes),
        "SLOT_BITS": str(window.bit_length() - 1),
        "ACCEPTORS": str(acceptors),
    }


def endpoint(plan: Plan, incarnation: int, *, id: int | None = None) -> Entry:
    """The entry that opens the port, under the plan's id or another."""
    own = plan.frame.sender if id is None else id
    return Entry(
        "endpoint", (host_number(plan.own.host), plan.own.port), "serve",
        (GROUP, plan.frame.group, plan.frame.cluster, own, incarnation, AUDIENCE),
    )  # fmt: skip


def standing(plan: Plan) -> Iterator[Entry]:
    """All others."""
    for rid, to in enumerate(plan.told, start=1):
        address = plan.addresses[to]
        arguments = (mac_of(address), host_number(address.host), address.port)
        yield Entry("copies", (rid,), "to", arguments)
    for sender in plan.senders():
        host, port = host_number(sender.address.host), sender.address.port
        yield Entry("senders", (GROUP, host, port, sender.type, sender.id), "configured", ())


def rids(plan: Plan) -> range:
    """Of the audience's copies."""
    return range(1, len(plan.told) + 1)


def outcomes(program: ir.Program) -> Mapping[str, int]:
    """What becomes of packets, in the words of the numpy roles: cells of the counter `outcomes`."""
    return {
        name.removeprefix("OUTCOME_").lower(): index
        for name, index in program.constants.items()
        if name.startswith("OUTCOME_") and name != "OUTCOME_PASSED"
    }
