"""What `reliable(ordered=False)` does where messages of one connection go to several servers.

A state machine without clock or socket, as `window` is: exactly once, each message by itself and in
any order. A message is a datagram and has a number; whoever gets it tells that it has it. So a
program on the way may give each message to another server: none of them needs to see the others'.

    0  u8   kind: MESSAGE, ACK (carries nothing)
    1  u8   origin: who has numbered the message, or of an ACK what it acknowledges
    2  u64  number of the message, from 1; of an ACK 0
    10 u64  low: all messages of this origin below have arrived
    18 u64  life: of a MESSAGE its origin's, of an ACK that of what it acknowledges
    26 u8   how many acknowledgements follow
    27 u64  for each of them a number that has arrived; then the message

Client and server are origin 0; one of several servers behind one address has a number of its own
(`ORIGINS_MAX` at most), and the client's acknowledgements say which one they are for. A client
acknowledges in datagrams of their own, since a message of its goes to whoever is to have it. One
that is started again begins with number 1, in a later life: what is of an earlier one is forgotten.

Sender: a message is sent again when nothing was heard of it for the retransmission time, which
follows the measured round trips (RFC 6298) and doubles for each message by itself: one server that
is down holds up only what is for it. The window grows while nothing is lost and shrinks when
something is. Receiver: what it has seen it remembers until `low` has passed it.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from p4xos.chunnels.window import (
    ACK_DELAY_S,
    FIRST_WINDOW,
    GIVE_UP_S,
    LEAST_WINDOW,
    MOST_TIMEOUT_S,
    QUEUE_BYTES_MAX,
    UNREAD_BYTES_MAX,
    RoundTrip,
)
from p4xos.errors import BadPacket

MESSAGE, ACK = 1, 2
HEADER = struct.Struct(">BBQQQB")
NUMBER = struct.Struct(">Q")
MESSAGE_BYTES_MAX = 60_000
"""A message is one datagram."""
WINDOW_MESSAGES = 1024
"""On the way at most."""
SPAN_MESSAGES = 8192
"""Between the oldest that has not arrived and the newest: what a receiver remembers."""
ACKS_MAX = 16
"""Of one datagram with a message; a program that looks behind them has a bound."""
ACKS_ALONE_MAX = 128
"""Of a datagram without one."""
ORIGINS_MAX = 65
assert WINDOW_MESSAGES <= SPAN_MESSAGES


class Seen(NamedTuple):
    """The head of a datagram, for who stands on the way."""

    kind: int
    origin: int
    number: int
    message: bytes


def seen_untrusted(datagram: bytes) -> Seen:
    """What stands in a datagram; BadPacket where it is none of these."""
    if len(datagram) < HEADER.size:
        raise BadPacket("too short")
    kind, origin, number, _, _, count = HEADER.unpack_from(datagram)
    at = HEADER.size + count * NUMBER.size
    if kind not in (MESSAGE, ACK) or len(datagram) < at:
        raise BadPacket("neither a message nor an acknowledgement")
    return Seen(kind, origin, number, datagram[at:])


def acknowledgement_untrusted(datagram: bytes) -> bytes:
    """A datagram that says that a message has arrived; BadPacket where it is none."""
    seen = seen_untrusted(datagram)
    if seen.kind != MESSAGE:
        raise BadPacket("nothing to acknowledge")
    life = HEADER.unpack_from(datagram)[4]
    return HEADER.pack(ACK, seen.origin, 0, 0, life, 1) + NUMBER.pack(seen.number)


class _Sent:
    """A message on its way."""

    __slots__ = ("again", "due", "message", "since")

    def __init__(self, message: bytes, now: float, due: float) -> None:
        self.message = message
        self.since = now
        self.due = due
        self.again = 0


class _Heard:
    """What has arrived of one origin."""

    __slots__ = ("acks", "life", "low", "numbers")

    def __init__(self, life: int) -> None:
        self.life = life
        self.low = 1
        self.numbers: set[int] = set()
        self.acks: deque[int] = deque()


class Singly:
    """One end: what it has written and not seen arrive, and what has arrived and is not read."""

    def __init__(self, origin: int = 0, life: int = 0, *, client: bool = False) -> None:
        """Nothing was written or received.

        Args:
          origin: of what this end writes.
          life: higher than that of any other before it at the same origin.
          client: whether acknowledgements travel by themselves.
        """
        self.counters = dict.fromkeys(
            ("messages", "retransmissions", "timeouts", "duplicates", "malformed", "beyond",
             "stale"), 0,
        )  # fmt: skip
        self.finished = False
        """Never: the connection below tells its end, once all has arrived."""
        self.failure: str | None = None
        self.unread: deque[bytes] = deque()
        """Messages as they arrived, for whoever reads; tell `took` of what was taken."""
        self._unread_bytes = 0
        self._origin = origin
        self._life = life
        self._client = client
        # Sending
        self._queue: deque[bytes] = deque()
        self._queue_bytes = 0
        self._next = 1
        self._sent: dict[int, _Sent] = {}  # by number, the oldest first
        self._window = FIRST_WINDOW
        self._round_trip = RoundTrip()
        self._due: float | None = None  # never later than the first of `_sent`
        self._progress_at = 0.0
        self._shrunk_at = 0  # losses below this number are of one event
        # Receiving
        self._heard: dict[int, _Heard] = {}
        self._owed = 0
        self._ack_at: float | None = None

    # Sending -------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether who writes should wait."""
        return self._queue_bytes >= QUEUE_BYTES_MAX

    @property
    def idle(self) -> bool:
        """Whether all that was written has arrived."""
        return not self._queue and not self._sent

    def write(self, messages: Iterable[bytes]) -> None:
        """Messages to send.

        Raises:
          ValueError: one is too long; nothing was written.
        """
        taken = list(messages)
        for message in taken:
            if len(message) > MESSAGE_BYTES_MAX:
                raise ValueError(
                    f"a message has {len(message)} bytes and a datagram holds {MESSAGE_BYTES_MAX}; "
                    "ask for reliable() with order, which divides them, or divide it"
                )
        self._queue.extend(taken)
        self._queue_bytes += sum(map(len, taken))

    def finish(self) -> None:
        """Nothing more is written; what was is still on its way."""

    @property
    def _low(self) -> int:
        return next(iter(self._sent), self._next)

    def transmit(self, now: float) -> list[bytes]:
        """Datagrams to send now."""
        if self.failure is not None:
            self._due = self._ack_at = None
            return []
        found = self._overdue(now)
        queue, allowed = self._queue, int(self._window)
        while queue and len(self._sent) < allowed and self._next - self._low < SPAN_MESSAGES:
            message = queue.popleft()
            self._queue_bytes -= len(message)
            if not self._sent:
                self._progress_at = now
            due = now + self._round_trip.timeout_s
            self._sent[self._next] = _Sent(message, now, due)
            self._due = due if self._due is None else min(self._due, due)
            self._next += 1
            self.counters["messages"] += 1
            found.append(self._pack(self._next - 1, message))
        if self._owed and self._ack_at is not None and now >= self._ack_at:
            found += self._acks_alone()
        return found

    def _overdue(self, now: float) -> list[bytes]:
        """What was not heard of for too long, again; as much as the window allows."""
        if self._due is None or now < self._due:
            return []
        late = [number for number, sent in self._sent.items() if sent.due <= now]
        if late and late[0] >= self._shrunk_at:
            self._window = max(LEAST_WINDOW, self._window / 2)
            self._shrunk_at = self._next
        found = []
        for number in late[: int(self._window)]:
            sent = self._sent[number]
            sent.again += 1
            sent.due = now + min(self._round_trip.timeout_s * 2**sent.again, MOST_TIMEOUT_S)
            found.append(self._pack(number, sent.message))
        self.counters["timeouts"] += bool(late)
        self.counters["retransmissions"] += len(found)
        self._due = min((sent.due for sent in self._sent.values()), default=None)
        return found

    def _pack(self, number: int, message: bytes) -> bytes:
        acks: list[bytes] = []
        if not self._client and 0 in self._heard:
            acks = self._take_acks(self._heard[0], ACKS_MAX)
        head = HEADER.pack(MESSAGE, self._origin, number, self._low, self._life, len(acks))
        return b"".join([head, *acks, message])

    def _take_acks(self, heard: _Heard, most: int) -> list[bytes]:
        count = min(most, len(heard.acks))
        self._owed -= count
        if not self._owed:
            self._ack_at = None
        return [NUMBER.pack(heard.acks.popleft()) for _ in range(count)]

    def _acks_alone(self) -> list[bytes]:
        found = []
        for origin, heard in self._heard.items():
            while heard.acks:
                acks = self._take_acks(heard, ACKS_ALONE_MAX)
                head = HEADER.pack(ACK, origin, 0, 0, heard.life, len(acks))
                found.append(b"".join([head, *acks]))
        return found

    # Time ----------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When `tick` next matters."""
        times = [time for time in (self._due, self._ack_at) if time is not None]
        return min(times, default=None)

    def tick(self, now: float) -> None:
        """Notices that nothing arrives any more; then `transmit`."""
        if self._sent and now - self._progress_at > GIVE_UP_S:
            self.failure = (
                f"nothing was acknowledged for {GIVE_UP_S:g} s; look whether the other end runs, "
                "then connect again"
            )

    # Receiving -----------------------------------------------------------------------------------

    def receive_untrusted(self, datagram: bytes, now: float) -> None:
        """A datagram of the other end, or of one of several; never raises."""
        try:
            seen = seen_untrusted(datagram)
        except BadPacket:
            self.counters["malformed"] += 1
            return
        kind, origin, number, low, life, count = HEADER.unpack_from(datagram)
        if kind == MESSAGE and (origin >= ORIGINS_MAX or not 0 < low <= number):
            self.counters["malformed"] += 1
            return
        if kind == MESSAGE or (origin, life) == (self._origin, self._life):
            for k in range(count):
                (arrived,) = NUMBER.unpack_from(datagram, HEADER.size + k * NUMBER.size)
                self._arrived(arrived, now)
        if kind == MESSAGE:
            self._message(seen, low, life, now)

    def _arrived(self, number: int, now: float) -> None:
        sent = self._sent.pop(number, None)
        if sent is None:
            return
        self._progress_at = now
        self._window = min(
            self._window + (1 if self._window < WINDOW_MESSAGES / 4 else 1 / self._window),
            float(WINDOW_MESSAGES),
        )
        if not sent.again:
            self._round_trip.measured(now - sent.since)
        if not self._sent:
            self._due = None

    def _message(self, seen: Seen, low: int, life: int, now: float) -> None:
        heard = self._heard.get(seen.origin)
        if heard is None or life > heard.life:
            self._owed -= 0 if heard is None else len(heard.acks)
            heard = self._heard[seen.origin] = _Heard(life)
        elif life < heard.life:
            self.counters["stale"] += 1
            return
        if low > heard.low:
            heard.low = low
            heard.numbers = {each for each in heard.numbers if each >= low}
        number = seen.number
        if number < heard.low:
            self.counters["duplicates"] += 1  # who sent it knows already that it is here
            return
        if number >= heard.low + SPAN_MESSAGES or self._unread_bytes >= UNREAD_BYTES_MAX:
            self.counters["beyond"] += 1  # not acknowledged: it comes again
            return
        heard.acks.append(number)
        self._owed += 1
        if number in heard.numbers:
            self.counters["duplicates"] += 1
            self._ack_at = now
            return
        heard.numbers.add(number)
        self.unread.append(seen.message)
        self._unread_bytes += len(seen.message)
        soon = now if self._owed >= ACKS_ALONE_MAX else now + ACK_DELAY_S
        self._ack_at = soon if self._ack_at is None else min(self._ack_at, soon)

    def took(self, messages: Sequence[bytes]) -> bool:
        """These were read; nobody need be told of it."""
        self._unread_bytes -= sum(map(len, messages))
        return False
