"""The proposer (docs/PROTOCOL.md, sections 5, 6 and 9): the submitting side of an application.

    submit, no session:          keep; REQUEST the OPEN of a session
    Opened with this nonce:      session = its instance; REQUEST all that was kept
    submit:                      REQUEST (session, sequence, value) to the coordinator
    Delivery of this session:    done
    not delivered in time:       REQUEST again, ever more patiently; past its deadline the caller
                                 is told that the outcome is unknown, and the value still goes on,
                                 so that the session's sequences have no hole
    Refused, session lost:       everything in flight is unknown; open a new session
    snapshot installed:          the same
    read:                        READ_INDEX, one exchange for all reads that wait when it is sent
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from p4xos import wire
from p4xos.batching import SCALAR_BELOW
from p4xos.effects import (
    COORDINATORS,
    Delivered,
    Delivery,
    Effects,
    Opened,
    Pieces,
    ReadReady,
    Refused,
    Role,
    To,
    Unknown,
)
from p4xos.envelope import (
    ENVELOPE,
    ENVELOPE_BYTES,
    fragment_requests,
    open_value,
    seal_requests,
    stamp,
)
from p4xos.errors import Overloaded
from p4xos.quorum import NO_ROUND, round_owner
from p4xos.roles.acceptor import PROPOSER_ASKS
from p4xos.roles.pace import Budget, Pace
from p4xos.roles.reads import ReadIndex
from p4xos.roles.sessions import SESSION_AHEAD
from p4xos.wire import HEADER_BYTES, Frame, Rows, Type

IN_FLIGHT_MAX = 32_768
SMOOTHING = 1 / 8
PATIENCE = 4.0
"""A value is sent again after so many times what a delivery has taken lately, on average."""
assert IN_FLIGHT_MAX <= SESSION_AHEAD // 2, "a row must take whatever a proposer has in flight"


@dataclass(frozen=True)
class ProposerTiming:
    """Seconds."""

    retry_s: float = 0.15
    retry_max_s: float = 1.0
    read_retry_s: float = 0.02
    deadline_s: float = 5.0


@dataclass(eq=False)
class _Sent:
    """Values sent in one call: tickets are consecutive from `first`."""

    first: int
    rows: Rows
    deadline: float
    sent_at: float
    retry_at: float
    tries: int = 0
    left: int = 0  # rows that have left; the others wait for room on the way
    given_up: bool = False  # its caller was told that the outcome is unknown

    @property
    def end(self) -> int:
        return self.first + len(self.rows)

    @property
    def waits(self) -> bool:
        """Whether some of it has not left yet."""
        return self.left < len(self.rows)

    @property
    def one_command(self) -> bool:
        """Whether the rows are the fragments of one command."""
        part = self.rows[:1, HEADER_BYTES : HEADER_BYTES + ENVELOPE_BYTES]
        return bool(part.view(ENVELOPE)["fragments"][0, 0] > 1)


class Proposer:
    """Submits values under a session until they are delivered, and asks for read indexes.

    A ticket names a submission: tickets count up, one for each fragment; a command's ticket is that
    of its first fragment.
    """

    def __init__(
        self,
        *,
        frame: Frame,
        acceptors: int,
        window: int,
        value_bytes: int,
        random: Callable[[], float],
        timing: ProposerTiming | None = None,
        in_flight_max: int = IN_FLIGHT_MAX,
        budget: Budget | None = None,
    ) -> None:
        """Without a session; it opens one with its first submission.

        Args:
          frame: cluster, group and this proposer's id (its learner's).
          acceptors: how many there are.
          window: the acceptors'; a command takes at most a quarter of it.
          value_bytes: largest value of an instance.
          random: uniform in [0, 1), for nonces.
          in_flight_max: values not yet delivered at most, a power of two.
          budget: of bytes on the way.
        """
        self.frame = frame
        self.session = 0  # 0: none
        self.leader_round = NO_ROUND  # the highest heard in a heartbeat: whom to ask
        self.in_flight_max = in_flight_max
        self.piece_bytes = value_bytes - ENVELOPE_BYTES
        self.command_bytes_max = self.piece_bytes * min(window // 4, in_flight_max // 2)
        self.counters = dict.fromkeys(("submitted", "resent", "gave_up", "sessions_lost"), 0)
        self._random = random
        self.timing = timing or ProposerTiming()
        self._next_ticket = 1
        self._session_base = 0  # ticket - sequence in the session
        self._unsent: deque[_Sent] = deque()  # wait for the session
        self._sent: deque[_Sent] = deque()
        self._pending = np.zeros(in_flight_max, dtype=np.bool_)  # by ticket modulo: not delivered
        self._pending_of = self._pending.data  # for one ticket
        self._in_flight = 0
        self._held_back: deque[_Sent] = deque()  # of those in `_sent`: not all of it has left
        self._pace = Pace(in_flight_max, budget)
        self._delivery_s = 0.0  # what a delivery has taken lately, smoothed
        self._nonce = 0  # of the OPEN under way; 0: none
        self._open_retry_at: float | None = None
        self._look_at: float | None = None  # no submission is due before
        self._read_index = ReadIndex(
            frame=frame, acceptors=acceptors, asks_as=PROPOSER_ASKS,
            retry_s=self.timing.read_retry_s, first_nonce=int(random() * 2**32), favours=True,
        )  # fmt: skip
        self._reads_asked: list[object] = []
        self._reads_waiting: list[object] = []
        self._read_deadline: float | None = None

    # Submitting ----------------------------------------------------------------------------------

    def submit(
        self, payloads: Sequence[bytes], now: float, effects: Effects
    ) -> list[int]:
        """Submits commands; all or none are taken.

        Returns:
          Their tickets, in order.

        Raises:
          ValueError: a command is longer than `command_bytes_max`.
          Overloaded: too much is in flight.
        """
        piece = self.piece_bytes
        pieces = [-(-len(payload) // piece) or 1 for payload in payloads]
        for payload in payloads:
            if len(payload) > self.command_bytes_max:
                raise ValueError(
                    f"a command of {len(payload)} bytes is over the limit of "
                    f"{self.command_bytes_max} bytes; split it, or raise value_bytes or window"
                )
        oldest = self._oldest()
        if self._next_ticket + sum(pieces) - oldest > self.in_flight_max:
            raise Overloaded(self._next_ticket - oldest, self.in_flight_max)
        tickets, ticket = [], self._next_ticket
        for count in pieces:
            tickets.append(ticket)
            ticket += count
        start = 0
        while start < len(payloads):  # stretches of whole commands, and each long one by itself
            stop = start + 1
            if pieces[start] == 1:
                while stop < len(payloads) and pieces[stop] == 1:
                    stop += 1
                rows = seal_requests(self.frame, 0, 0, payloads[start:stop])
            else:
                rows = fragment_requests(self.frame, 0, 0, payloads[start], piece)
            self._submit_rows(rows, now, effects)
            start = stop
        return tickets

    def submit_rows(self, rows: Rows, now: float, effects: Effects) -> int:
        """Submits REQUEST rows with room for the envelope; returns the first ticket.

        For callers that make values as arrays; see `envelope.request_rows`.
        """
        oldest = self._oldest()
        if self._next_ticket + len(rows) - oldest > self.in_flight_max:
            raise Overloaded(self._next_ticket - oldest, self.in_flight_max)
        return self._submit_rows(rows, now, effects)

    def _submit_rows(self, rows: Rows, now: float, effects: Effects) -> int:
        first = self._next_ticket
        self._next_ticket += len(rows)
        self._in_flight += len(rows)
        self.counters["submitted"] += len(rows)
        self._mark(first, first + len(rows), True)
        sent = _Sent(first, rows, now + self.timing.deadline_s, now, now + self._retry_s())
        self._look_by(sent.retry_at)
        if self.session:
            self._hold_back(sent)
            self._send_more(now, effects)
        else:
            self._unsent.append(sent)
            if not self._nonce:
                self._open(now, effects)
        return first

    def _hold_back(self, sent: _Sent) -> None:
        """Takes a call into the session; it leaves when there is room on the way."""
        self._stamp(sent)
        self._sent.append(sent)
        self._held_back.append(sent)

    def _send_more(self, now: float, effects: Effects) -> None:
        """Sends what is held back, in order, as far as there is room on the way."""
        while self._held_back:
            sent = self._held_back[0]
            count = min(self._pace.room(sent.rows.shape[1]), len(sent.rows) - sent.left)
            if not count:
                return
            first = sent.first + sent.left
            self._pace.sent(self._places(first, first + count), sent.rows.shape[1])
            effects.send.append((self._leader(), sent.rows[sent.left : sent.left + count]))
            sent.left += count
            sent.retry_at = now + self._retry_s()
            self._look_by(sent.retry_at)
            if not sent.waits:
                self._held_back.popleft()

    def slow_down(self, now: float) -> None:
        """Its learner had to ask for votes: more is on the way than its sockets hold."""
        self._pace.slow_down(now, self._delivery_s)

    @property
    def in_flight(self) -> int:
        """Values submitted and not delivered."""
        return self._in_flight

    @property
    def idle(self) -> bool:
        """Whether nothing that it was asked to do is under way."""
        return not (self._in_flight or self._reads_asked or self._reads_waiting)

    @property
    def room(self) -> int:
        """How many more values `submit` takes now."""
        return self.in_flight_max - (self._next_ticket - self._oldest())

    def _oldest(self) -> int:
        if self._sent:
            return self._sent[0].first
        return self._unsent[0].first if self._unsent else self._next_ticket

    def _places(self, first: int, end: int) -> list[slice]:
        """Where tickets [first, end), not empty, are in the ring of those pending."""
        size = self.in_flight_max
        start, stop = first & (size - 1), ((end - 1) & (size - 1)) + 1
        return [slice(start, stop)] if start < stop else [slice(start, size), slice(stop)]

    def _mark(self, first: int, end: int, pending: bool) -> None:
        if end - first == 1:
            self._pending_of[first & (self.in_flight_max - 1)] = pending
            return
        for place in self._places(first, end):
            self._pending[place] = pending

    def _count_pending(self, first: int, end: int) -> int:
        if end - first == 1:
            return int(self._pending_of[first & (self.in_flight_max - 1)])
        return sum(
            int(np.count_nonzero(self._pending[place])) for place in self._places(first, end)
        )

    def _stamp(self, sent: _Sent) -> None:
        """Writes session and sequences into the envelopes."""
        stamp(sent.rows, self.session, sent.first - self._session_base)

    def _leader(self) -> To:
        if self.leader_round == NO_ROUND:
            return COORDINATORS
        return To(Role.COORDINATOR, round_owner(self.leader_round))

    # Sessions ------------------------------------------------------------------------------------

    def _open(self, now: float, effects: Effects) -> None:
        if not self._nonce:
            self._nonce = int(self._random() * (2**63 - 1)) + 1
        self._open_retry_at = now + self.timing.retry_s
        value = open_value(self.frame.sender, self._nonce)
        request = wire.encode(
            self.frame.cluster, self.frame.group, Type.REQUEST, sender=self.frame.sender,
            value=value,
        )  # fmt: skip
        effects.send.append((COORDINATORS, request))

    def delivered(
        self, events: Sequence[Delivered], now: float, effects: Effects
    ) -> list[int | None]:
        """Takes what this proposer's learner delivered.

        Returns:
          For each event the first ticket of a delivery that was submitted here, else None.
        """
        tickets: list[int | None] = []
        for event in events:
            tickets.append(None)
            if isinstance(event, Delivery):
                if event.session == self.session:
                    tickets[-1] = event.sequence + self._session_base
                    self._done(event, now)
            elif isinstance(event, Pieces):
                if event.session == self.session:
                    first = event.sequence + self._session_base
                    self._pace.settled(self._places(first, first + event.fragments))
            elif isinstance(event, Opened):
                mine = (self.frame.sender, self._nonce)
                if self._nonce and (event.proposer, event.nonce) == mine:
                    self._opened(event.instance, now, effects)
            elif isinstance(event, Refused) and event.session == self.session:
                if event.session_lost:
                    self._lose_session(now, effects)
                else:
                    self._refused(event.sequence + self._session_base, now, effects)
        if self._held_back:
            self._send_more(now, effects)
        return tickets

    def installed(self, now: float, effects: Effects) -> None:
        """Its learner has jumped to a snapshot, over deliveries that nobody here will ever see.

        What was in flight is unknown, and an OPEN under way may have been chosen unseen, as which
        every retry of it is a duplicate: both begin anew.
        """
        self._nonce = 0
        self._open_retry_at = None
        if self.session:
            self._lose_session(now, effects)
        elif self._unsent:
            self._open(now, effects)

    def _done(self, event: Delivery, now: float) -> None:
        first = event.sequence + self._session_base
        end = first + len(event.lengths)
        if len(event.lengths) == 1:  # a command in fragments is done with all of them
            end = first + (-(-int(event.lengths[0]) // self.piece_bytes) or 1)
        self._pace.settled(self._places(first, end))
        self._forget(first, end)
        self._settle_sent(now)

    def _refused(self, ticket: int, now: float, effects: Effects) -> None:
        """A value that is never applied, or a command of which too little came in time.

        It is over, and nothing of it is sent again.
        """
        for sent in self._sent:
            if sent.first <= ticket < sent.end:
                if not sent.given_up and self._pending[ticket & (self.in_flight_max - 1)]:
                    effects.deliver.append(Unknown([ticket], None))
                end = sent.end if sent.one_command else ticket + 1
                if sent.one_command and sent.waits:  # the rest of it never leaves now
                    sent.left = len(sent.rows)
                    self._held_back.remove(sent)
                self._pace.dropped(self._places(ticket, end))
                self._forget(ticket, end)
                self._settle_sent(now)
                return

    def _forget(self, first: int, end: int) -> None:
        """These tickets are settled, one way or another."""
        self._in_flight -= self._count_pending(first, end)
        self._mark(first, end, False)

    def _settle_sent(self, now: float) -> None:
        """Lets the oldest calls go that are settled whole; each tells how long a delivery takes."""
        while self._sent and not self._count_pending(self._sent[0].first, self._sent[0].end):
            sample = now - self._sent.popleft().sent_at
            self._delivery_s += SMOOTHING * (sample - self._delivery_s)

    def _retry_s(self) -> float:
        """How long to wait before sending again: a queue in the way must not be made longer."""
        patience = max(self.timing.retry_s, PATIENCE * self._delivery_s)
        return min(patience, self.timing.retry_max_s)

    def _untold(self, sent: _Sent) -> list[int]:
        """The tickets of a call that its caller still waits for; a command in fragments has one."""
        if sent.given_up:
            return []
        mask = self.in_flight_max - 1
        tickets = [t for t in range(sent.first, sent.end) if self._pending[t & mask]]
        return tickets[:1] if sent.one_command else tickets

    def _opened(self, session: int, now: float, effects: Effects) -> None:
        self.session = session
        self._nonce = 0
        self._open_retry_at = None
        self._session_base = self._oldest() - 1
        while self._unsent:
            sent = self._unsent.popleft()
            sent.sent_at = now
            self._hold_back(sent)
        self._send_more(now, effects)

    def _lose_session(self, now: float, effects: Effects) -> None:
        self.counters["sessions_lost"] += 1
        lost = [ticket for sent in self._sent for ticket in self._untold(sent)]
        for sent in self._sent:
            self._pace.dropped(self._places(sent.first, sent.end))
            self._forget(sent.first, sent.end)
        self._sent.clear()
        self._held_back.clear()
        effects.deliver.append(Unknown(lost, self.session))
        self.session = 0
        self._open(now, effects)

    # Reads ---------------------------------------------------------------------------------------

    def read(self, token: object, now: float, effects: Effects) -> None:
        """Asks for a read index; a `ReadReady` with the token follows."""
        self._reads_waiting.append(token)
        if not self._read_index.under_way:
            self._ask_reads(now, effects)

    def _ask_reads(self, now: float, effects: Effects) -> None:
        """One exchange serves every read that arrived before it was sent; later ones wait."""
        self._reads_asked, self._reads_waiting = self._reads_waiting, []
        self._read_deadline = now + self.timing.deadline_s
        self._read_index.ask(now, effects)

    # The driver's side ---------------------------------------------------------------------------

    def step(self, rows: Rows, now: float) -> Effects:
        """Acts on HEARTBEAT and READ_INDEX_REPLY; the rest of the batch is its learner's."""
        effects = Effects.none()
        if len(rows) >= SCALAR_BELOW:  # most are others': fewer are sooner looked at one by one
            types = wire.headers(rows)["type"]
            rows = rows[(types == Type.HEARTBEAT) | (types == Type.READ_INDEX_REPLY)]
        for m in wire.messages(rows):
            if m.type == Type.HEARTBEAT:
                self._heartbeat(m.round, now, effects)
                continue
            if m.type != Type.READ_INDEX_REPLY:
                continue
            answer = self._read_index.reply(m)
            if answer is not None:
                effects.deliver.append(ReadReady(answer.highest, self._reads_asked))
                self._reads_asked = []
                self._read_deadline = None
                if self._reads_waiting:
                    self._ask_reads(now, effects)
        return effects

    def _heartbeat(self, round: int, now: float, effects: Effects) -> None:
        if round <= self.leader_round:
            return
        self.leader_round = round
        for sent in self._sent:  # the new coordinator may never have heard of what is in flight
            sent.retry_at = now
        self._look_by(now)
        if self._nonce:
            self._open(now, effects)

    def tick(self, now: float) -> Effects:
        """Retries, and gives up where a deadline has passed."""
        effects = Effects.none()
        self._read_index.tick(now, effects)
        if self._read_deadline is not None and now >= self._read_deadline:
            self._fail_reads(now, effects)
        if self._open_retry_at is not None and now >= self._open_retry_at:
            self._open(now, effects)
        if self._look_at is not None and now >= self._look_at:
            self._look_at_submissions(now, effects)
        return effects

    def _look_at_submissions(self, now: float, effects: Effects) -> None:
        self._look_at = None
        for sent in (*self._sent, *self._unsent):
            if now >= sent.deadline and not sent.given_up:
                self._give_up(sent, effects)
            if not sent.given_up:
                self._look_by(sent.deadline)
        for sent in self._sent:
            if now >= sent.retry_at:
                self._resend(sent, now, effects)
            self._look_by(sent.retry_at)

    def _look_by(self, time: float) -> None:
        if self._look_at is None or time < self._look_at:
            self._look_at = time

    def _resend(self, sent: _Sent, now: float, effects: Effects) -> None:
        missing = [self._pace.missing(p) for p in self._places(sent.first, sent.end)]
        rows = sent.rows[np.concatenate(missing)]
        sent.retry_at = now + self._retry_s()
        if len(rows):
            sent.tries += 1
            patience = self._retry_s() * 2.0 ** min(sent.tries, 10)
            sent.retry_at = now + min(patience, self.timing.retry_max_s)
            self._pace.slow_down(now, self._delivery_s)
            rows = rows[: max(self._pace.budget // rows.shape[1], 1)]  # the rest at its next time
            self.counters["resent"] += len(rows)
            effects.send.append((self._leader() if sent.tries < 2 else COORDINATORS, rows))

    def _give_up(self, sent: _Sent, effects: Effects) -> None:
        tickets = self._untold(sent)
        sent.given_up = True
        self.counters["gave_up"] += len(tickets)
        if tickets:
            effects.deliver.append(Unknown(tickets, None))

    def _fail_reads(self, now: float, effects: Effects) -> None:
        effects.deliver.append(ReadReady(None, self._reads_asked))
        self._reads_asked = []
        self._read_deadline = None
        self._read_index.stop()
        if self._reads_waiting:
            self._ask_reads(now, effects)

    def check_invariants(self) -> None:
        """Asserts what the registers' comments claim."""
        assert self._in_flight == int(np.count_nonzero(self._pending))
        assert [sent for sent in self._sent if sent.waits] == [*self._held_back]
        assert not self._held_back or self._pace.on_the_way, "nothing would ever let it leave"
        self._pace.check_invariants()

    def deadline(self) -> float | None:
        """When `tick` next matters."""
        times = (
            self._read_index.deadline(), self._read_deadline, self._open_retry_at, self._look_at,
        )  # fmt: skip
        return min([time for time in times if time is not None], default=None)
