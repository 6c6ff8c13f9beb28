"""What is wrong in a history, made small enough to be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from p4xos.testing.linearizability.operations import UNKNOWN, Key, Model, Operation
from p4xos.testing.linearizability.search import end_states, search

MINIMIZING_STEPS_MAX = 2_000_000
"""Of the model, to find a small part of a history that is wrong."""
CUTS_EACH = 16
"""Of the latest moments at which nothing was under way, each is tried; then fewer and fewer."""


class Offence(NamedTuple):
    """Keys whose operations have no order that explains them."""

    keys: tuple[Key, ...]
    operations: tuple[Operation, ...]
    """By the time of their call; a part of the history that is wrong by itself."""


def minimized(offence: Offence, model: Model, steps_max: int = MINIMIZING_STEPS_MAX) -> Offence:
    """A small part of a wrong history that is wrong by itself.

    Every part it tries would be linearizable if the whole were, so what is shown is no artefact:

    - a prefix in time, in which what is under way at its end has an unknown outcome;
    - what comes behind a moment at which nothing was under way, if there is one state only in which
      the keys can have been then: it stands in place of what was before;
    - the same without some reads, which change nothing.

    Args:
      offence: with no order that explains it.
      model: of its operations.
      steps_max: bounds the work; the smallest part found by then is given.
    """
    left = steps_max

    def wrong(operations: Sequence[Operation]) -> bool:
        nonlocal left
        found = search(operations, offence.keys, model, max(left, 0))
        left -= found.steps + 1
        return found.judgement == "violation"

    smallest = sorted(offence.operations, key=lambda operation: operation.called)
    ends = sorted({o.returned for o in smallest if o.returned is not None})
    low, high = 0, len(ends) - 1  # the prefix through ends[high] is wrong
    while low < high:
        middle = (low + high) // 2
        if wrong(_through(smallest, ends[middle])):
            high = middle
        else:
            low = middle + 1
    shorter = _through(smallest, ends[high])
    if wrong(shorter):
        smallest = shorter
    size = len(smallest) + 1
    while len(smallest) < size and left >= 0:  # without reads there are more moments to cut at
        size = len(smallest)
        for cut in _cuts(smallest):
            begun = [o for o in smallest if o.called < cut]
            states, steps = end_states(begun, offence.keys, model, max(left, 0))
            left -= steps + 1
            if states is not None and len(states) == 1:
                known = Operation(
                    "(before)", cut - 1, cut - 1, *model.setting(offence.keys, *states)
                )
                kept = [o for o in smallest if o.called >= cut or o.returned is None]
                if wrong([known, *kept]):
                    smallest = sorted([known, *kept], key=lambda operation: operation.called)
                    break
        smallest = _without_reads(smallest, model, wrong)
    return Offence(offence.keys, tuple(smallest))


def _cuts(history: Sequence[Operation]) -> list[int]:
    """Moments at which nothing answered was under way, the latest first; ever fewer, farther back.

    Each is the call of what comes next. The one ahead of everything is not among them.
    """
    cuts: list[int] = []
    latest = None
    for o in history:  # by call
        if o.returned is not None:
            if latest is not None and o.called > latest:
                cuts.append(o.called)
            latest = o.returned if latest is None else max(latest, o.returned)
    cuts.reverse()
    return [cut for place, cut in enumerate(cuts) if place < CUTS_EACH or place & (place - 1) == 0]


def _through(history: Iterable[Operation], end: int) -> list[Operation]:
    """What was called until then; what had not returned has an unknown outcome."""
    return [
        o if o.returned is not None and o.returned <= end else _left_open(o)
        for o in history
        if o.called <= end
    ]


def _left_open(operation: Operation) -> Operation:
    return operation._replace(returned=None, output=UNKNOWN)


def _without_reads(
    history: list[Operation], model: Model, wrong: Callable[[Sequence[Operation]], bool]
) -> list[Operation]:
    """Without as many reads as can be spared: those never answered, then blocks, ever smaller."""
    kept = [o for o in history if o.returned is not None or not model.reads(o.input)]
    size = sum(model.reads(o.input) for o in kept)
    while size:
        start = 0
        reads = [o for o in kept if model.reads(o.input)]
        while start < len(reads):
            block = {id(o) for o in reads[start : start + size]}
            shorter = [o for o in kept if id(o) not in block]
            if shorter and wrong(shorter):
                kept = shorter
            start += size
        size = min(size // 2, len(reads))
    return kept


def lines(operations: Sequence[Operation], model: Model, unit: int = 1_000_000) -> list[str]:
    """Operations for people, one a line: client, when called and returned, input and output.

    Args:
      operations: of one offence.
      model: describes them.
      unit: what times are divided by; times are shown from the first call, in this unit.
    """
    if not operations:
        return []
    begin = min(o.called for o in operations)
    rows = [("client", "called", "returned", "operation")]
    for o in sorted(operations, key=lambda operation: operation.called):
        returned = "-" if o.returned is None else f"{(o.returned - begin) / unit:.3f}"
        rows.append((o.client, f"{(o.called - begin) / unit:.3f}", returned, model.describe(o)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        f"{client:{widths[0]}}  {called:>{widths[1]}}  {returned:>{widths[2]}}  {what}"
        for client, called, returned, what in rows
    ]
