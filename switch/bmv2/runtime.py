"""What bmv2's control plane is asked for: entries, multicast groups, registers, counters.

Everything is of context 0. Registers go through it as 64-bit signed numbers, whatever their width.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import NamedTuple

from p4xos.errors import BadPacket, P4xosError
from switch.bmv2 import thrift
from switch.bmv2.thrift import Reply, Value

REGISTER_BITS_MAX = 64
"""Of a register that this control plane can read and write."""
_TOO_LARGE = (1 << 63) - 1
"""What bmv2 answers for this number and all above."""
PIPELINE_CALLS = 64
"""Sent before the first answer is read: all of them fit the socket's buffers on both sides."""
PATIENCE = 100
"""Waits of `WAIT_S` for an answer before the switch is given up. They are counted, not timed: a
machine that was suspended has waited once."""
WAIT_S = 0.1
_CONTEXT = thrift.i32(1, 0)
_STANDARD, _MULTICAST = "standard", "simple_pre_lag"  # the latter is simple_switch's


class SwitchGone(P4xosError):
    """The switch process has ended, or no longer answers."""


class SwitchRefused(P4xosError):
    """The switch's control plane will not do it."""


class Ask(NamedTuple):
    """One call."""

    service: str
    name: str
    fields: tuple[bytes, ...]
    about: str
    """Of what, for messages."""


