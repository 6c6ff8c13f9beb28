"""Values on their way into the log: gathered into packs, and sent again until they are in it.

libpaxos never confirms a submit, so there is nobody to tell of an unknown outcome. The gateway is
therefore a client of the log itself (`clients`): what its proposer cannot tell the fate of goes out
again under the same number, and counts once. The library's clients number their packs themselves,
and may send them again through another gateway.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from p4xos.compat.libpaxos.clients import AHEAD
from p4xos.compat.libpaxos.packs import HEAD_BYTES, cut, pack
from p4xos.compat.libpaxos.store import PackStore, Taken
from p4xos.errors import NoQuorum, Overloaded, SessionLost
from p4xos.log import ReplicatedLog

log = logging.getLogger(__name__)

CALL_PACKS = 256
CALL_BYTES = 1 << 20
"""Of packs proposed in one call."""
QUEUE_BYTES = 4 << 20
"""Of values that wait for room in the log; clients are then not read from."""

Key = tuple[int, int]
"""A pack's client and number."""


class Owner(Protocol):
    """Whoever sent values, and is not read from while too many are under way."""

    def settled(self, count: int, request: int | None, taken: Taken) -> None:
        """So many of its values are in the log; `request` is what it called them."""
        ...


class _Submitted:
    """A pack that is not in the log yet, as far as is known here."""

    __slots__ = ("owners", "payload", "queued")

    def __init__(self, payload: bytes, owners: list[tuple[Owner, int, int | None]]) -> None:
        self.payload = payload
        self.owners = owners
        self.queued = False
        """It waits to be proposed."""


class _Gathered(NamedTuple):
    lengths: list[int]
    data: list[bytes]
    owners: list[tuple[Owner, int]]


