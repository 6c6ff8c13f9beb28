"""Packs, and the table of who has sent which."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p4xos.compat.libpaxos import clients as clients_module
from p4xos.compat.libpaxos.clients import AHEAD, Clients, Verdict
from p4xos.compat.libpaxos.packs import (
    HEAD_BYTES,
    Values,
    cut,
    joined,
    pack,
    read_pack_untrusted,
    read_payloads_untrusted,
    total,
)
from p4xos.packing import pack_payloads

unhurried = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A test is no measurement: this machine may do much else."""

some_values = st.lists(st.binary(max_size=50), max_size=40)


@unhurried
@given(some_values, st.integers(1, 2**64 - 1), st.integers(1, 2**64 - 1))
def test_a_pack_is_read_back(values: list[bytes], client: int, number: int) -> None:
    found = read_pack_untrusted(pack(client, number, pack_payloads(values)))
    assert (found.client, found.number) == (client, number)
    if values:
        told = Values(5, found.lengths, found.data)
        assert [value for _, value in told.each()] == values
    assert read_payloads_untrusted(pack_payloads(values)) == len(values)


@unhurried
@given(st.binary(max_size=80), st.sampled_from([b"", b"LPX1", pack(1, 1, b"\x00\x00\x00\x01")]))
def test_what_is_no_pack_is_one_value(data: bytes, head: bytes) -> None:
    """The same on all gateways, whatever it is: nobody may stop at it."""
    found = read_pack_untrusted(head + data)
    if not found.client:
        assert found.lengths == len(head + data).to_bytes(4)
        assert found.data == head + data
    else:
        assert total(found.lengths) == len(found.data)


@unhurried
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=60), st.integers(40, 300))
def test_cutting_fills_packs_and_loses_nothing(values: list[bytes], bytes_max: int) -> None:
    parts = list(cut([len(value) for value in values], b"".join(values), bytes_max))
    assert sum(count for count, _ in parts) == len(values)
    start = 0
    for count, payloads in parts:
        assert payloads == pack_payloads(values[start : start + count])
        assert len(pack(1, 1, payloads)) <= bytes_max or count == 1
        if start + count < len(values):  # the next one would not have fitted
            more = pack_payloads(values[start : start + count + 1])
            assert HEAD_BYTES - 4 + len(more) > bytes_max
        start += count


@unhurried
@given(st.lists(st.lists(st.binary(max_size=9), min_size=1, max_size=9), min_size=1, max_size=9),
       st.data())
def test_parts_of_values(packs: list[list[bytes]], data: st.DataObject) -> None:
    first, found = 7, []
    for one in packs:
        lengths = read_pack_untrusted(pack(1, 1, pack_payloads(one))).lengths
        found.append(Values(first, lengths, b"".join(one)))
        first += len(one)
    whole = joined(found)
    pairs = list(enumerate([value for one in packs for value in one], 7))
    assert list(whole.each()) == pairs
    at = data.draw(st.integers(7, first - 1))
    assert list(whole.since(at).each()) == pairs[at - 7 :]
    assert list(whole.before(at + 1).each()) == pairs[: at - 6]


class Model:
    """The table as its docstring says it, one client at a time, all numbers remembered."""

    def __init__(self, clients_max: int) -> None:
        self.had: dict[int, set[int]] = {}
        self.clients_max = clients_max

    def take(self, client: int, number: int) -> Verdict:
        had = self.had.pop(client, None)
        if had is None:
            if number != 1:
                return Verdict.REFUSED
            if len(self.had) == self.clients_max:
                del self.had[next(iter(self.had))]
            had = set()
        self.had[client] = had
        through = 0
        while through + 1 in had:
            through += 1
        if number > through + AHEAD:
            return Verdict.REFUSED
        if number in had:
            return Verdict.REPEATED
        had.add(number)
        return Verdict.NEW


@unhurried
@given(st.lists(st.tuples(
    st.integers(1, 5), st.integers(1, 6) | st.sampled_from([AHEAD, AHEAD + 1, AHEAD + 2])
), max_size=60), st.integers(0, 60))
def test_clients_are_those_of_the_model_and_survive_a_restart(
    sent: list[tuple[int, int]], restart: int
) -> None:
    before = clients_module.CLIENTS_MAX
    clients_module.CLIENTS_MAX = 3
    try:
        model, clients, kept = Model(3), Clients(), dict[bytes, bytes]()
        for instance, (client, number) in enumerate(sent):
            if instance == restart:
                clients = Clients(kept)
            assert clients.take(client, number, instance) is model.take(client, number)
            assert clients.had(client, number) == (number in model.had.get(client, ()))
            for key, value in clients.changes().items():
                if value is None:
                    kept.pop(key, None)
                else:
                    kept[key] = value
            assert len(kept) == len(clients) == len(model.had)
    finally:
        clients_module.CLIENTS_MAX = before
