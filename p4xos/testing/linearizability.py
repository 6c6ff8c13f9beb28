"""Is a history of concurrent operations linearizable? A search after Wing and Gong, and Lowe.

A history is linearizable when each operation can be given a moment between its call and its return
so that one after the other, in that order, they give the answers that were observed. An operation
whose outcome is unknown may have its moment at any time after its call, or none.

Strategy. Operations on different keys are judged apart (Herlihy and Wing: linearizability is
local); keys that an operation joins form one partition. In a partition the search puts operations
into an order one by one, and goes back where no answer fits:

- Calls and returns stand in a doubly linked list in the order of time. What stands before the first
  return is what may come next; an operation that is chosen is lifted out of the list, and put back
  when the search goes back (Lowe, *Testing for linearizability*, 2017).
- Who has chosen the same operations and reached the same state before need not look again. Of the
  chosen ones only those are named that lie behind the first one not chosen, in a bit set relative
  to it: so a point where nothing is under way cuts the history, and a long one costs no more for
  each operation than a short one.
- Less used of the unknown ones is never worse: a configuration is left when another one with the
  same choices and state, and a part of its unknown operations, was seen.
- An unknown operation that makes no difference to the next one chosen is not used there.
- A read that fits is chosen at once: it takes nothing away from what may come.

The search is bounded by steps of the model. Beyond the bound the verdict is "undecided", which
proves nothing, and never counts as good.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, NamedTuple, Protocol

STEPS_MAX = 5_000_000
"""Of the model, for one partition: some ten seconds."""
MINIMIZING_STEPS_MAX = 2_000_000
"""Of the model, to find a small part of a history that is wrong."""

Key = Hashable
State = Hashable
Judgement = Literal["linearizable", "violation", "undecided"]


class Unknown(Enum):
    """In place of an answer that never came."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown.UNKNOWN


class Operation(NamedTuple):
    """What a client asked for, and what it was told."""

    client: str
    """For people; says nothing about order."""
    called: int
    """Before this moment it has had no effect. Any unit, one clock for the whole history."""
    returned: int | None
    """After this moment it has none; None: its outcome is unknown, and may come at any time."""
    input: Any
    """Hashable; the model knows what it means."""
    output: Any = UNKNOWN
    """UNKNOWN exactly when `returned` is None."""


class Machine(Protocol):
    """What a set of keys does, one operation after the other; deterministic."""

    @property
    def initial(self) -> State:
        """Before the first operation."""
        ...

    def step(self, state: Any, input: Any, output: Any) -> State | None:
        """The state behind an operation; None when it would not have given this output.

        Args:
          state: hashable, and never None; equal ones mean the same.
          input: of the operation.
          output: what it gave; UNKNOWN fits all.
        """
        ...


class Model(Protocol):
    """What operations mean."""

    def keys(self, input: Any) -> Iterable[Key]:
        """What an operation touches: at least one key; others have no part in it."""
        ...

    def machine(self, keys: Sequence[Key]) -> Machine:
        """What these keys do together; they are all that any operation given to it touches."""
        ...

    def reads(self, input: Any) -> bool:
        """Whether it changes no state, in whatever state it is done."""
        ...

    def resets(self, input: Any, keys: Sequence[Key]) -> bool:
        """Whether it gives the same answer, and leaves all these keys in the same state, always."""
        ...

    def describe(self, operation: Operation) -> str:
        """Input and output, for people, on one line."""
        ...


class Offence(NamedTuple):
    """Keys whose operations have no order that explains them."""

    keys: tuple[Key, ...]
    operations: tuple[Operation, ...]
    """By the time of their call; a part of the history that is wrong by itself."""


