"""What the gateway does with what it cannot know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from p4xos.compat.libpaxos.clients import AHEAD, Clients, Verdict
from p4xos.compat.libpaxos.gateway import COUNTERS
from p4xos.compat.libpaxos.packs import Values, read_pack_untrusted
from p4xos.compat.libpaxos.store import PackStore, Taken
from p4xos.compat.libpaxos.submitting import Submitter
from p4xos.errors import NoQuorum, Overloaded, SessionLost
from p4xos.log import ReplicatedLog


class Fake:
    """A log and its store, which take what the test lets through."""

    max_value_bytes = 100
    max_command_bytes = 1 << 16

    def __init__(self) -> None:
        self.clients = Clients()
        self.proposed: list[bytes] = []
        self.room = 1 << 30
        self.values: list[bytes] = []
        self.instance = 0

    def propose(self, values: Sequence[bytes]) -> list[int]:
        if len(values) > self.room:
            raise Overloaded(0, self.room)
        self.room -= len(values)
        self.proposed += values
        return list(range(len(values)))

    def deliver(self, submitter: Submitter, *packs: bytes) -> None:
        taken = []
        for payload in packs:
            self.instance += 1
            pack = read_pack_untrusted(payload)
            verdict = self.clients.take(pack.client, pack.number, self.instance)
            first = len(self.values) + 1 if verdict is Verdict.NEW else None
            taken.append(Taken(pack.client, pack.number, first, verdict is Verdict.REFUSED))
            if first is not None:
                for _, value in Values(first, pack.lengths, pack.data).each():
                    self.values.append(value)
        submitter._taken(taken)


class Sender:
    def __init__(self) -> None:
        self.settled_count = 0
        self.answers: list[tuple[int | None, Taken]] = []

    def settled(self, count: int, request: int | None, taken: Taken) -> None:
        self.settled_count += count
        if request is not None:
            self.answers.append((request, taken))


def new() -> tuple[Fake, Submitter]:
    fake = Fake()
    counters = dict.fromkeys(COUNTERS, 0)
    log, store = cast("ReplicatedLog", fake), cast("PackStore", fake)
    return fake, Submitter(log, store, counters, lambda: None)


def gather(submitter: Submitter, sender: Sender, *values: bytes) -> None:
    submitter.gather([len(value) for value in values], b"".join(values), sender)


def test_many_clients_values_share_packs_and_each_is_told_of_its_own() -> None:
    fake, submitter = new()
    senders = [Sender() for _ in range(7)]
    for k, sender in enumerate(senders):
        gather(submitter, sender, *(b"%d-%d" % (k, j) * 3 for j in range(k + 1)))
    submitter.flush()
    fake.deliver(submitter, *fake.proposed)
    submitter.flush()
    assert 1 < len(fake.proposed) < 10
    fake.deliver(submitter, *fake.proposed[1:])
    assert [sender.settled_count for sender in senders] == list(range(1, 8))
    assert fake.values == [b"%d-%d" % (k, j) * 3 for k in range(7) for j in range(k + 1)]
    assert submitter.under_way == 0


def test_a_lost_session_loses_and_doubles_nothing() -> None:
    """Some of it is in the log already, and was told; some is, and was not; some is not."""
    fake, submitter = new()
    sender = Sender()
    for k in range(5):
        gather(submitter, sender, b"%d" % k)
        submitter.flush()
        if not k:
            fake.deliver(submitter, fake.proposed[0])
    _, unseen, *lost = first = list(fake.proposed)
    fake.clients.take(*read_pack_untrusted(unseen)[:2], 99)  # a snapshot brought it
    submitter._unknown(NoQuorum(None, 5.0))
    assert submitter.under_way == 4
    submitter._unknown(SessionLost(1))
    assert submitter.under_way == 3
    submitter.flush()
    assert fake.proposed == [*first, *lost]
    fake.deliver(submitter, lost[0], *lost, *lost)
    assert fake.values == [b"0", b"2", b"3", b"4"]
    assert sender.settled_count == 5
    assert submitter.under_way == 0


def test_no_more_is_under_way_than_the_log_takes_of_one_client() -> None:
    fake, submitter = new()
    sender = Sender()
    for k in range(AHEAD + 10):
        gather(submitter, sender, b"%d" % k)
        submitter.flush()
        if not k:
            fake.deliver(submitter, fake.proposed[0])
    assert len(fake.proposed) == AHEAD + 1
    assert submitter.waiting
    fake.deliver(submitter, *fake.proposed[2:])
    submitter.flush()
    assert len(fake.proposed) == AHEAD + 1
    fake.deliver(submitter, fake.proposed[1])
    submitter.flush()
    fake.deliver(submitter, *fake.proposed[AHEAD + 1 :])
    assert sorted(fake.values) == sorted(b"%d" % k for k in range(AHEAD + 10))
    assert sender.settled_count == AHEAD + 10
    assert not submitter.waiting


def test_nothing_of_a_client_overtakes_its_first_pack() -> None:
    """Chosen first, the second one would be refused, and then go out again beside itself."""
    fake, submitter = new()
    sender = Sender()
    for k in range(3):
        gather(submitter, sender, b"%d" % k)
        submitter.flush()
    assert len(fake.proposed) == 1
    submitter._unknown(SessionLost(1))
    submitter.flush()
    assert len(fake.proposed) == 2
    fake.deliver(submitter, *fake.proposed)
    submitter.flush()
    assert len(fake.proposed) == 4
    fake.deliver(submitter, *reversed(fake.proposed))
    assert sorted(fake.values) == [b"0", b"1", b"2"]
    assert sender.settled_count == 3


def test_an_overloaded_log_is_asked_again_in_order() -> None:
    fake, submitter = new()
    sender = Sender()
    fake.room = 0
    gather(submitter, sender, *(b"%d" % k * 40 for k in range(9)))
    submitter.flush()
    submitter.flush()
    assert fake.proposed == []
    assert submitter.waiting
    fake.room = 1 << 30
    submitter.flush()
    fake.deliver(submitter, *fake.proposed)
    submitter.flush()
    fake.deliver(submitter, *fake.proposed[1:])
    assert fake.values == [b"%d" % k * 40 for k in range(9)]


def test_a_gateway_that_the_log_has_forgotten_begins_anew() -> None:
    fake, submitter = new()
    sender = Sender()
    gather(submitter, sender, b"a")
    submitter.flush()
    fake.deliver(submitter, fake.proposed[0])
    fake.clients = Clients()
    gather(submitter, sender, b"b")
    submitter.flush()
    fake.deliver(submitter, fake.proposed[1])
    assert fake.values == [b"a"]
    submitter.flush()
    fake.deliver(submitter, fake.proposed[2])
    assert fake.values == [b"a", b"b"]
    assert sender.settled_count == 2


def test_a_client_that_numbers_its_packs_may_send_them_again() -> None:
    fake, submitter = new()
    sender, later = Sender(), Sender()
    body = (1).to_bytes(4) + (1).to_bytes(4) + b"v"
    payload = b"LPX1" + (9).to_bytes(8) + (1).to_bytes(8) + body
    submitter.submit((9, 1), payload, sender, 3)
    submitter.submit((9, 1), payload, later, 4)
    submitter.flush()
    assert fake.proposed == [payload]
    fake.deliver(submitter, payload, payload)
    submitter.submit((9, 1), payload, later, 5)
    assert sender.answers == [(3, Taken(9, 1, 1, False))]
    assert later.answers == [(4, Taken(9, 1, 1, False)), (5, Taken(9, 1, None, False))]
