"""What a coordinator has been promised: collecting in phase 1 (docs/PROTOCOL.md, section 4).

A promise quorum is f + 1 acceptors, each *complete*: its summary is there and every vote that it
reported to have. An acceptor sends no more than one system call's worth of votes at a time, so
a longer report is asked for again, in chunks: an answer to a chunk names every instance in it, so
nothing can be missing unseen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from p4xos import wire
from p4xos.errors import BadPacket
from p4xos.quorum import majority
from p4xos.roles.acceptor import ANSWER_ROWS_MAX
from p4xos.wire import Rows, Summary

CHUNK_INSTANCES = 32
CHUNKS_AT_ONCE = 4
"""Instances of one question and questions under way for one acceptor: at the largest value an
answer is 47 KB, so an unprivileged socket buffer of 208 KB holds what is asked for at once."""


@dataclass
class Report:
    """What one acceptor has told."""

    summary: Summary
    first: int  # of the range that the summary is about
    incarnation: int  # one that forgot since is another acceptor as far as counting goes
    reported: set[int] = field(default_factory=set)
    in_chunks: bool = False  # complete only when each instance is named: a count does not do
    asked_end: int = 0  # of the chunks under way
    cursor: int = 0  # everything from the start of the range to here is reported


class Promises:
    """Collects the PHASE1B of one round, from `first` to the end of the log."""

    def __init__(
        self, *, acceptors: int, round: int, nonce: int, first: int, window: int, value_bytes: int
    ) -> None:
        self.round = round
        self.nonce = nonce  # of the question to the end of the log
        self.chunk_nonce = nonce + 1 & 0xFFFF_FFFF
        self.first = first
        self.low = first  # the largest that any acceptor has told: below it all is forgotten
        self.refused: set[int] = set()  # instances that some acceptor promised to a higher round
        self.highest_refusal = 0
        self.found_instance = np.zeros(window, dtype=np.int64)  # by slot; 0: no vote found
        self.found_vround = np.zeros(window, dtype=np.uint32)  # of the highest vote
        self.found_length = np.zeros(window, dtype=np.uint16)
        self.found_value = np.zeros((window, value_bytes), dtype=np.uint8)
        self._acceptors = acceptors
        self._window = window
        self._reports: dict[int, Report] = {}
        self._early: dict[tuple[int, int], set[int]] = {}
        """Votes that overtook their summary, by acceptor and incarnation."""
        self._uncountable: set[int] = set()  # acceptors that promised a higher round somewhere

    def add(self, rows: Rows) -> None:
        """Takes PHASE1B messages of one acceptor; those of other rounds say nothing here."""
        header = wire.headers(rows)
        acceptor = int(header["sender"][0])
        summaries = (header["vround"] == wire.NO_VOTE) & (header["length"] > 0)
        for row in np.flatnonzero(summaries):
            self._add_summary(acceptor, wire.message(rows, int(row)))
        votes = rows[~summaries]
        told_by = wire.headers(votes)["incarnation"]
        for incarnation in dict.fromkeys(told_by.tolist()):
            self._add_votes(acceptor, incarnation, votes[told_by == incarnation])

    def _add_summary(self, acceptor: int, m: wire.Message) -> None:
        try:
            summary = wire.unpack_summary(m.value, self._acceptors)
        except BadPacket:
            return
        if m.round != self.round or acceptor >= self._acceptors:
            return
        held = self._reports.get(acceptor)
        if summary.nonce == self.chunk_nonce:
            # Of a chunk: no promise of the whole log. One that has forgotten since it gave that
            # promise is asked for another; of a chunk below its window it promises nothing.
            self.low = max(self.low, m.low)
            if held is not None and m.incarnation > held.incarnation:
                del self._reports[acceptor]
            return
        if summary.nonce != self.nonce:
            return
        self.low = max(self.low, m.low)
        if held is None or m.incarnation > held.incarnation:
            early = self._early.pop((acceptor, m.incarnation), set())
            # Who is to be asked one by one has counted nothing: maybe there is nothing to ask for.
            by_name = acceptor in self._uncountable or summary.votes == wire.ASK_ONE_BY_ONE
            self._reports[acceptor] = Report(summary, m.instance, m.incarnation, early, by_name)

    def _add_votes(self, acceptor: int, incarnation: int, rows: Rows) -> None:
        """Votes that one incarnation of an acceptor reports.

        They complete a summary of that incarnation only: one that has forgotten names other
        instances than the one before it counted.
        """
        header = wire.headers(rows)
        # A value that cannot be held is not told, so that no no-op is ever proposed in its place.
        rows = rows[header["length"] <= self.found_value.shape[1]]
        header = wire.headers(rows)
        higher = header["round"] > self.round
        if higher.any():
            self.refused.update(header["instance"][higher].tolist())
            self.highest_refusal = max(self.highest_refusal, int(header["round"].max()))
            self._count_no_more(acceptor)
        told = header["instance"][header["round"] >= self.round].tolist()
        report = self._reports.get(acceptor)
        if report is not None and report.incarnation == incarnation:
            report.reported.update(told)
        else:
            self._early.setdefault((acceptor, incarnation), set()).update(told)
        voted = rows[(header["round"] == self.round) & (header["vround"] != wire.NO_VOTE)]
        for row in range(len(voted)):
            self._keep_highest(voted, row)

    def _count_no_more(self, acceptor: int) -> None:
        """A count no longer tells which of an acceptor's reports are there.

        A vote cast since it promised, told by a second answer, must not stand for one that the
        first answer counted and that was lost.
        """
        self._uncountable.add(acceptor)
        if acceptor in self._reports:
            self._reports[acceptor].in_chunks = True

    def _keep_highest(self, rows: Rows, row: int) -> None:
        m = wire.message(rows, row)
        slot = m.instance & (self._window - 1)
        held = self.found_instance[slot]
        # Two instances of one slot: the window of who voted for the larger has left the smaller one
        # behind. So `low` is above it, and it is not taken for one that nobody has voted for.
        self.low = max(self.low, m.instance - self._window + 1)
        if m.instance > held or (m.instance == held and m.vround > self.found_vround[slot]):
            self.found_instance[slot] = m.instance
            self.found_vround[slot] = m.vround
            self.found_length[slot] = m.length
            self.found_value[slot, : m.length] = np.frombuffer(m.value, np.uint8)

    @property
    def reported(self) -> int:
        """How much was told so far, by all acceptors: it grows as long as phase 1 goes on."""
        return len(self._reports) + sum(len(r.reported) for r in self._reports.values())

    def quorum(self) -> tuple[int, ...] | None:
        """A promise quorum, or None as long as there is none.

        No member's `seen` may hold a later incarnation of another member than that one shows:
        else a promise from before that acceptor forgot could be combined with one from after.
        """
        complete = [a for a in self._reports if self._complete(a)]
        for members in combinations(complete, majority(self._acceptors)):
            if all(
                self._reports[a].summary.seen[b] <= self._reports[b].incarnation
                for a in members
                for b in members
                if a != b
            ):
                return members
        return None

    def highest(self, members: tuple[int, ...]) -> int:
        """The highest instance that a member has voted in."""
        return max(self._reports[a].summary.highest for a in members)

    def found(self, instance: int) -> bytes:
        """The value of the highest vround reported for an instance, else a no-op (b"")."""
        slot = instance & (self._window - 1)
        if self.found_instance[slot] != instance:
            return b""
        return self.found_value[slot, : self.found_length[slot]].tobytes()

    def silent(self) -> list[int]:
        """Acceptors whose summary is missing."""
        return [a for a in range(self._acceptors) if a not in self._reports]

    def missing_chunks(self) -> list[tuple[int, int, int]]:
        """What to ask again: (acceptor, first, end) of chunks, at most CHUNKS_AT_ONCE for each."""
        chunks = []
        for acceptor, report in self._reports.items():
            if self._complete(acceptor):
                continue
            report.in_chunks = True
            asked = 0
            size = 1 if report.summary.votes == wire.ASK_ONE_BY_ONE else CHUNK_INSTANCES
            instance, end = max(report.cursor, self.low), report.summary.highest + 1
            while instance < end and asked < CHUNKS_AT_ONCE:
                if instance in report.reported:
                    instance += 1
                    continue
                report.asked_end = min(instance + size, end)
                chunks.append((acceptor, instance, report.asked_end))
                instance += size
                asked += 1
        return chunks

    def wants_chunks(self) -> bool:
        """Whether some acceptor has more to tell and nothing of it is under way."""
        return any(
            report.cursor >= report.asked_end
            if report.in_chunks
            else report.summary.votes > ANSWER_ROWS_MAX
            for acceptor, report in self._reports.items()
            if not self._complete(acceptor)
        )

    def _complete(self, acceptor: int) -> bool:
        report = self._reports[acceptor]
        if not report.in_chunks:
            # All that it told so far of the range it still held when it counted.
            counted = sum(instance >= report.first for instance in report.reported)
            return counted >= report.summary.votes
        report.cursor = max(report.cursor, self.low)
        while report.cursor in report.reported:
            report.cursor += 1
        return report.cursor > report.summary.highest


class InstancePromises:
    """Collects the PHASE1B of a recovery round for one instance; f + 1 equal promises decide."""

    def __init__(self, round: int, acceptors: int) -> None:
        self.round = round
        self._votes: dict[int, tuple[int, bytes]] = {}
        self._quorum = majority(acceptors)

    def add(self, m: wire.Message) -> bool:
        """Takes one vote report; True when it shows a promise above this round."""
        if m.round == self.round:
            self._votes[m.sender] = (m.vround, m.value)
        return m.round > self.round

    def decided(self) -> bytes | None:
        """The value to propose (b"" for a no-op), or None before a quorum has promised."""
        if len(self._votes) < self._quorum:
            return None
        vround, value = max(self._votes.values(), key=lambda vote: vote[0])
        return value if vround != wire.NO_VOTE else b""


assert CHUNK_INSTANCES * wire.stride_for(wire.VALUE_BYTES_MAX) <= 65_536
