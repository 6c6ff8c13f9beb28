"""A whole history: its partitions, and what the search says about each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from p4xos.testing.linearizability.offences import MINIMIZING_STEPS_MAX, Offence, minimized
from p4xos.testing.linearizability.operations import UNKNOWN, Key, Model, Operation
from p4xos.testing.linearizability.search import STEPS_MAX, Judgement, search


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