@dataclass(frozen=True)
class Verdict:
    """What was found about a history."""

    judgement: Judgement
    operations: int
    partitions: int
    steps: int
    """Of the model, in the search for an order."""
    offences: tuple[Offence, ...] = ()
    """One for each partition that is wrong; the first is made small."""
    undecided: tuple[tuple[Key, ...], ...] = ()
    """Keys about which nothing is known: the search was over its bound."""

    @property
    def good(self) -> bool:
        """Whether it is proven that the history is linearizable."""
        return self.judgement == "linearizable"


def check(
    history: Iterable[Operation],
    model: Model,
    *,
    steps_max: int = STEPS_MAX,
    minimizing_steps_max: int = MINIMIZING_STEPS_MAX,
) -> Verdict:
    """Judges a history.

    Args:
      history: in any order.
      model: what its operations mean.
      steps_max: bounds the search, for each partition.
      minimizing_steps_max: bounds what is done to make the first offence small.

    Raises:
      ValueError: an operation returned before it was called, or has an output without a return.
    """
    operations = list(history)
    for operation in operations:
        _check_times(operation)
    steps = 0
    offences: list[Offence] = []
    undecided: list[tuple[Key, ...]] = []
    parts = partition(operations, model)
    for keys, part in parts:
        found = search(part, keys, model, steps_max)
        steps += found.steps
        if found.judgement == "violation":
            offences.append(Offence(keys, tuple(part)))
        elif found.judgement == "undecided":
            undecided.append(keys)
    judgement: Judgement = "linearizable"
    if offences:
        judgement = "violation"
        offences[0] = minimized(offences[0], model, minimizing_steps_max)
    elif undecided:
        judgement = "undecided"
    return Verdict(judgement, len(operations), len(parts), steps, tuple(offences), tuple(undecided))


def _check_times(operation: Operation) -> None:
    if (operation.returned is None) != (operation.output is UNKNOWN):
        raise ValueError(f"{operation}: an operation has an output exactly when it has returned")
    if operation.returned is not None and operation.returned < operation.called:
        raise ValueError(f"{operation}: it returned before it was called; use one clock for all")


def partition(
    history: Iterable[Operation], model: Model
) -> list[tuple[tuple[Key, ...], list[Operation]]]:
    """The parts of a history that have no key in common, each with its keys.

    Returns:
      In the order of their first operation in the history; keys as they came up.
    """
    parents: dict[Key, Key] = {}

    def root(key: Key) -> Key:
        parent = parents.setdefault(key, key)
        while parent != key:
            parents[key] = parents[parent]
            key, parent = parents[key], parents[parents[key]]
        return key

    operations = list(history)
    first_keys: list[Key] = []
    for operation in operations:
        first, *others = model.keys(operation.input)
        first_keys.append(first)
        root(first)
        for other in others:
            parents[root(other)] = root(first)
    parts: dict[Key, tuple[list[Key], list[Operation]]] = {}
    for key in parents:
        parts.setdefault(root(key), ([], []))[0].append(key)
    for key, operation in zip(first_keys, operations, strict=True):
        parts[root(key)][1].append(operation)
    return [(tuple(keys), part) for keys, part in parts.values()]


class Found(NamedTuple):
    """What the search in one partition gave."""

    judgement: Judgement
    steps: int


class _Choice(NamedTuple):
    """What is needed to take an operation out of the order again."""

    cursor: int
    """Where to go on: an entry of the list, or -1 - the index of an unknown operation."""
    alone: bool
    """No other choice needs to be tried in its place."""
    state: Any
    before: Any
    first: int
    ahead: int
    used: int


_NO_STATE = object()


def search(
    history: Sequence[Operation], keys: Sequence[Key], model: Model, steps_max: int
) -> Found:
    """Looks for an order that explains the operations of one partition."""
    return _Search(history, keys, model, steps_max).run()


