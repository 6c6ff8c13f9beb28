"""What becomes of a packet in the kernel: one outcome each, and every outcome is counted.

The numbers up to PROPOSED are those of `switch/p4/outcomes.p4`; a test compares.
"""

from __future__ import annotations

from enum import IntEnum


class Outcome(IntEnum):
    """Of a packet; `switch/xdp/wire.h` has the same for C."""

    PASSED = 0
    """Nothing has been decided yet."""

    # Admission: packets that no rule sees.
    FOREIGN = 1  # not UDP over IPv4 for this program: the machine's
    CHECKSUM = 2
    SHORT = 3
    VERSION = 4  # the process logs who speaks another version
    TYPE = 5
    CLUSTER = 6
    LENGTH = 7
    SENDER = 8

    # Silence.
    IGNORED = 9
    MALFORMED = 10
    VALUE_TOO_LONG = 11
    LOW_JUMP = 12
    ROUND_ZERO = 13
    STALE_ROUND = 14
    OUT_OF_WINDOW = 15
    RANGE = 16  # of several instances: more than one packet can answer
    NOT_HELD = 17  # a LEARN of what this acceptor has not voted for
    HEARTBEATS = 18
    INACTIVE = 19
    WINDOW_FULL = 20

    # A packet leaves.
    PROMISES = 21
    VOTES = 22
    REPEATED_VOTES = 23
    ANSWERS = 24
    PROPOSED = 25

    # The kernel's own: a P4 switch has no process beside it, and one packet at a time.
    HANDED_UP = 26  # the process answers: a LEARN of several, or a receiver is not known yet
    CLOSED = 27  # the port is closed: the process hears it, nobody answers
    RACED = 28  # low moved while the slot was looked up; whoever asked asks again


COUNT = 32
"""Cells of the counter."""
