"""What `reliable()` does, as a state machine without clock or socket: in order, exactly once.

Messages are a stream of bytes, each with its length before it, cut into numbered segments: small
ones share a segment and a long one takes several. The receiver tells what it expects next, which of
those behind it are there, and how many more it has room for.

    0  u8   kind: DATA, FIN (the stream's end), ACK (carries nothing)
    1  u64  number of the segment, from 1; of an ACK 0
    9  u64  expected: all below have arrived
    17 u64  of expected + 1 + k, bit k set when that one has arrived
    25 u16  room: segments from expected on that will be taken

Sender: segments are sent as the window allows, which grows while none is lost and shrinks when one
is. A segment is sent again when three behind it have arrived, or nothing was heard for the
retransmission time, which follows the measured round trips (RFC 6298) and doubles each time.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Sequence

from p4xos.errors import BadPacket

DATA, FIN, ACK = 1, 2, 3
_HEADER = struct.Struct(">BQQQH")
_LENGTH = struct.Struct(">I")
HEADER_BYTES = _HEADER.size
SEGMENT_BYTES = 1200
"""Of the stream in a segment: with all headers it fits a frame of any network."""
MESSAGE_BYTES_MAX = 16 << 20
WINDOW_SEGMENTS = 512
"""On the way at most, and held by the receiver before their turn."""
QUEUE_BYTES_MAX = 1 << 20
"""Written and not yet sent; who writes more waits."""
UNREAD_BYTES_MAX = 2 << 20
"""Received and not yet read; the other end is told that there is no room."""
SACK_BITS = 64
FIRST_WINDOW = 32.0
LEAST_WINDOW = 4.0
FIRST_TIMEOUT_S, LEAST_TIMEOUT_S, MOST_TIMEOUT_S = 0.1, 0.03, 1.0
"""The least is above what a busy machine keeps a process waiting: below it, most of what was sent
again had arrived. Losses in a busy stream are seen sooner, by what arrives behind them."""
ACK_DELAY_S = 0.004
"""How long an acknowledgement waits for something to travel with."""
LATER_ARRIVED = 3
"""So many behind a segment tell that it is lost, and not only late."""
GIVE_UP_S = 15.0
"""Nothing was acknowledged for so long though something was on the way."""


class RoundTrip:
    """How long an answer takes, and how long to wait for one before it is asked for again."""

    def __init__(self) -> None:
        """None was measured."""
        self.smoothed_s: float | None = None
        self.timeout_s = FIRST_TIMEOUT_S
        self._variation_s = 0.0

    def measured(self, took_s: float) -> None:
        """One answer to what was sent once: smoothed as TCP does (RFC 6298)."""
        if self.smoothed_s is None:
            self.smoothed_s, self._variation_s = took_s, took_s / 2
        else:
            off = abs(self.smoothed_s - took_s)
            self._variation_s = 0.75 * self._variation_s + 0.25 * off
            self.smoothed_s = 0.875 * self.smoothed_s + 0.125 * took_s
        wanted = self.smoothed_s + max(4 * self._variation_s, 2 * ACK_DELAY_S)
        self.timeout_s = min(max(wanted, LEAST_TIMEOUT_S), MOST_TIMEOUT_S)


class _Sent:
    """A segment on its way."""

    __slots__ = ("again", "arrived", "data", "kind", "later", "sent_at")

    def __init__(self, kind: int, data: bytes, sent_at: float) -> None:
        self.kind = kind
        self.data = data
        self.sent_at = sent_at
        self.again = 0
        self.arrived = False
        self.later = 0


class Window:
    """One end: what it has written and not seen arrive, and what has arrived and is not read."""

    def __init__(self) -> None:
        """Nothing was written or received."""
        self.counters = dict.fromkeys(
            ("segments", "retransmissions", "timeouts", "duplicates", "malformed", "beyond"), 0
        )
        self.round_trip = RoundTrip()
        self.finished = False
        """The other end's stream is received whole."""
        self.failure: str | None = None
        self.unread: deque[bytes] = deque()
        """Messages in their order, for whoever reads; tell `took` of what was taken."""
        self._unread_bytes = 0
        # Sending
        self._queue = bytearray()
        self._fin_wanted = self._fin_sent = False
        self._next = 1  # number of the next new segment
        self._sent: deque[_Sent] = deque()  # numbers self._next - len ... self._next - 1
        self._window = FIRST_WINDOW
        self._room = WINDOW_SEGMENTS
        self._timeout_s = FIRST_TIMEOUT_S
        self._timer: float | None = None
        self._progress_at = 0.0
        self._resend: list[int] = []
        self._recovery = 0  # losses below this number are of one event
        # Receiving
        self._expected = 1
        self._ahead: dict[int, tuple[int, bytes]] = {}
        self._stream = bytearray()
        self._owed = 0  # segments received and not acknowledged
        self._ack_at: float | None = None

    # Sending -------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether who writes should wait."""
        return len(self._queue) >= QUEUE_BYTES_MAX

    @property
    def idle(self) -> bool:
        """Whether all that was written has arrived."""
        return not self._queue and not self._sent and self._fin_wanted == self._fin_sent

    def write(self, messages: Iterable[bytes]) -> None:
        """Appends messages to the stream.

        Raises:
          ValueError: one is too long; nothing was written.
        """
        assert not self._fin_wanted, "the stream was ended"
        parts: list[bytes] = []
        for message in messages:
            if len(message) > MESSAGE_BYTES_MAX:
                raise ValueError(
                    f"a message has {len(message)} bytes and the limit is {MESSAGE_BYTES_MAX}; "
                    "divide it"
                )
            parts.append(_LENGTH.pack(len(message)))
            parts.append(message)
        self._queue += b"".join(parts)

    def finish(self) -> None:
        """Ends the stream behind what was written."""
        self._fin_wanted = True

    def transmit(self, now: float) -> list[bytes]:
        """Datagrams to send now."""
        if self.failure is not None:
            self._timer = self._ack_at = None
            return []
        found = [self._again(number, now) for number in self._resend if self._is_out(number)]
        self._resend.clear()
        allowed = min(int(self._window), self._room, WINDOW_SEGMENTS)
        start, queue = 0, self._queue
        while len(self._sent) < allowed and start < len(queue):
            data = bytes(queue[start : start + SEGMENT_BYTES])
            start += len(data)
            found.append(self._first(DATA, data, now))
        del queue[:start]
        if self._fin_wanted and not self._fin_sent and not queue and len(self._sent) < allowed:
            self._fin_sent = True
            found.append(self._first(FIN, b"", now))
        if not found and self._owed and (self._ack_at is None or now >= self._ack_at):
            found.append(self._pack(ACK, 0, b""))
        if found:
            self._owed, self._ack_at = 0, None
        if self._timer is None and (self._sent or self._blocked):
            self._timer = now + self._timeout_s
            if not self._sent:
                self._progress_at = now
        return found

    @property
    def _blocked(self) -> bool:
        """Whether something waits and the other end had no room when it last said so."""
        return not self._sent and bool(self._queue or self._fin_wanted > self._fin_sent)

    def _is_out(self, number: int) -> bool:
        at = number - (self._next - len(self._sent))
        return 0 <= at < len(self._sent) and not self._sent[at].arrived

    def _first(self, kind: int, data: bytes, now: float) -> bytes:
        if not self._sent:
            self._progress_at = now
        self._sent.append(_Sent(kind, data, now))
        self._next += 1
        self.counters["segments"] += 1
        return self._pack(kind, self._next - 1, data)

    def _again(self, number: int, now: float) -> bytes:
        sent = self._sent[number - (self._next - len(self._sent))]
        sent.again += 1
        sent.sent_at = now
        sent.later = 0
        self.counters["retransmissions"] += 1
        return self._pack(sent.kind, number, sent.data)

    def _pack(self, kind: int, number: int, data: bytes) -> bytes:
        arrived = 0
        for ahead in self._ahead:
            bit = ahead - self._expected - 1
            if bit < SACK_BITS:
                arrived |= 1 << bit
        room = 0 if self._unread_bytes >= UNREAD_BYTES_MAX else WINDOW_SEGMENTS
        return _HEADER.pack(kind, number, self._expected, arrived, room) + data

    # Time ----------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When `tick` next matters."""
        times = [time for time in (self._timer, self._ack_at) if time is not None]
        return min(times, default=None)

    def tick(self, now: float) -> None:
        """Notices what did not arrive in time; then `transmit`."""
        if self._timer is None or now < self._timer:
            return
        self._timer = None
        if now - self._progress_at > GIVE_UP_S:
            self.failure = (
                f"nothing was acknowledged for {GIVE_UP_S:g} s; look whether the other end runs, "
                "then connect again"
            )
            return
        self.counters["timeouts"] += 1
        self._timeout_s = min(2 * self._timeout_s, MOST_TIMEOUT_S)
        if self._sent:
            first = self._next - len(self._sent)
            if first >= self._recovery:
                self._window = max(LEAST_WINDOW, self._window / 2)
                self._recovery = self._next
            # All that is overdue: with every second one lost, one at a time would take for ever.
            self._resend = [
                first + k
                for k, sent in enumerate(self._sent)
                if not sent.arrived and now - sent.sent_at >= self._timeout_s / 2
            ][: int(self._window)] or [first]
        elif self._blocked:
            self._room = max(self._room, 1)  # ask with one segment whether there is room again

    # Receiving -----------------------------------------------------------------------------------

    def receive_untrusted(self, datagram: bytes, now: float) -> None:
        """A datagram of the other end; never raises."""
        if len(datagram) < HEADER_BYTES:
            self.counters["malformed"] += 1
            return
        kind, number, expected, arrived, room = _HEADER.unpack_from(datagram)
        if kind not in (DATA, FIN, ACK) or expected > self._next or expected == 0:
            self.counters["malformed"] += 1
            return
        self._acknowledged(expected, arrived, now)
        self._room = room
        if kind != ACK:
            try:
                self._segment(kind, number, datagram[HEADER_BYTES:], now)
            except BadPacket as error:
                self.failure = f"the other end breaks the rules ({error}); connect again"

    def _acknowledged(self, expected: int, arrived: int, now: float) -> None:
        sent = self._sent
        first = self._next - len(sent)
        progress = False
        while sent and first < expected:
            done = sent.popleft()
            first += 1
            progress = True
            if not done.again:
                self.round_trip.measured(now - done.sent_at)
            self._window = min(
                self._window + (1 if self._window < WINDOW_SEGMENTS / 4 else 1 / self._window),
                float(WINDOW_SEGMENTS),
            )
        if arrived and sent:
            progress |= self._behind(expected, arrived, first, now)
        if progress:
            self._progress_at = now
            if self.round_trip.smoothed_s is not None:
                self._timeout_s = self.round_trip.timeout_s
            self._timer = now + self._timeout_s if sent or self._blocked else None

    def _behind(self, expected: int, arrived: int, first: int, now: float) -> bool:
        """Segments behind the expected one that are there; True when one is new."""
        news = 0
        for bit in range(arrived.bit_length()):
            at = expected + 1 + bit - first
            if arrived >> bit & 1 and 0 <= at < len(self._sent) and not self._sent[at].arrived:
                self._sent[at].arrived = True
                news += 1
        if news:
            highest = expected + arrived.bit_length()
            for number in range(first, min(highest, self._next)):
                one = self._sent[number - first]
                if one.arrived:
                    continue
                one.later += news
                # One that was sent again is lost again only if that is a round trip ago: what is
                # told before is of segments that left before it.
                since_s = now - one.sent_at
                round_trip_s = self.round_trip.smoothed_s or FIRST_TIMEOUT_S
                settled = not one.again or since_s >= round_trip_s
                if one.later >= LATER_ARRIVED and settled:
                    self._resend.append(number)
                    if number >= self._recovery:
                        self._window = max(LEAST_WINDOW, self._window * 0.7)
                        self._recovery = self._next
        return bool(news)

    def _segment(self, kind: int, number: int, data: bytes, now: float) -> None:
        self._owed += 1
        if number < self._expected or number in self._ahead:
            self.counters["duplicates"] += 1
            self._ack_at = now  # its acknowledgement was lost
            return
        if number >= self._expected + WINDOW_SEGMENTS or self.finished:
            self.counters["beyond"] += 1
            return
        if number != self._expected:
            self._ahead[number] = kind, data
            self._ack_at = now
            return
        self._take(kind, data)
        while (following := self._ahead.pop(self._expected, None)) is not None:
            self._take(*following)
        soon = now if self._owed >= 2 or kind == FIN else now + ACK_DELAY_S
        self._ack_at = soon if self._ack_at is None else min(self._ack_at, soon)

    def _take(self, kind: int, data: bytes) -> None:
        self._expected += 1
        if kind == FIN:
            self.finished = True
            if self._stream:
                raise BadPacket("the stream ends inside a message")
            return
        stream = self._stream
        stream += data
        start, end = 0, len(stream)
        while end - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(stream, start)
            if length > MESSAGE_BYTES_MAX:
                raise BadPacket(f"a message of {length} bytes; the limit is {MESSAGE_BYTES_MAX}")
            if end - start - _LENGTH.size < length:
                break
            start += _LENGTH.size
            self.unread.append(bytes(stream[start : start + length]))
            self._unread_bytes += length
            start += length
        del stream[:start]

    def took(self, messages: Sequence[bytes]) -> bool:
        """These were read; True when there is room again, which `transmit` should tell."""
        was_full = self._unread_bytes >= UNREAD_BYTES_MAX
        self._unread_bytes -= sum(map(len, messages))
        freed = was_full and self._unread_bytes < UNREAD_BYTES_MAX
        if freed:
            self._owed += 1
            self._ack_at = None
        return freed
