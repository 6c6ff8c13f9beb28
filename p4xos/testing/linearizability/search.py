"""The search for an order that explains a history, after Wing and Gong, and Lowe.

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
- An unknown operation that makes no difference to the next one chosen is not used there, nor is
  one behind which nothing that may come next can fit, as far as the model can tell.
- A read that fits is chosen at once: it takes nothing away from what may come.

The search is bounded by steps of the model. Beyond the bound the verdict is "undecided", which
proves nothing, and never counts as good.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, NamedTuple

from p4xos.testing.linearizability.operations import UNKNOWN, Key, Model, Operation, State

STEPS_MAX = 5_000_000
"""Of the model, for one partition: some ten seconds."""

Judgement = Literal["linearizable", "violation", "undecided"]


class Found(NamedTuple):
    """What the search in one partition gave."""

    judgement: Judgement
    steps: int


def search(
    history: Sequence[Operation], keys: Sequence[Key], model: Model, steps_max: int
) -> Found:
    """Looks for an order that explains the operations of one partition."""
    return _Search(history, keys, model, steps_max).run()


def end_states(
    history: Sequence[Operation], keys: Sequence[Key], model: Model, steps_max: int
) -> tuple[set[State] | None, int]:
    """All states behind the answered operations of one partition, in any order that explains them.

    Returns:
      The states, without what unknown operations do later, or None: the search was over its bound;
      and the steps it took.
    """
    whole = _Search(history, keys, model, steps_max)
    return whole.all_ends(), whole.steps


class _Choice(NamedTuple):
    """The search as it was before an operation was chosen."""

    cursor: int
    """The entry that was chosen, or -1 - the index of an unknown operation."""
    alone: bool
    """No other choice needs to be tried in its place."""
    state: Any
    before: Any
    first: int
    ahead: int
    used: int


_NO_STATE = object()


class _Search:
    """One partition. Entries of the list are numbers from 1; 0 is its head and end."""

    def __init__(
        self, history: Sequence[Operation], keys: Sequence[Key], model: Model, steps_max: int
    ) -> None:
        ordered = sorted(history, key=lambda operation: operation.called)
        done = [o for o in ordered if o.returned is not None]
        # A read that was never answered says nothing.
        open_ = [o for o in ordered if o.returned is None and not model.reads(o.input)]
        machine = model.machine(keys, [o.input for o in open_])
        self._step: Callable[[Any, Any, Any], Any] = machine.step
        self._reaches: Callable[[Any, Any, Any], bool] = machine.reaches
        self._inputs = [o.input for o in done]
        self._outputs = [o.output for o in done]
        self._reads = [model.reads(o.input) for o in done]
        self._unknown = [o.input for o in open_]
        self._twins = _twins(self._unknown)
        self._make_list(done, [o.called for o in open_])

        self._steps_max = steps_max
        self.steps = 0
        self._seen: dict[tuple[int, int, Any], tuple[int, ...]] = {}
        """By operations chosen and state: the sets of unknown operations used on the way there."""
        self._stack: list[_Choice] = []
        self._cursor = self._next[0]
        """The entry to be tried next, or -1 - the index of the last unknown operation tried."""
        self._state: Any = machine.initial
        self._before: Any = _NO_STATE
        """The state ahead of the last choice, if that was an unknown operation."""
        self._first = 0
        """All answered operations below are chosen; ..."""
        self._ahead = 0
        """... and, bit by bit, these from there on."""
        self._used = 0
        """Unknown operations chosen."""

    def _make_list(self, done: Sequence[Operation], open_called: Sequence[int]) -> None:
        # At the same time calls stand before returns: who cannot be told apart is concurrent.
        moments = [(o.called, 0, index) for index, o in enumerate(done)]
        moments += [(o.returned or 0, 1, index) for index, o in enumerate(done)]
        moments.sort()
        count = len(moments) + 1
        self._operation = [index for _, _, index in [(0, 0, 0), *moments]]
        self._is_return = [kind == 1 for _, kind, _ in [(0, 0, 0), *moments]]
        self._return_of = [0] * len(done)
        self._available = [0] * count
        """At a return: how many unknown operations, in their order, were called before it."""
        self._next: list[int] = [*range(1, count), 0]
        self._previous = [count - 1, *range(count - 1)]
        called = 0
        for entry, (moment, kind, index) in enumerate(moments, start=1):
            if kind == 1:
                self._return_of[index] = entry
                while called < len(open_called) and open_called[called] <= moment:
                    called += 1
                self._available[entry] = called

    def run(self) -> Found:
        """The whole search."""
        while self._next[0]:
            if self.steps > self._steps_max:
                return Found("undecided", self.steps)
            if self._cursor == self._next[0] and self._choose_read():
                continue
            if self._cursor > 0 and self._choose_answered():
                continue
            if self._choose_unknown():
                continue
            if not self._go_back():
                return Found("violation", self.steps)
        return Found("linearizable", self.steps)

    def all_ends(self) -> set[State] | None:
        """As `end_states`."""
        ends: set[State] = set()
        while True:
            found = self.run()
            if found.judgement == "undecided":
                return None
            if found.judgement == "violation":
                return ends
            ends.add(self._state)
            if not self._go_back():
                return ends

    def _choose_read(self) -> bool:
        """In a new configuration: a read that fits goes first, and nothing else needs a try."""
        entry = self._cursor
        while not self._is_return[entry]:
            index = self._operation[entry]
            if self._reads[index]:
                self.steps += 1
                after = self._step(self._state, self._inputs[index], self._outputs[index])
                if after is not None:
                    self._choose(entry, True, after, *self._with(index))
                    return True
            entry = self._next[entry]
        return False

    def _choose_answered(self) -> bool:
        """From the cursor to the first return: what may come next and fits."""
        step, before = self._step, self._before
        while not self._is_return[self._cursor]:
            index = self._operation[self._cursor]
            if not self._reads[index]:
                input, output = self._inputs[index], self._outputs[index]
                self.steps += 1
                after = step(self._state, input, output)
                if after is not None and not (
                    before is not _NO_STATE and step(before, input, output) == after
                ):
                    first, ahead = self._with(index)
                    if self._is_new((first, ahead, after), self._used):
                        self._choose(self._cursor, False, after, first, ahead)
                        return True
            self._cursor = self._next[self._cursor]
        return False

    def _choose_unknown(self) -> bool:
        """Nothing that was answered can come next: perhaps what was not."""
        start = 0 if self._cursor > 0 else -self._cursor
        if start >= len(self._unknown):
            return False
        step, before, used = self._step, self._before, self._used
        wanted = self._candidates()
        for index in range(start, self._available[self._first_return()]):
            twin = self._twins[index]
            if used >> index & 1 or (twin >= 0 and not used >> twin & 1):
                continue
            input = self._unknown[index]
            self.steps += 1
            after = step(self._state, input, UNKNOWN)
            if (
                after is None
                or after == self._state
                or (before is not _NO_STATE and step(before, input, UNKNOWN) == after)
                or not any(self._reaches(after, *answered) for answered in wanted)
            ):
                continue
            if self._is_new((self._first, self._ahead, after), used | 1 << index):
                self._choose(-1 - index, False, after, self._first, self._ahead)
                return True
        return False

    def _with(self, index: int) -> tuple[int, int]:
        """The answered operations chosen, with one more: `first` and `ahead`."""
        first, ahead = self._first, self._ahead | 1 << (index - self._first)
        if ahead & 1:
            ones = (~ahead & (ahead + 1)).bit_length() - 1
            return first + ones, ahead >> ones
        return first, ahead

    def _is_new(self, place: tuple[int, int, Any], used: int) -> bool:
        """Notes a configuration, unless one was seen that is at least as good."""
        held = self._seen.get(place)
        if held is None:
            self._seen[place] = (used,)
            return True
        if any(not known & ~used for known in held):
            return False
        self._seen[place] = (*[known for known in held if used & ~known], used)
        return True

    def _choose(self, cursor: int, alone: bool, after: Any, first: int, ahead: int) -> None:
        self._stack.append(
            _Choice(cursor, alone, self._state, self._before, self._first, self._ahead, self._used)
        )
        if cursor > 0:
            self._lift(cursor)
            self._before = _NO_STATE
        else:
            self._used |= 1 << (-1 - cursor)
            self._before = self._state
        self._state, self._first, self._ahead = after, first, ahead
        self._cursor = self._next[0]

    def _go_back(self) -> bool:
        """To the last choice that could have been another one; false: there is none."""
        while self._stack:
            (
                cursor, alone, self._state, self._before, self._first, self._ahead, self._used
            ) = self._stack.pop()  # fmt: skip
            if cursor > 0:
                self._unlift(cursor)
            if not alone:
                self._cursor = self._next[cursor] if cursor > 0 else cursor
                return True
        return False

    def _lift(self, entry: int) -> None:
        """Takes a call and its return out of the list."""
        next_, previous = self._next, self._previous
        for position in (entry, self._return_of[self._operation[entry]]):
            after, before = next_[position], previous[position]
            next_[before] = after
            previous[after] = before

    def _unlift(self, entry: int) -> None:
        """Puts back what was lifted last."""
        next_, previous = self._next, self._previous
        for position in (self._return_of[self._operation[entry]], entry):
            next_[previous[position]] = position
            previous[next_[position]] = position

    def _candidates(self) -> list[tuple[Any, Any]]:
        """Input and output of all answered operations that may come next."""
        found: list[tuple[Any, Any]] = []
        entry = self._next[0]
        while not self._is_return[entry]:
            index = self._operation[entry]
            found.append((self._inputs[index], self._outputs[index]))
            entry = self._next[entry]
        return found

    def _first_return(self) -> int:
        entry = self._next[0]
        while not self._is_return[entry]:
            entry = self._next[entry]
        return entry


def _twins(inputs: Sequence[Hashable]) -> list[int]:
    """For each unknown operation the one before it that asks for the same, or -1.

    Of those that ask for the same the one called first can stand for any other.
    """
    last: dict[Hashable, int] = {}
    twins: list[int] = []
    for index, input in enumerate(inputs):
        twins.append(last.get(input, -1))
        last[input] = index
    return twins
