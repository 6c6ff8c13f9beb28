r"""The log of a cluster that libpaxos programs use: values counted as libpaxos counts them.

Strategy. libpaxos' instances, iids, have no holes, and each holds one value; ours hold no-ops,
sessions, fragments, and packs of many values. An iid is therefore the count of values so far, which
is a function of the log: every gateway gives the same value the same iid, now and after any
restart. What must be known to go on counting, the count and which packs were had (`clients`), is
written with the position in one `WriteBatch`, goes along in every snapshot, and is never computed
anew.

A pack that is not taken (it came twice) is kept in the log as what is not delivered; so values are
read back without a look at the clients' table of their time.

    i <u64 first iid>       u64 instance: of each batch written, what is read from on for an iid
    p <u64 client>          of `clients`
    \\x00counted            u32 format, u64 position, u64 next iid
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from p4xos import checkpointed
from p4xos.compat.libpaxos.clients import Clients, Verdict
from p4xos.compat.libpaxos.packs import MARK, Pack, Values, is_newer, read_pack_untrusted
from p4xos.effects import Delivery
from p4xos.errors import NoQuorum, SessionLost, Trimmed
from p4xos.logstore import LogStore, LogStoreError

TAIL_BYTES = 8 << 20
"""Of the newest values in memory: what learners that keep up are told from."""
READ_BYTES = 256 << 10
FORMAT = 1
"""Of what is kept beside a plain log."""

_U64 = struct.Struct(">Q")
_COUNTED = struct.Struct(">IQQ")
_META_COUNTED = b"\x00counted"
_INDEX, _CLIENT = b"i", b"p"


class Taken(NamedTuple):
    """A pack as the log has it."""

    client: int
    number: int
    first: int | None
    """The iid of its first value; None where it brought none: it came twice, or is refused."""
    refused: bool


class PackStore(LogStore):
    """A plain node's log that counts libpaxos' values."""

    on_taken: Callable[[list[Taken]], None] | None = None
    """Gets the packs of each batch, in order."""
    on_unknown: Callable[[NoQuorum | SessionLost], None] | None = None
    """Gets why this node's proposer does not know what became of submissions."""

    def _load(self, *, fresh: bool) -> None:
        super()._load(fresh=fresh)
        self.next_iid = 1
        self.clients = Clients()
        self._tail: list[Values] = []
        self._tail_bytes = 0
        self._places: dict[int, int] = {}  # where readers of older values go on: iid, instance
        self._learners_hold: int | None = None
        self._peers_hold: int | None = None
        self._low_seen = self.low
        self._batch_began = 1, 1  # instance and iid: what is not written yet
        found = self._get(_META_COUNTED)
        version, position, counted = (FORMAT, 0, 1) if found is None else _COUNTED.unpack(found)
        if version != FORMAT:
            what = f"its values are counted in format {version}, this program writes {FORMAT}"
            raise LogStoreError(self.directory, f"{what}; use the program that wrote it")
        if position != self.applied:
            what = (
                f"its values are counted through instance {position}, but it goes on to "
                f"{self.applied}: a node without the libpaxos gateway wrote it"
            )
            mend = "start all nodes of a cluster with the gateway (p4xos libpaxos), from the first"
            raise LogStoreError(self.directory, f"{what}; {mend}")
        self.next_iid = counted
        try:
            self.clients = Clients(checkpointed.read(self._database, _CLIENT))
        except Exception as error:
            raise LogStoreError(self.directory, str(error)) from error
        self.low_iid = self._first_indexed()
        """The oldest value kept; `next_iid` when there is none."""

    def _first_indexed(self) -> int:
        for iid, _ in self._index(0):
            return iid
        return self.next_iid

    def _index(self, first: int) -> Iterable[tuple[int, int]]:
        """(first iid, instance) of batches, from an iid on."""
        try:
            iterator = self._database.iter()
            iterator.seek(_INDEX + _U64.pack(first))
            while iterator.valid() and iterator.key()[:1] == _INDEX:
                yield _U64.unpack(iterator.key()[1:])[0], _U64.unpack(iterator.value())[0]
                iterator.next()
            iterator.status()
        except Exception as error:
            raise LogStoreError(self.directory, str(error)) from error

    # Applying ------------------------------------------------------------------------------------

    def check(self, payloads: Sequence[bytes]) -> None:
        """Refuses what every gateway would take for a later release's, and stop at for ever.

        Raises:
          ValueError: one of them begins so.
        """
        if any(map(is_newer, payloads)):
            raise ValueError(
                f"a value begins with {MARK[:3]!r} and a digit, as packs of a later release do, "
                "which no gateway of this one may go past; submit it through a gateway, or put "
                "another byte in front"
            )

    def apply(
        self,
        deliveries: Sequence[tuple[Delivery, int | None]],
        through: int,
        learner_state: Mapping[bytes, bytes | None],
    ) -> None:
        """Counts, takes all in one piece, then tells whoever submitted or waits.

        Raises:
          LogStoreError: a write failed. The store must not be used any more.
        """
        if self._written == self.applied:
            self._batch_began = self.applied + 1, self.next_iid
        taken: list[Taken] = []
        kept: list[tuple[Delivery, int | None]] = []
        others: list[tuple[int, int]] = []  # ticket and instance of what is not kept
        for delivery, ticket in deliveries:
            start = 0
            for row, payload in enumerate(delivery.payloads()):
                if self._count(delivery.instance + row, read_pack_untrusted(payload), taken):
                    continue
                if row > start:
                    kept.append((_rows(delivery, start, row), _plus(ticket, start)))
                if ticket is not None:
                    others.append((ticket + row, delivery.instance + row))
                start = row + 1
            if not start:
                kept.append((delivery, ticket))
            elif start < len(delivery.lengths):
                kept.append((_rows(delivery, start, len(delivery.lengths)), _plus(ticket, start)))
        super().apply(kept, through, learner_state)
        for one, instance in others:
            self.submissions.delivered(one, instance, 1)
        if taken and self.on_taken is not None:
            self.on_taken(taken)

    def _count(self, instance: int, pack: Pack, taken: list[Taken]) -> bool:
        """Gives iids to a pack's values, if it is taken."""
        if pack.client:
            verdict = self.clients.take(pack.client, pack.number, instance)
            new = verdict is Verdict.NEW
            first = self.next_iid if new else None
            taken.append(Taken(pack.client, pack.number, first, verdict is Verdict.REFUSED))
            if not new:
                return False
        if pack.lengths:
            self._remember(Values(self.next_iid, pack.lengths, pack.data))
            self.next_iid = self._tail[-1].next
        return True

    def _remember(self, values: Values) -> None:
        self._tail.append(values)
        self._tail_bytes += len(values.data)
        if self._tail_bytes > TAIL_BYTES:
            # A half at once: taking the oldest off a list one by one would move all others.
            while self._tail_bytes > TAIL_BYTES // 2 and len(self._tail) > 1:
                count = max(len(self._tail) // 4, 1)
                self._tail_bytes -= sum(len(old.data) for old in self._tail[:count])
                del self._tail[:count]

    def _records(self) -> Iterable[tuple[bytes, bytes | None]]:
        began_instance, began = self._batch_began
        if self.next_iid > began:
            yield _INDEX + _U64.pack(began), _U64.pack(began_instance)
        yield _META_COUNTED, _COUNTED.pack(FORMAT, self.applied, self.next_iid)
        for key, value in self.clients.changes().items():
            yield _CLIENT + key, value
        if self.low == self._low_seen:
            return
        self._low_seen = self.low
        self._places.clear()
        self.low_iid = began  # what is written now is in a segment that is kept
        for iid, instance in self._index(0):
            if instance >= self.low:
                self.low_iid = iid
                return
            yield _INDEX + _U64.pack(iid), None

    def unknown(self, tickets: Sequence[int], error: NoQuorum | SessionLost) -> None:
        """Tells whoever submitted these, and the gateway."""
        super().unknown(tickets, error)
        if self.on_unknown is not None:
            self.on_unknown(error)

    # What is kept --------------------------------------------------------------------------------

    def hold(self, first: int | None) -> None:
        """As `Retained.hold`: a peer fetches a snapshot."""
        self._peers_hold = first
        self._hold_both()

    def hold_values(self, first: int | None) -> None:
        """Keeps values from an iid on beyond the usual bound, for a learner that asks."""
        self._learners_hold = None if first is None else self._place_of(first)
        self._hold_both()

    def _hold_both(self) -> None:
        wanted = [hold for hold in (self._peers_hold, self._learners_hold) if hold is not None]
        super().hold(min(wanted, default=None))

    # Reading -------------------------------------------------------------------------------------

    def values(self, first: int, bytes_max: int = READ_BYTES) -> list[Values]:
        """Values from an iid on, in order; none when it lies ahead.

        Args:
          first: the first iid asked for.
          bytes_max: stops behind the pack that reaches it.

        Raises:
          Trimmed: it is no longer kept.
        """
        if first >= self.next_iid:
            return []
        if self._tail and first >= self._tail[0].first:
            return self._from_tail(first, bytes_max)
        self._write_applied()  # which may drop the oldest
        if first < self.low_iid:
            raise Trimmed(first, self.low_iid)
        return self._from_disk(first, bytes_max)

    def _from_tail(self, first: int, bytes_max: int) -> list[Values]:
        at = bisect_right(self._tail, first, key=lambda values: values.first) - 1
        found = [self._tail[at].since(first)]
        size = len(found[0].data)
        while size < bytes_max and (at := at + 1) < len(self._tail):
            found.append(self._tail[at])
            size += len(found[-1].data)
        return found

    def _from_disk(self, first: int, bytes_max: int) -> list[Values]:
        iid, instance = first, self._places.pop(first, None)
        if instance is None:
            iid, instance = self._indexed(first)
        found: list[Values] = []
        size = 0
        while size < bytes_max and iid < self.next_iid:
            delivered, instance = self.delivered(instance, bytes_max)
            for _, payload in delivered:
                pack = read_pack_untrusted(payload)
                values = Values(iid, pack.lengths, pack.data)
                iid = values.next
                if pack.lengths and iid > first:
                    found.append(values.since(first))
                    size += len(pack.data)
        if len(self._places) > 1024:  # readers that left
            self._places.clear()
        self._places[iid] = instance
        return found

    def _indexed(self, iid: int) -> tuple[int, int]:
        """The batch that an iid is in: its first iid, and where it begins."""
        self._write_applied()
        try:
            iterator = self._database.iter()
            iterator.seek_for_prev(_INDEX + _U64.pack(iid))
            assert iterator.valid(), "every value that is kept is in a batch"
            assert iterator.key()[:1] == _INDEX
            return _U64.unpack(iterator.key()[1:])[0], _U64.unpack(iterator.value())[0]
        except AssertionError:
            raise
        except Exception as error:
            raise LogStoreError(self.directory, str(error)) from error

    def _place_of(self, iid: int) -> int:
        """The instance from which on values from an iid on are."""
        if iid >= self.next_iid:
            return self.applied + 1
        self._write_applied()  # which may drop the oldest: no batch is known below those that stay
        return self._indexed(max(iid, self.low_iid))[1]


def _rows(delivery: Delivery, start: int, stop: int) -> Delivery:
    """A part of a delivery of whole values."""
    return Delivery(
        delivery.instance + start, delivery.session, delivery.sequence + start,
        delivery.values[start:stop], delivery.lengths[start:stop],
    )  # fmt: skip


def _plus(ticket: int | None, rows: int) -> int | None:
    return None if ticket is None else ticket + rows