class _Search:
    """One partition. Entries of the list are numbers from 1; 0 is its head and end."""

    def __init__(
        self, history: Sequence[Operation], keys: Sequence[Key], model: Model, steps_max: int
    ) -> None:
        ordered = sorted(history, key=lambda operation: operation.called)
        done = [operation for operation in ordered if operation.returned is not None]
        # A read that was never answered says nothing.
        self._unknown = [
            o.input for o in ordered if o.returned is None and not model.reads(o.input)
        ]
        called = [o.called for o in ordered if o.returned is None and not model.reads(o.input)]
        machine = model.machine(keys)
        self._step: Callable[[Any, Any, Any], Any] = machine.step
        self._initial = machine.initial
        self._inputs = [operation.input for operation in done]
        self._outputs = [operation.output for operation in done]
        self._reads = [model.reads(operation.input) for operation in done]
        self._steps_max = steps_max

        # At the same time calls stand before returns: who cannot be told apart is concurrent.
        moments = [(o.called, 0, index) for index, o in enumerate(done)]
        moments += [(o.returned, 1, index) for index, o in enumerate(done)]  # type: ignore[misc]  # all of `done` have
        moments.sort()
        count = len(moments) + 1
        self._operation = [0] * count
        self._is_return = [False] * count
        self._return_of = [0] * len(done)
        self._available = [0] * count
        """Of a return: how many unknown operations, in their order, were called before it."""
        self._next = [*range(1, count), 0]
        self._previous = [count - 1, *range(count - 1)]
        begun = 0
        for entry, (moment, kind, index) in enumerate(moments, start=1):
            self._operation[entry] = index
            if kind:
                self._is_return[entry] = True
                self._return_of[index] = entry
                while begun < len(called) and called[begun] <= moment:
                    begun += 1
                self._available[entry] = begun
        self._twin = self._twins()

    def _twins(self) -> list[int]:
        """For each unknown operation the one before it that asks for the same, or -1."""
        last: dict[Hashable, int] = {}
        twins: list[int] = []
        for index, input in enumerate(self._unknown):
            twins.append(last.get(input, -1))
            last[input] = index
        return twins

    def _lift(self, entry: int) -> None:
        next_, previous = self._next, self._previous
        for position in (entry, self._return_of[self._operation[entry]]):
            after, before = next_[position], previous[position]
            next_[before] = after
            previous[after] = before

    def _unlift(self, entry: int) -> None:
        next_, previous = self._next, self._previous
        for position in (self._return_of[self._operation[entry]], entry):
            next_[previous[position]] = position
            previous[next_[position]] = position

    def run(self) -> Found:
        """The whole search."""
        step, next_, is_return, operation = self._step, self._next, self._is_return, self._operation
        inputs, outputs, reads = self._inputs, self._outputs, self._reads
        unknown, twin, available = self._unknown, self._twin, self._available
        seen: dict[tuple[int, int, Any], tuple[int, ...]] = {}
        stack: list[_Choice] = []
        state: Any = self._initial
        before: Any = _NO_STATE  # the state ahead of the unknown operation chosen last
        first = ahead = used = steps = 0
        cursor = next_[0]
        while next_[0]:
            if steps > self._steps_max:
                return Found("undecided", steps)
            chosen = _NO_STATE
            alone = False
            if cursor == next_[0]:
                # A new configuration: a read that fits goes first.
                entry = cursor
                while not is_return[entry]:
                    index = operation[entry]
                    if reads[index]:
                        steps += 1
                        if step(state, inputs[index], outputs[index]) is not None:
                            chosen, alone, cursor = state, True, entry
                            break
                    entry = next_[entry]
            while chosen is _NO_STATE and cursor > 0 and not is_return[cursor]:
                index = operation[cursor]
                if not reads[index]:
                    steps += 1
                    after = step(state, inputs[index], outputs[index])
                    if after is not None and not (
                        before is not _NO_STATE
                        and step(before, inputs[index], outputs[index]) == after
                    ):
                        chosen = after
                        break
                cursor = next_[cursor]
            if chosen is not _NO_STATE:
                index = operation[cursor]
                ahead_after = ahead | 1 << (index - first)
                first_after = first
                if ahead_after & 1:
                    through = (~ahead_after & (ahead_after + 1)).bit_length() - 1
                    ahead_after >>= through
                    first_after += through
                if alone or _is_new(seen, (first_after, ahead_after, chosen), used):
                    stack.append(_Choice(cursor, alone, state, before, first, ahead, used))
                    self._lift(cursor)
                    state, before = chosen, _NO_STATE
                    first, ahead = first_after, ahead_after
                    cursor = next_[0]
                else:
                    cursor = next_[cursor]
                continue
            # Nothing that was answered can come next: perhaps what was not.
            if cursor > 0:
                limit, index = available[cursor], 0
            else:
                limit, index = self._limit(), -cursor
            while index < limit:
                bit = 1 << index
                if not used & bit and (twin[index] < 0 or used >> twin[index] & 1):
                    steps += 1
                    after = step(state, unknown[index], UNKNOWN)
                    if (
                        after is not None
                        and after != state
                        and not (
                            before is not _NO_STATE
                            and step(before, unknown[index], UNKNOWN) == after
                        )
                        and _is_new(seen, (first, ahead, after), used | bit)
                    ):
                        break
                index += 1
            if index < limit:
                stack.append(_Choice(-1 - index, False, state, before, first, ahead, used))
                state, before, used = after, state, used | 1 << index
                cursor = next_[0]
                continue
            # Go back to the last choice that could have been another one.
            while stack:
                cursor, alone, state, before, first, ahead, used = stack.pop()
                if cursor > 0:
                    self._unlift(cursor)
                if not alone:
                    break
            else:
                return Found("violation", steps)
            if cursor > 0:
                cursor = next_[cursor]
        return Found("linearizable", steps)

    def _limit(self) -> int:
        """How many unknown operations were called before the first return in the list."""
        entry = self._next[0]
        while not self._is_return[entry]:
            entry = self._next[entry]
        return self._available[entry]