class Submitter:
    """The packs under way through one gateway."""

    def __init__(
        self, log: ReplicatedLog, store: PackStore, counters: dict[str, int],
        wake: Callable[[], None],
    ) -> None:
        """Nothing is under way.

        Args:
          log: where it proposes.
          store: calls back when packs are in the log.
          counters: `packs_proposed`, `packs_resubmitted`, `unknown_outcomes` are counted here.
          wake: has `flush` called soon, from outside of the log's calls.
        """  # fmt: skip
        self._log = log
        self._store = store
        self._counters = counters
        self._wake = wake
        self._client = _new_client()
        self._next_number = 1
        self._own: dict[int, None] = {}  # numbers of this gateway's packs under way, oldest first
        self._under_way: dict[Key, _Submitted] = {}
        self._queue: deque[_Submitted] = deque()  # of those, not proposed
        self._queue_bytes = 0
        self._held: dict[int, list[_Submitted]] = {}  # by client: until its first pack is in
        self._gathered = _Gathered([], [], [])
        self._gathered_bytes = 0
        self._some_settled = False
        store.on_taken = self._taken
        store.on_unknown = self._unknown

    @property
    def waiting(self) -> bool:
        """Whether values wait for room in the log."""
        return bool(self._queue or self._gathered.lengths)

    @property
    def full(self) -> bool:
        """Whether so many wait that no more should be read."""
        return self._queue_bytes + self._gathered_bytes > QUEUE_BYTES

    @property
    def under_way(self) -> int:
        """Packs not yet in the log."""
        return len(self._under_way)

    @property
    def value_bytes_max(self) -> int:
        """The longest value that a pack takes."""
        return self._log.max_command_bytes - HEAD_BYTES - 4

    # From clients --------------------------------------------------------------------------------

    def gather(self, lengths: Sequence[int], data: bytes, owner: Owner) -> None:
        """Takes values of a libpaxos client; `flush` submits them with others'."""
        self._gathered.lengths.extend(lengths)
        self._gathered.data.append(data)
        self._gathered.owners.append((owner, len(lengths)))
        self._gathered_bytes += len(data)

    def submit(self, key: Key, payload: bytes, owner: Owner, request: int) -> None:
        """Takes a pack that its client numbered, perhaps not for the first time."""
        known = self._under_way.get(key)
        if known is not None:
            known.owners.append((owner, 1, request))
        elif self._store.clients.had(*key):
            owner.settled(1, request, Taken(*key, None, refused=False))
        else:
            self._put(key, _Submitted(payload, [(owner, 1, request)]))

    def flush(self) -> None:
        """Proposes what was taken, as far as the log has room."""
        if self._gathered.lengths:
            self._pack_gathered()
        while self._queue:
            some = self._next_in_queue()
            try:
                self._log.propose([submitted.payload for submitted in some])
            except Overloaded:
                self._queue.extendleft(reversed(some))
                return
            self._counters["packs_proposed"] += len(some)
            for submitted in some:
                submitted.queued = False
                self._queue_bytes -= len(submitted.payload)

    def _next_in_queue(self) -> list[_Submitted]:
        """Takes packs for one call off the queue; what has come into the log meanwhile is left."""
        some: list[_Submitted] = []
        size = 0
        while self._queue and len(some) < CALL_PACKS and size < CALL_BYTES:
            submitted = self._queue.popleft()
            if submitted.queued:
                some.append(submitted)
                size += len(submitted.payload)
        return some

    def _pack_gathered(self) -> None:
        """Packs what libpaxos clients sent, many clients' values in one."""
        gathered, self._gathered = self._gathered, _Gathered([], [], [])
        self._gathered_bytes = 0
        owners = deque(gathered.owners)
        taken = 0  # values of the pack before that belong to the first of them
        data = b"".join(gathered.data)
        first = start = 0
        for count, payloads in cut(gathered.lengths, data, self._log.max_value_bytes):
            if not self._numbers_left():
                rest = _Gathered(gathered.lengths[first:], [data[start:]], [])
                rest.owners.extend(
                    (owner, values - (taken if k == 0 else 0))
                    for k, (owner, values) in enumerate(owners)
                )
                self._gathered, self._gathered_bytes = rest, len(data) - start
                return
            submitted = _Submitted(b"", [])
            left = count
            while left:
                owner, values = owners[0]
                some = min(left, values - taken)
                submitted.owners.append((owner, some, None))
                left -= some
                taken += some
                if taken == values:
                    owners.popleft()
                    taken = 0
            start += sum(gathered.lengths[first : first + count])
            first += count
            self._put_own(payloads, submitted)

    def _numbers_left(self) -> bool:
        """Whether the next pack's number is within what the log takes of one client."""
        oldest = next(iter(self._own), self._next_number)
        return self._next_number - oldest < AHEAD

    def _put_own(self, payloads: bytes, submitted: _Submitted) -> None:
        key = self._client, self._next_number
        self._next_number += 1
        self._own[key[1]] = None
        submitted.payload = pack(*key, payloads)
        self._put(key, submitted)

    def _put(self, key: Key, submitted: _Submitted) -> None:
        client, number = key
        # The log keeps no order: the second one, chosen first, would be refused.
        first = client, 1
        if number > 1 and first in self._under_way and not self._store.clients.had(*first):
            submitted.queued = True
            self._queue_bytes += len(submitted.payload)
            self._held.setdefault(client, []).append(submitted)
        else:
            self._enqueue(submitted)
        self._under_way[key] = submitted

    def _enqueue(self, submitted: _Submitted) -> None:
        submitted.queued = True
        self._queue.append(submitted)
        self._queue_bytes += len(submitted.payload)

    def take_settled(self) -> bool:
        """Whether anything from here has come into the log since this was asked last."""
        settled, self._some_settled = self._some_settled, False
        return settled

    # From the log --------------------------------------------------------------------------------

    def _taken(self, taken: list[Taken]) -> None:
        """Packs are in the log; called inside of its calls."""
        for one in taken:
            key = one.client, one.number
            submitted = self._under_way.get(key)
            if submitted is None:
                continue
            if one.refused and one.client == self._client:
                self._renumber()
                continue
            self._some_settled = True
            self._forget(key)
            for owner, count, request in submitted.owners:
                owner.settled(count, request, one)
        if self.waiting:
            self._wake()

    def _forget(self, key: Key) -> None:
        submitted = self._under_way.pop(key)
        if key[1] == 1:
            self._queue.extend(self._held.pop(key[0], ()))
        if key[0] == self._client:
            del self._own[key[1]]
        if submitted.queued:  # it came by another gateway
            submitted.queued = False
            self._queue_bytes -= len(submitted.payload)

    def _renumber(self) -> None:
        """The log has forgotten this gateway, so none of these counts, nor ever will."""
        old, mine = self._client, list(self._own)
        log.warning("the log has forgotten this gateway; %d packs go out anew", len(mine))
        packs = [self._under_way[old, number] for number in mine]
        for number in mine:
            self._forget((old, number))
        self._client, self._next_number = _new_client(), 1
        for submitted in packs:
            self._put_own(submitted.payload[HEAD_BYTES - 4 :], submitted)
        self._counters["packs_resubmitted"] += len(mine)

    def _unknown(self, error: NoQuorum | SessionLost) -> None:
        """The proposer's; called inside of the log's calls.

        After a deadline it goes on by itself. What it had under way when it lost its session may
        be in the log or not: all of that goes out again, and the numbers see to it that it counts
        once.
        """
        self._counters["unknown_outcomes"] += 1
        if isinstance(error, NoQuorum):
            return
        for key, submitted in list(self._under_way.items()):
            if self._store.clients.had(*key):
                one = Taken(*key, None, refused=False)
                self._forget(key)
                for owner, count, request in submitted.owners:
                    owner.settled(count, request, one)
            elif not submitted.queued:
                self._counters["packs_resubmitted"] += 1
                self._enqueue(submitted)
        self._wake()


def _new_client() -> int:
    return secrets.randbits(63) + 1