class Runtime:
    """The control plane of one switch. Not for several threads at once."""

    def __init__(self, connection: socket.socket, fate: Callable[[], str]) -> None:
        """Ready.

        Args:
          connection: to the switch's Thrift port; its owner closes it.
          fate: what has become of the switch, for messages.
        """
        self._connection = connection
        self._connection.settimeout(WAIT_S)
        self._fate = fate
        self._sequence = count(1)
        self._unread = b""

    # Tables --------------------------------------------------------------------------------------

    def add_entry(
        self, table: str, keys: Iterable[bytes], action: str, arguments: Sequence[bytes]
    ) -> None:
        """An entry whose keys are all exact; numbers as bytes in network order."""
        matches = [
            thrift.body(thrift.i32(1, 0), thrift.record(2, thrift.text(1, key))) for key in keys
        ]
        self._one(
            "bm_mt_add_entry", table, thrift.text(2, table), thrift.records(3, matches),
            thrift.text(4, action), thrift.texts(5, arguments), thrift.record(6),
        )  # fmt: skip

    def clear(self, table: str) -> None:
        """No entry is left; the default action is as it was."""
        self._one("bm_mt_clear_entries", table, thrift.text(2, table), thrift.flag(3, False))

    def multicast(self, group: int, copies: Iterable[tuple[int, int]]) -> None:
        """Makes a multicast group: for each copy its rid and port."""
        about = f"multicast group {group}"
        handle = self._handle("bm_mc_mgrp_create", about, thrift.i32(2, group))
        for rid, port in copies:
            ports = "1".ljust(port + 1, "0")  # port 0 is the last digit
            node = self._handle(
                "bm_mc_node_create", about, thrift.i32(2, rid), thrift.text(3, ports),
                thrift.text(4, "0"),  # no aggregated links
            )  # fmt: skip
            self._one(
                "bm_mc_node_associate", about, thrift.i32(2, handle), thrift.i32(3, node),
                service=_MULTICAST,
            )  # fmt: skip

    # Registers and counters ----------------------------------------------------------------------

    def read(self, register: str, index: int) -> int:
        """A cell.

        Raises:
          SwitchRefused: it holds 2^63 - 1 or more. bmv2 tells all those alike.
        """
        found = _number(
            self._one("bm_register_read", register, thrift.text(2, register), thrift.i32(3, index))
        )
        if found == _TOO_LARGE:
            raise SwitchRefused(
                f"{register}[{index}] holds 2^63 - 1 or more, and bmv2's control plane cannot tell "
                f"which number; no instance is above 2^62: see who wrote it"
            )
        return found % (1 << REGISTER_BITS_MAX)

    def write(self, register: str, index: int, value: int) -> None:
        """Makes a cell hold a value of up to 64 bits."""
        assert 0 <= value < 1 << REGISTER_BITS_MAX
        signed = value - (1 << REGISTER_BITS_MAX) * (value >> REGISTER_BITS_MAX - 1)
        self._one(
            "bm_register_write", register, thrift.text(2, register), thrift.i32(3, index),
            thrift.i64(4, signed),
        )  # fmt: skip

    def clear_register(self, register: str) -> None:
        """All its cells hold 0."""
        self._one("bm_register_reset", register, thrift.text(2, register))

    def packets(self, counter: str, indexes: Sequence[int]) -> list[int]:
        """What has been counted, for each of these cells."""
        asks = [
            Ask(_STANDARD, "bm_counter_read",
                (_CONTEXT, thrift.text(2, counter), thrift.i32(3, index)), counter)
            for index in indexes
        ]  # fmt: skip
        found = []
        for value in self._all(asks):
            if not isinstance(value, dict):
                raise BadPacket(f"bm_counter_read answers {value!r}, expected a struct")
            found.append(_number(value.get(2)))
        return found

    # The wire ------------------------------------------------------------------------------------

    def _handle(self, name: str, about: str, *fields: bytes) -> int:
        return _number(self._one(name, about, *fields, service=_MULTICAST))

    def _one(
        self, name: str, about: str, *fields: bytes, service: str = _STANDARD
    ) -> Value | None:
        return self._all([Ask(service, name, (_CONTEXT, *fields), about)])[0]

    def _all(self, asks: Sequence[Ask]) -> list[Value | None]:
        """Their results, in order; many are under way at once."""
        results: list[Value | None] = []
        for start in range(0, len(asks), PIPELINE_CALLS):
            some = asks[start : start + PIPELINE_CALLS]
            numbers = [next(self._sequence) & 0x7FFF_FFFF for _ in some]
            self._send(
                b"".join(
                    thrift.call(ask.service, ask.name, number, *ask.fields)
                    for ask, number in zip(some, numbers, strict=True)
                )
            )
            replies = [self._reply() for _ in some]  # all of them, whatever the first one says
            results += map(_result, some, numbers, replies)
        return results

    def _send(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise self.gone(error) from None

    def _reply(self) -> Reply:
        waits = 0
        while (found := thrift.decode_reply_untrusted(self._unread)) is None:
            try:
                data = self._connection.recv(1 << 16)
            except TimeoutError:
                waits += 1
                if waits == PATIENCE:
                    raise self.gone(f"no answer within {PATIENCE * WAIT_S:g} s") from None
                continue
            except OSError as error:
                raise self.gone(error) from None
            if not data:
                raise self.gone("it hung up")
            self._unread += data
        reply, size = found
        self._unread = self._unread[size:]
        return reply

    def gone(self, why: object) -> SwitchGone:
        """The error for a switch that is no longer any use."""
        return SwitchGone(f"{self._fate()} ({why}), and its registers are lost with it")


def _result(ask: Ask, number: int, reply: Reply) -> Value | None:
    """What the call answers; None where it answers nothing.

    Raises:
      SwitchRefused: the switch will not, or knows no such call.
      BadPacket: this is the answer to another call.
    """
    where = f"{ask.name} of {ask.about}"
    if reply.failed:
        raise SwitchRefused(
            f"this bmv2 cannot do {where}: {reply.fields.get(1)!r}; bmv2 1.15 can"
        )
    if (reply.name, reply.sequence) != (ask.name, number):
        raise BadPacket(f"the answer to {where} is one to {reply.name}, number {reply.sequence}")
    if 1 in reply.fields:
        error = reply.fields[1]
        code = error.get(1) if isinstance(error, dict) else None
        raise SwitchRefused(
            f"bmv2 refuses {where}: error {code!r} of standard.thrift or simple_pre_lag.thrift; "
            "does simple_switch run the program that this tree has?"
        )
    return reply.fields.get(0)


def _number(value: Value | None) -> int:
    if not isinstance(value, int):
        raise BadPacket(f"the switch answers {value!r}, expected a number")
    return value