def _is_new(
    seen: dict[tuple[int, int, Any], tuple[int, ...]], place: tuple[int, int, Any], used: int
) -> bool:
    """Notes a configuration, unless one was seen that is at least as good."""
    held = seen.get(place, ())
    if any(not known & ~used for known in held):
        return False
    seen[place] = (*[known for known in held if used & ~known], used)
    return True


def minimized(offence: Offence, model: Model, steps_max: int = MINIMIZING_STEPS_MAX) -> Offence:
    """A small part of a wrong history that is wrong by itself.

    Every part it tries would be linearizable if the whole were, so what is shown is no artefact:

    - a prefix in time, in which what is under way at its end has an unknown outcome;
    - what comes behind an operation that resets all keys, without what returned before that one
      was called; what overlaps it may have been done behind it or not, so its outcome is unknown;
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
    for reset in reversed(smallest):
        if left < 0:
            break
        if reset.returned is not None and model.resets(reset.input, offence.keys):
            behind = _behind(smallest, reset)
            if len(behind) < len(smallest) and wrong(behind):
                smallest = behind
                break
    return Offence(offence.keys, tuple(_without_reads(smallest, model, wrong)))


def _through(history: Iterable[Operation], end: int) -> list[Operation]:
    """What was called until then; what had not returned has an unknown outcome."""
    return [
        o if o.returned is not None and o.returned <= end else _left_open(o)
        for o in history
        if o.called <= end
    ]


def _behind(history: Iterable[Operation], reset: Operation) -> list[Operation]:
    """What may have been done behind an operation that leaves nothing of what was before."""
    assert reset.returned is not None
    kept: list[Operation] = []
    for o in history:
        if o is reset or o.called > reset.returned:
            kept.append(o)
        elif o.returned is None or o.returned >= reset.called:
            kept.append(_left_open(o))
    return kept


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


__all__ = [
    "UNKNOWN",
    "Machine",
    "Model",
    "Offence",
    "Operation",
    "Verdict",
    "check",
    "lines",
    "minimized",
    "partition",
]
