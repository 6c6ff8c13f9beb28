"""Exactly once, and whole: sessions and fragments (docs/PROTOCOL.md, sections 2 and 5).

A session's id is the instance that chose its OPEN. A value carries (session, sequence); a row
holds what has been delivered: everything up to `through`, and intervals above it. A retried value
that is chosen twice is delivered once, on every learner alike, because the table is a function of
the log. Eviction is by instance, never by clock.

    OPEN, same proposer and nonce as a living session:  nothing (a retried OPEN)
    OPEN:                                               drop the proposer's session; row(instance)
    value, no row:                                      Refused, session lost
    value, sequence delivered before:                   nothing
    value, sequence > through + SESSION_AHEAD:          Refused
    fragment k of n:                                    keep; the last missing one delivers all
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from p4xos.batching import SCALAR_BELOW, split_where_changes
from p4xos.effects import Chosen, Delivered, Delivery, Opened, Pieces, Refused
from p4xos.envelope import (
    ENVELOPE,
    ENVELOPE_BYTES,
    OPEN_SESSION,
    UNPACK_ENVELOPE,
    open_envelope,
    proposer_of_open,
)
from p4xos.wire import Rows, alike

SESSION_AHEAD = 65_536
"""Sequences above `through` that a row takes: the bound on its intervals."""
MAX_SEQUENCE = 1 << 63
SESSIONS_MAX = 4_096
HALF_RECEIVED_BYTES = 64 << 20
"""Of fragments whose command is not complete; above it the command begun first is dropped."""


class SequenceSet:
    """The sequences delivered: all up to `through`, and disjoint intervals above."""

    def __init__(self, through: int = 0, ahead: list[tuple[int, int]] | None = None) -> None:
        self.through = through
        self.ahead = ahead or []  # sorted [start, stop) pairs, start > through + 1, none touching

    def take(self, first: int, stop: int) -> list[tuple[int, int]]:
        """Adds [first, stop); returns the parts that are new, in order."""
        if first == self.through + 1 and not self.ahead:
            self.through = stop - 1
            return [(first, stop)]
        fresh, start = [], max(first, self.through + 1)
        for held_start, held_stop in self.ahead:
            if held_start >= stop:
                break
            if start < held_start:
                fresh.append((start, held_start))
            start = max(start, held_stop)
        if start < stop:
            fresh.append((start, stop))
        for part in fresh:
            self._insert(*part)
        return fresh

    def acceptable(self, first: int, count: int) -> int:
        """How many of consecutive sequences are within SESSION_AHEAD, were they taken one by one.

        Never a question of how the log was cut into stretches, or learners would differ: a
        stretch that begins at or below through + 1 moves `through` along with itself.
        """
        if first <= self.through + 1:
            return count
        return max(0, min(count, self.through + SESSION_AHEAD + 1 - first))

    def untouched(self, first: int, stop: int) -> bool:
        """Whether nothing of [first, stop) was taken."""
        return first > self.through and not any(
            start < stop and first < end for start, end in self.ahead
        )

    def _insert(self, start: int, stop: int) -> None:
        where = bisect_right(self.ahead, (start, stop))
        if where < len(self.ahead) and self.ahead[where][0] == stop:
            stop = self.ahead.pop(where)[1]
        if where and self.ahead[where - 1][1] == start:
            where -= 1
            start = self.ahead.pop(where)[0]
        if start == self.through + 1:
            self.through = stop - 1
        else:
            self.ahead.insert(where, (start, stop))


@dataclass
class _Session:
    proposer: int
    nonce: int
    last_used: int  # the instance of its last value; the smallest is evicted first
    delivered: SequenceSet = field(default_factory=SequenceSet)


PieceKey = tuple[int, int, int]
"""Of a record of pieces: session, first sequence of the command, number of the record."""
PieceRecords = Mapping[PieceKey, list[tuple[int, bytes]]]
SessionState = tuple[list[Any], PieceRecords]
"""What `Sessions.load` takes."""


@dataclass
class _HalfReceived:
    first_instance: int
    fragments: int
    pieces: dict[int, bytes] = field(default_factory=dict)
    records: int = 0  # in which its pieces were given out, numbered from 0; see `piece_changes`
    fresh: list[int] = field(default_factory=list)  # fragments that are in none of them


class Sessions:
    """The table, from chosen values to deliveries."""

    def __init__(self, *, fragments_max: int, counters: dict[str, int]) -> None:
        """Empty.

        Args:
          fragments_max: of one command; a quarter of the window.
          counters: where duplicates and refusals are counted.
        """
        self.counters = counters
        self.counters.update(
            dict.fromkeys(("duplicates", "refused", "malformed_value", "half_received_evicted"), 0)
        )
        self._fragments_max = fragments_max
        self._sessions: dict[int, _Session] = {}
        self._half_received: dict[tuple[int, int], _HalfReceived] = {}
        self._half_received_bytes = 0
        self._grown: set[tuple[int, int]] = set()  # half-received commands with fresh pieces
        self._stale: list[PieceKey] = []  # records whose command is complete, or given up

    def __len__(self) -> int:
        return len(self._sessions)

    def deliver(self, chosen: Chosen) -> list[Delivered]:
        """What a stretch of chosen values delivers, in order."""
        out: list[Delivered] = []
        if chosen.values.shape[1] < ENVELOPE_BYTES:  # no-ops and nothing else that is well-formed
            self.counters["malformed_value"] += int((chosen.lengths > 0).sum())
            return out
        for start, stop in self._runs(chosen):
            if chosen.lengths[start] == 0:
                continue
            self._deliver_run(chosen, start, stop, out)
        return out

    def _runs(self, chosen: Chosen) -> list[tuple[int, int]]:
        """Stretches of one session in sequence, of whole commands or of fragments of one command.

        The rest one by one.
        """
        if len(chosen.lengths) < SCALAR_BELOW:
            return _runs_one_by_one(chosen)
        envelope = _envelopes(chosen.values)
        if _one_run(chosen, envelope):
            return [(0, len(chosen.lengths))]
        session = envelope["session"]
        # Equal along a run: the session, and the sequence less its position.
        key = envelope["sequence"].astype(np.uint64) - np.arange(len(session), dtype=np.uint64)
        together = (key[1:] == key[:-1]) & (session[1:] == session[:-1])
        well = (chosen.lengths >= ENVELOPE_BYTES) & (session != OPEN_SESSION)
        together &= well[1:] & well[:-1] & (envelope["sequence"][1:] != 0)  # 64 bits wrap
        fragment = envelope["fragment"].astype(np.int64)
        fragments = envelope["fragments"]
        whole = (fragments == 1) & (fragment == 0)
        of_one_command = (fragments[1:] == fragments[:-1]) & (fragment[1:] == fragment[:-1] + 1)
        together &= (whole[1:] & whole[:-1]) | (of_one_command & (fragments[1:] > 1))
        run = np.concatenate(([0], np.cumsum(~together)))
        return split_where_changes(run)

    def _deliver_run(self, chosen: Chosen, start: int, stop: int, out: list[Delivered]) -> None:
        length = int(chosen.lengths[start])
        head = open_envelope(chosen.values[start, :ENVELOPE_BYTES].tobytes())
        instance = chosen.instance + start
        if head is None or length < ENVELOPE_BYTES:
            self.counters["malformed_value"] += 1
            return
        if head.session == OPEN_SESSION:
            self._open(instance, head.sequence, _value(chosen, start), out)
            return
        count = stop - start
        row = self._sessions.get(head.session)
        in_pieces = (head.fragment, head.fragments) != (0, 1)
        if in_pieces and count > 1:
            if row is None or not self._deliver_command(chosen, row, start, stop, out):
                for k in range(start, stop):
                    self._deliver_run(chosen, k, k + 1, out)
            return
        taken = 0 if row is None else row.delivered.acceptable(head.sequence, count)
        if row is not None and taken:
            row.last_used = instance + taken - 1
            if in_pieces:
                self._deliver_fragment(instance, row, _value(chosen, start), out)
            else:
                self._deliver_whole(chosen, row, start, start + taken, out)
        self.counters["refused"] += count - taken
        out.extend(
            Refused(instance + k, head.session, head.sequence + k, row is None)
            for k in range(taken, count)
        )

    def _deliver_whole(
        self, chosen: Chosen, row: _Session, start: int, stop: int, out: list[Delivered]
    ) -> None:
        """Whole commands of one session, consecutive sequences: those not delivered before."""
        head = open_envelope(chosen.values[start, :ENVELOPE_BYTES].tobytes())
        assert head is not None
        instance = chosen.instance + start
        fresh = row.delivered.take(head.sequence, head.sequence + stop - start)
        self.counters["duplicates"] += stop - start - sum(b - a for a, b in fresh)
        for first, end in fresh:
            offset = first - head.sequence
            part = slice(start + offset, start + offset + end - first)
            out.append(
                Delivery(
                    instance + offset,
                    head.session,
                    first,
                    chosen.values[part, ENVELOPE_BYTES:],
                    chosen.lengths[part] - ENVELOPE_BYTES,
                )
            )

    def _open(self, instance: int, nonce: int, value: bytes, out: list[Delivered]) -> None:
        proposer = proposer_of_open(value)
        if proposer is None:
            self.counters["malformed_value"] += 1
            return
        for held, row in list(self._sessions.items()):
            if row.proposer == proposer:
                if row.nonce == nonce:
                    self.counters["duplicates"] += 1
                    return
                self._drop(held)
        if len(self._sessions) >= SESSIONS_MAX:
            self._drop(min(self._sessions, key=lambda s: (self._sessions[s].last_used, s)))
        self._sessions[instance] = _Session(proposer, nonce, instance)
        out.append(Opened(instance, proposer, nonce))

    def _drop(self, session: int) -> None:
        del self._sessions[session]
        for key in [key for key in self._half_received if key[0] == session]:
            self._forget(key)

    def _deliver_command(
        self, chosen: Chosen, row: _Session, start: int, stop: int, out: list[Delivered]
    ) -> bool:
        """Consecutive fragments, delivered at once when they are all of one command; else False.

        What comes of it must not depend on how a learner cut the log, so this is done only where
        one by one each would have been taken, and nothing evicted.
        """
        head = open_envelope(chosen.values[start, :ENVELOPE_BYTES].tobytes())
        assert head is not None
        count = stop - start
        size = int(chosen.lengths[start:stop].sum())
        if (
            (head.fragment, head.fragments) != (0, count)
            or count > self._fragments_max
            or row.delivered.acceptable(head.sequence, count) < count
            or not row.delivered.untouched(head.sequence, head.sequence + count)
            or (head.session, head.sequence) in self._half_received
            or self._half_received_bytes + size > HALF_RECEIVED_BYTES
        ):
            return False
        row.delivered.take(head.sequence, head.sequence + count)
        row.last_used = instance = chosen.instance + stop - 1
        parts = [_value(chosen, k)[ENVELOPE_BYTES:] for k in range(start, stop)]
        out.append(_joined(instance, head.session, head.sequence, parts))
        return True

    def _deliver_fragment(
        self, instance: int, row: _Session, value: bytes, out: list[Delivered]
    ) -> None:
        head = open_envelope(value)
        assert head is not None
        base = head.sequence - head.fragment
        key = (head.session, base)
        held = self._half_received.get(key)
        possible = head.fragment < head.fragments <= self._fragments_max and base >= 1
        if not possible or (held is not None and held.fragments != head.fragments):
            self.counters["malformed_value"] += 1
            return
        if not row.delivered.take(head.sequence, head.sequence + 1):
            self.counters["duplicates"] += 1
            return
        if held is None:
            held = self._half_received[key] = _HalfReceived(instance, head.fragments)
        held.pieces[head.fragment] = value[ENVELOPE_BYTES:]
        held.fresh.append(head.fragment)
        self._grown.add(key)
        self._half_received_bytes += len(value) - ENVELOPE_BYTES
        if len(held.pieces) == held.fragments:
            parts = [held.pieces[k] for k in range(held.fragments)]
            self._forget(key)
            out.append(_joined(instance, *key, parts))
        else:
            _add_piece(out, Pieces(instance, head.session, head.sequence, 1))
        while self._half_received_bytes > HALF_RECEIVED_BYTES:
            oldest = min(
                self._half_received, key=lambda k: (self._half_received[k].first_instance, k)
            )
            # Taken, all of it: a fragment that comes later is a duplicate, never a new beginning.
            session, base = oldest
            evicted = self._half_received[oldest]
            self._sessions[session].delivered.take(base, base + evicted.fragments)
            self._forget(oldest)
            self.counters["half_received_evicted"] += 1
            out.append(Refused(instance, *oldest, False))

    def _forget(self, key: tuple[int, int]) -> None:
        held = self._half_received.pop(key)
        self._grown.discard(key)
        self._stale += [(*key, record) for record in range(held.records)]
        self._half_received_bytes -= sum(map(len, held.pieces.values()))

    def piece_changes(self) -> list[tuple[PieceKey, list[tuple[int, bytes]] | None]]:
        """What half-received commands gained and lost since the last call, for whoever keeps them.

        A long command arrives in many batches: written whole with each, its pieces would be
        written over and over, so each batch adds a record of what is new.

        Returns:
          Keys of records with the fragments and pieces that they hold; None: the record goes.
        """
        changes: list[tuple[PieceKey, list[tuple[int, bytes]] | None]] = [
            (key, None) for key in self._stale
        ]
        self._stale = []
        for key in sorted(self._grown):
            held = self._half_received[key]
            changes.append(((*key, held.records), [(k, held.pieces[k]) for k in held.fresh]))
            held.records += 1
            held.fresh = []
        self._grown.clear()
        return changes

    def table(self) -> list[Any]:
        """The table without pieces, as lists and ints: with those, it is the whole state."""
        sessions = [
            [key, row.proposer, row.nonce, row.last_used, row.delivered.through,
             [list(interval) for interval in row.delivered.ahead]]
            for key, row in self._sessions.items()
        ]  # fmt: skip
        halves = [
            [*key, held.first_instance, held.fragments, held.records]
            for key, held in self._half_received.items()
        ]
        return [sessions, halves]

    def load(self, table: list[Any], records: PieceRecords) -> None:
        """The inverse of `table`, taken behind the `piece_changes` that led to these records."""
        sessions, halves = table
        self._sessions = {
            key: _Session(
                proposer, nonce, last_used, SequenceSet(through, [(a, b) for a, b in ahead])
            )
            for key, proposer, nonce, last_used, through, ahead in sessions
        }
        self._half_received = {
            (session, base): _HalfReceived(
                first,
                fragments,
                {k: piece for n in range(count) for k, piece in records[session, base, n]},
                count,
            )
            for session, base, first, fragments, count in halves
        }
        self._grown.clear()
        self._stale = []
        self._half_received_bytes = sum(
            len(piece) for held in self._half_received.values() for piece in held.pieces.values()
        )


def _runs_one_by_one(chosen: Chosen) -> list[tuple[int, int]]:
    """The same runs of a few values, for which a numpy call costs more than an envelope."""
    data = chosen.values.reshape(-1).data
    width = chosen.values.shape[1]
    runs: list[tuple[int, int]] = []
    start, last, last_well = 0, None, False
    for row, length in enumerate(chosen.lengths.tolist()):
        head = UNPACK_ENVELOPE(data, row * width)
        session, sequence, fragment, fragments = head
        well = length >= ENVELOPE_BYTES and session != OPEN_SESSION
        if last is not None:
            in_sequence = last[0] == session and last[1] + 1 == sequence
            whole = (fragment, fragments) == (0, 1) == last[2:]
            of_one_command = fragments == last[3] > 1 and fragment == last[2] + 1
            if not (well and last_well and in_sequence and (whole or of_one_command)):
                runs.append((start, row))
                start = row
        last, last_well = head, well
    runs.append((start, len(chosen.lengths)))
    return runs


def _add_piece(out: list[Delivered], piece: Pieces) -> None:
    """Appends a piece, or lengthens the last one by it."""
    last = out[-1] if out else None
    if (
        isinstance(last, Pieces)
        and last.session == piece.session
        and last.sequence + last.fragments == piece.sequence
    ):
        out[-1] = last._replace(fragments=last.fragments + 1)
    else:
        out.append(piece)


def _value(chosen: Chosen, row: int) -> bytes:
    return chosen.values[row, : int(chosen.lengths[row])].tobytes()


def _joined(instance: int, session: int, sequence: int, parts: list[bytes]) -> Delivery:
    """The delivery of a command that travelled in fragments."""
    payload = b"".join(parts)
    values = np.frombuffer(payload, np.uint8).reshape(1, -1)
    return Delivery(instance, session, sequence, values, np.array([len(payload)]))


def _one_run(chosen: Chosen, envelope: NDArray[np.void]) -> bool:
    """Whether all are whole commands of one session in sequence: the busy case, told by bytes."""
    count = len(chosen.lengths)
    session, sequence, fragment, fragments = envelope[0].tolist()
    if (fragment, fragments) != (0, 1) or session == OPEN_SESSION:
        return False
    if sequence + count > MAX_SEQUENCE:
        return False
    word = chosen.values[:, :ENVELOPE_BYTES].view(np.uint64)
    expected = np.arange(sequence, sequence + count, dtype=np.uint64).astype(">u8").tobytes()
    return (
        int(chosen.lengths.min()) >= ENVELOPE_BYTES
        and alike(word[:, 0])
        and alike(word[:, 2])
        and word[:, 1].tobytes() == expected
    )


def _envelopes(values: Rows) -> NDArray[np.void]:
    """(n, width) values as (n,) ENVELOPE, a view."""
    return values[:, :ENVELOPE_BYTES].view(ENVELOPE)[:, 0]
