"""One client's connection: its parser, the commands that wait, the run that is under way, output.

A *run* is a stretch of consecutive commands of one client that is answered together: reads behind
one read index, or writes (with reads between them) as entries of one value of the log. A
connection has one run at a time, so replies keep the order of the commands, a read sees every
write before it, and two writes of a pipeline never meet in the log in the wrong order, which
values of one session may.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from time import perf_counter

from kvstore import commands
from kvstore.commands.client import Client
from kvstore.commands.table import Entry, unknown_command, wrong_arity
from kvstore.commands.transactions import NOT_QUEUED, check_queued, refused
from kvstore.meter import Started
from kvstore.replies import CommandError, Reply, encode, error_bytes, internal_error
from kvstore.resp import ChunkReader, Command, CommandParser
from kvstore.tls import TlsSocket

RECEIVE_BYTES = 64 * 1024
"""One read of a socket; with it, what a connection may hold above its other bounds."""
BACKLOG_BYTES = 1 << 20
"""Bytes received as commands that wait for the run under way; beyond it the socket is not read."""
OUTPUT_BYTES = 4 << 20
"""Replies that the client does not take; beyond it nothing of this client is read or run.
A client that sends more than this and the backlog before it reads anything blocks itself, and is
closed once it has taken nothing for [clients] `stalled_timeout_s`."""
ANSWERED_BYTES = 64 * 1024
"""Replies to connection commands made in one go, ..."""
ANSWERED_S = 0.02
"""... and the time that they may take: COMMAND replies thousands of times its own length, and some
compile a pattern. The others wait for the next turn, and other clients have theirs."""
RUN_COMMANDS = 1024
"""Commands looked at for one run: bounds how long one client keeps the others waiting."""
RIDING_READS = 64
"""Reads that may ride the log in one run: their replies cannot be held back once it applies."""

WATCHED_BYTES = 200
"""What a watched key costs beside its name."""

_HTTP_NAMES = frozenset((b"post", b"host:"))
_HTTP = b"-ERR this port speaks RESP, not HTTP; use a Redis client\r\n"

Run = tuple[list[Command], list[Entry], bool]
"""Commands, their entries of the table, and whether one of them writes."""


class Connection:
    """The state of one client; knows its socket, and neither the log nor the store."""

    __slots__ = (
        "_sent", "_unfinished_bytes", "backlog", "backlog_bytes", "blocked", "burdens", "client",
        "closed", "ended", "held", "last_words", "mask", "out", "outstanding", "parked", "parser",
        "reads", "run_bytes", "simple", "sock", "started", "unsent",
    )

    def __init__(
        self, sock: socket.socket | TlsSocket, client: Client, chunks: ChunkReader
    ) -> None:
        self.sock = sock
        self.client = client
        self.parser = CommandParser(chunks)
        self.backlog: list[Command] = []
        """Commands that wait for the run under way, in order."""
        self.backlog_bytes = 0
        self._unfinished_bytes = 0
        """Received since the last command was complete."""
        self.outstanding = 0
        """Commands of the run under way; 0: none is."""
        self.started: Started | None = None
        """When the last run was taken, for the meter."""
        self.reads: list[tuple[Entry, Command]] = []
        """What is left of a run of reads that waits for this client to take its replies."""
        self.out: list[bytes] = []
        """Replies not yet given to `send`."""
        self.unsent = b""
        """What the socket did not take, ..."""
        self._sent = 0
        """... but for its first bytes, so many."""
        self.blocked = False
        """Its run waits because the log is overloaded."""
        self.parked = False
        """It holds much, and all clients together too much: not read (`kvstore.burden`)."""
        self.burdens = False
        """It has held more than a little."""
        self.run_bytes = 0
        """Of the run under way, where it is a long one."""
        self.held: Run | None = None
        """What CLIENT PAUSE holds: taken off the backlog, and not begun."""
        self.ended = False
        """Nothing more will come: the client ended its side, or broke the protocol."""
        self.last_words = b""
        """Sent behind all replies once `ended`."""
        self.closed = False
        self.simple = False
        """`is_simple` was true, and nothing but a run of one command has begun since."""
        self.mask = select.EPOLLIN

    def receive(self) -> bool:
        """Reads the socket once; appends its commands to the backlog; false: the peer is gone."""
        try:
            chunk = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.take(chunk)
        return True

    def take(self, chunk: bytes) -> None:
        """Appends the commands that these bytes complete to the backlog; none: the end."""
        if not chunk:
            self.ended = True
            return
        parser = self.parser
        got = parser.feed(chunk)
        if got:
            if self.backlog:
                self.backlog += got
            else:
                self.backlog = got
            self.backlog_bytes += self._unfinished_bytes + len(chunk)
            self._unfinished_bytes = 0
        else:
            self._unfinished_bytes += len(chunk)
        if parser.error is not None:
            self.ended = True
            self.last_words = error_bytes(f"ERR Protocol error: {parser.error}")

    def next_run(self) -> Run:
        """Answers connection commands at the head of the backlog, then takes a run off it.

        Returns:
          Empty lists when nothing is left to run.
        """
        backlog = self.backlog
        client = self.client
        view = client.view
        known, find = (
            (commands.SPELLINGS.get, commands.find) if view is None else (view.known, view.find)
        )
        run: list[Entry] = []
        start = reads = position = answered = 0
        answer_until = 0.0
        writes = False
        for position, command in enumerate(backlog[:RUN_COMMANDS]):
            entry = known(command[0]) or find(command[0])
            if (
                entry is None
                or entry.connects
                or client.transaction is not None
                or not entry.minimum <= len(command) <= entry.maximum
            ):
                if run:
                    break  # answered once the run is
                start = position + 1
                replied = len(self.out)
                answer_until = answer_until or perf_counter() + ANSWERED_S
                self._answer(entry, command)
                answered += sum(map(len, self.out[replied:]))
                if client.closing or client.asleep_until or client.asked is not None:
                    break
                if client.view is not view:
                    break  # by RESET: what follows is looked up as it is allowed now
                if client.execution is not None:
                    self._keep(backlog[start:])
                    return [client.execution.command], [commands.EXEC], True
                if answered > ANSWERED_BYTES or perf_counter() > answer_until:
                    break
                continue
            if entry.alone:
                if not run:
                    run.append(entry)
                break
            if not entry.writes:
                if writes and reads >= RIDING_READS:
                    break
                reads += 1
            elif not writes:
                if reads > RIDING_READS:
                    break  # the reads go first, by themselves
                writes = True
            run.append(entry)
        end = start + len(run)
        if client.closing:
            end = len(backlog)
            self.ended = True
        taken = backlog[start : start + len(run)] if start or end < len(backlog) else backlog
        self._keep(backlog[end:] if end < len(backlog) else [])
        return taken, run, writes

    def _keep(self, rest: list[Command]) -> None:
        """What is left of the backlog."""
        self.backlog = rest
        if not rest:
            self.backlog_bytes = 0

    def put_back(self, rest: list[Command]) -> None:
        """Puts the end of a run back in front of the backlog."""
        if not self.backlog:  # else they are still counted
            self.backlog_bytes = sum([len(word) for command in rest for word in command])
        self.backlog = rest + self.backlog

    def _answer(self, entry: Entry | None, command: Command) -> None:
        """Appends the reply to a connection command, or to one that is queued or cannot run."""
        client = self.client
        try:
            if entry is None:
                if command[0].lower() in _HTTP_NAMES:
                    self._hang_up_on_http()
                    return
                raise unknown_command(command)
            if not entry.minimum <= len(command) <= entry.maximum:
                if command[-1].startswith(b"HTTP/"):
                    self._hang_up_on_http()
                    return
                raise wrong_arity(entry)
            if client.view is not None:
                client.view.check(entry, command)
            if client.transaction is not None:
                check_queued(client, entry, command)
        except CommandError as error:
            self._say(refused(client, entry, error))
            return
        try:
            if client.server.monitors:
                client.server.monitors.show(client, [command])
            began = perf_counter()
            if client.transaction is None or entry.name in NOT_QUEUED:
                reply = entry.handler(client, command)
            else:
                reply = client.transaction.add(entry, command)
            client.server.meter.answered_at_once(entry, command, began, client)
        except CommandError as error:
            reply = error.reply
        except Exception as bug:
            reply = internal_error(entry.full_name, bug)
        if client.execution is not None or client.asked is not None:
            return  # the log answers, or the check of a password
        self._say(reply)

    def _say(self, reply: Reply) -> None:
        """Appends a reply, unless the client wants none."""
        client = self.client
        if not client.muted or client.hears():
            self.out.append(encode(reply, client.protocol))

    def _hang_up_on_http(self) -> None:
        """A browser made to send commands must not reach the store with what follows."""
        self.out.append(_HTTP)
        self.client.closing = True

    def hang_up(self) -> None:
        """Nothing more is read or run; what is answered still leaves."""
        self._keep([])
        self.ended = True

    def complete(self, replies: Sequence[Reply]) -> None:
        """Ends the run under way with these replies, one for each of its commands."""
        self.outstanding = self.run_bytes = 0
        client = self.client
        if client.execution is not None:
            execution, client.execution = client.execution, None
            replies = [execution.finish(client, replies[0])]
        if client.muted:
            replies = [reply for reply in replies if client.hears()]
        protocol = client.protocol
        self.out += [encode(reply, protocol) for reply in replies]

    def send(self) -> bool:
        """Sends what there is, in one call; false: the peer is gone."""
        if self.client.asleep_until:
            return True
        if self._sent < len(self.unsent):
            self.out.insert(0, self.unsent[self._sent :])
        elif not self.out:
            return True
        data = self.out[0] if len(self.out) == 1 else b"".join(self.out)
        self.out = []
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        self.unsent, self._sent = (b"", 0) if sent == len(data) else (data, sent)
        return True

    def is_simple(self) -> bool:
        """Whether it sends one command at a time, and nothing of it is open (`kvstore.crowd`)."""
        client = self.client
        return (
            self.started is not None
            and self.started[2] == 1
            and not (self.outstanding or self.backlog or self.out or self.unsent or self.reads)
            and self.mask == select.EPOLLIN
            and not (self.ended or self.closed or self.held or self.burdens)
            and self.parser.idle
            and type(self.sock) is socket.socket
            and client.is_plain()
        )

    def let_go(self) -> None:
        """Holds nothing any more: a batch under way may still name a connection that is closed."""
        self.backlog, self.reads, self.out = [], [], []
        self.unsent, self._sent = b"", 0

    @property
    def input_bytes(self) -> int:
        """What is held of what the client sent."""
        client = self.client
        size = self.backlog_bytes + self._unfinished_bytes + self.run_bytes
        if client.transaction is not None:
            size += client.transaction.size
        if client.watched:
            size += sum([len(key) + WATCHED_BYTES for _, key in client.watched])
        return size

    @property
    def output_bytes(self) -> int:
        """Replies that the socket did not take so far."""
        return len(self.unsent) - self._sent

    @property
    def choked(self) -> bool:
        """The client takes too little of its replies for more to be made."""
        return len(self.unsent) - self._sent > OUTPUT_BYTES

    @property
    def finished(self) -> bool:
        """Everything that ever came is answered and sent, and nothing more will come."""
        return self.ended and not (
            self.outstanding or self.backlog or self.out or self.unsent or self.held
        )

    def wanted_mask(self) -> int:
        """What epoll should wait for."""
        mask = select.EPOLLOUT if self.unsent else 0
        if not (
            self.ended
            or self.blocked
            or self.parked
            or self.backlog_bytes > BACKLOG_BYTES
            or len(self.unsent) - self._sent > OUTPUT_BYTES
        ):
            mask |= select.EPOLLIN
        return mask
