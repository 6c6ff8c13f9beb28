"""Makes a chosen stack cheaper without changing what it does: pure.

In this order, each step told in a note:

1. a layer that only adds what the layers below it provide already is left out (`removable`);
2. neighbours that commute change places where fewer steps between places, or a merge, follow;
3. neighbours that one implementation of both ends runs as one are merged.

Who commutes, adds nothing, or merges is declared by implementations; only layers that both ends
run, or that nobody runs at the other end, take part, so that both ends stay mirror images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from p4xos.chunnels.choosing import Choice, Chosen
from p4xos.chunnels.implementations import Implementation
from p4xos.chunnels.levels import Level, is_compared, rank
from p4xos.chunnels.places import Scope

ORDERS_MAX = 500
"""Orders of a stack that are looked at."""

Known = Mapping[tuple[str, str], Implementation]
Merging = Iterable[tuple[str, tuple[str, ...]]]


def optimize(
    choice: Choice, known: Known, merging: Merging = ()
) -> tuple[Choice, tuple[str, ...]]:
    """A choice that does the same for less, and what was done.

    Args:
      choice: what was agreed on.
      known: implementations of this end, by type and name.
      merging: those of the other end that run several layers as one.
    """
    notes: list[str] = []
    mergers = _mergers(known, frozenset(merging))
    layers = _without_needless(list(choice.layers), known, notes)
    layers = _reordered(layers, known, mergers, notes)
    layers = _merged(layers, mergers, notes)
    return choice._replace(layers=tuple(layers)), tuple(notes)


def _mergers(
    known: Known, theirs: frozenset[tuple[str, tuple[str, ...]]]
) -> list[Implementation]:
    """What both ends have, the one that takes most layers first."""
    found = [each for each in known.values() if each.merges and (each.name, each.merges) in theirs]
    return sorted(found, key=lambda each: (-len(each.merges), -each.priority, each.name))


def _own(chosen: Chosen, known: Known) -> Implementation | None:
    """What is declared of a layer; None where that is unknown at this end."""
    for name in (chosen.server, chosen.client):
        found = None if name is None else known.get((chosen.type, name))
        if found is not None:
            return found
    return None


def _without_needless(
    layers: list[Chosen], known: Known, notes: list[str]
) -> list[Chosen]:
    kept: list[Chosen] = []
    provided: dict[str, Level] = {}
    for chosen in reversed(layers):
        own = _own(chosen, known)
        adds = {key: level for key, level in chosen.levels.items() if is_compared(key)}
        if own is not None and own.removable and adds and all(
            rank(key, provided[key]) >= rank(key, level) if key in provided else False
            for key, level in adds.items()
        ):
            below = kept[-1].type if kept else "the wire"
            notes.append(f"{chosen.type} is left out: {below} provides as much")
            continue
        kept.append(chosen)
        for key, level in adds.items():
            if key not in provided or rank(key, level) > rank(key, provided[key]):
                provided[key] = level
    return kept[::-1]


def _reordered(
    layers: list[Chosen], known: Known, mergers: list[Implementation], notes: list[str]
) -> list[Chosen]:
    """The cheapest order that is reached by exchanging neighbours that commute."""

    def commute(one: Chosen, other: Chosen) -> bool:
        first, second = _own(one, known), _own(other, known)
        return (
            first is not None and second is not None
            and other.type in first.commutes and one.type in second.commutes
            and one.ends == other.ends
        )  # fmt: skip

    start = tuple(range(len(layers)))
    seen = {start}
    queue = [start]
    for order in queue:
        for k in range(len(order) - 1):
            if not commute(layers[order[k]], layers[order[k + 1]]):
                continue
            swapped = (*order[:k], order[k + 1], order[k], *order[k + 2 :])
            if swapped not in seen and len(seen) < ORDERS_MAX:
                seen.add(swapped)
                queue.append(swapped)

    def cost(order: tuple[int, ...]) -> tuple[int, int]:
        arranged = [layers[k] for k in order]
        return _crossings(arranged), len(_merged(arranged, mergers, []))

    best = min(queue, key=cost)  # the first of equals: the order that was asked for
    if cost(best) >= cost(start):
        return layers
    arranged = [layers[k] for k in best]
    told = " | ".join(each.type for each in arranged)
    notes.append(
        f"reordered to {told}: {_crossings(arranged)} steps between places instead of "
        f"{_crossings(layers)}"
    )
    return arranged


def _crossings(layers: list[Chosen]) -> int:
    """How often a message goes from one place to another; it begins in the application."""
    scopes = [Scope.APPLICATION, *(each.scope for each in layers)]
    return sum(one != other for one, other in pairwise(scopes))


def _merged(
    layers: list[Chosen], mergers: list[Implementation], notes: list[str]
) -> list[Chosen]:
    merged: list[Chosen] = []
    rest = list(layers)
    while rest:
        for own in mergers:
            count = len(own.merges)
            these = rest[:count]
            if tuple(each.type for each in these) == own.merges and all(
                each.client is not None and each.server is not None for each in these
            ):
                levels = {key: lv for each in these for key, lv in each.levels.items()}
                parameters = {key: v for each in these for key, v in each.parameters.items()}
                merged.append(
                    Chosen(
                        own.type, own.name, own.name, {**levels, **own.provides},
                        f"runs {' | '.join(own.merges)} as one", "both ends", own.scope,
                        parameters, own.merges,
                    )
                )  # fmt: skip
                notes.append(f"{' | '.join(own.merges)} run as one: {own.type} ({own.name})")
                del rest[:count]
                break
        else:
            merged.append(rest.pop(0))
    return merged
