"""What became of commands of which some were answered: the one place that decides about retries.

A call is DONE when its reply says what happened; UNDONE when nothing happened for sure: its bytes
were not taken in full by the kernel, or the node refused, or it changes nothing anyway; else
UNKNOWN. Calls run in their order, so all that comes behind the first one that is not DONE is tried
again together with it, and only when no write among them is DONE or UNKNOWN: it would be done
twice, or before one that the program put in front of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

from kvstore.client.call import Call
from kvstore.client.errors import (
    ErrorReply,
    OutcomeUnknown,
    Unavailable,
    says_refused,
    says_unknown,
)


class State(Enum):
    """What is known of a call."""

    DONE = auto()
    UNDONE = auto()
    UNKNOWN = auto()


def state_of(call: Call[Any], reply: object, *, answered: bool, left: bool) -> State:
    """What is known of one call.

    Args:
      call: the command.
      reply: meaningful when `answered`.
      answered: its reply came.
      left: the node may have got it in full, or may get it yet.
    """
    if not answered:
        return State.UNKNOWN if left and not call.reads else State.UNDONE
    if isinstance(reply, ErrorReply):
        if says_refused(reply, reads=call.reads):
            return State.UNDONE
        if says_unknown(reply):
            return State.UNKNOWN
    return State.DONE


def sort_out(
    calls: Sequence[Call[Any]], replies: Sequence[object], left: int, node: str, reason: str
) -> list[Call[Any]]:
    """Settles the calls whose outcome is final.

    Args:
      calls: in the order in which they were posted.
      replies: of the first of them.
      left: how many of the first of them the node may have got in full.
      node: where they were sent, for messages.
      reason: why there are no more replies.

    Returns:
      The rest, which may be sent again in this order.
    """
    if len(replies) == len(calls) and not any(isinstance(r, ErrorReply) for r in replies):
        for call, reply in zip(calls, replies, strict=True):
            call.settle(reply)
        return []
    states = [
        state_of(
            call,
            replies[k] if k < len(replies) else None,
            answered=k < len(replies),
            left=k < left,
        )
        for k, call in enumerate(calls)
    ]
    first = next((k for k, state in enumerate(states) if state is not State.DONE), len(calls))
    pairs = list(zip(calls, states, strict=True))
    again = all(call.reads or state is State.UNDONE for call, state in pairs[first:])
    final = first if again else len(calls)
    for k, (call, state) in enumerate(pairs[:final]):
        reply = replies[k] if k < len(replies) else None
        if state is State.UNKNOWN:
            said = reply.text if isinstance(reply, ErrorReply) else reason
            call.settle(OutcomeUnknown(call.name, node, said))
        elif state is State.DONE or isinstance(reply, ErrorReply):
            call.settle(reply)
        else:
            call.settle(Unavailable(call.name, f"not run behind a failed write; {reason}", {}))
    return list(calls[final:])
