"""What is true of any order, told to the solver: so it need not find it out bit by bit.

Bits know nothing of order: that a <= b and b <= c make a <= c takes a search each time, which is
now and then a thousand times as long as usual. With the few cases of that law that a question can
need written beside it, the engine that keeps words whole decides the same question in
milliseconds. What is added holds of all numbers, so it changes no answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations, permutations

import z3

from switch.verify.terms import Term

_BITS_MIN = 16
"""Narrower words are compared with constants, not with each other."""


class _Graph:
    """Words that are compared, and which with which."""

    def __init__(self) -> None:
        self.words: dict[int, Term] = {}
        self.beside: dict[int, set[int]] = {}

    def compared(self, left: Term, right: Term) -> None:
        """Notes a comparison of two words."""
        one, other = left.get_id(), right.get_id()
        if one != other:
            self.words[one], self.words[other] = left, right
            self.beside.setdefault(one, set()).add(other)
            self.beside.setdefault(other, set()).add(one)

    def most(self, one: int, other: int) -> Term:
        """That one word is at most the other."""
        return z3.ULE(self.words[one], self.words[other])

    def triangles(self) -> Iterator[tuple[int, int, int]]:
        """Three words each, compared with each other: enough of them for every longer round.

        A round of comparisons, a <= b <= c <= d <= a, is cut into triangles by the comparisons
        that removing one word after the other, that with the fewest neighbours first, calls for.
        """
        beside = {word: set(others) for word, others in self.beside.items()}
        while beside:
            word = min(beside, key=lambda each: (len(beside[each]), each))
            others = sorted(beside.pop(word))
            for other in others:
                beside[other].remove(word)
            for one, other in combinations(others, 2):
                beside[one].add(other)
                beside[other].add(one)
                yield word, one, other


def laws(formulas: Iterable[Term]) -> list[Term]:
    """The laws of order for the words that formulas compare: all of them hold always."""
    graph, equal, chosen = _compared(formulas)
    told = [
        z3.Implies(condition, z3.And(z3.ULE(word, value), z3.ULE(value, word)))
        for word, condition, value in chosen
    ]
    told += [
        (left == right) == z3.And(z3.ULE(left, right), z3.ULE(right, left))
        for left, right in equal
    ]
    pairs = {(one, other) for one, others in graph.beside.items() for other in others}
    for triangle in graph.triangles():
        pairs |= set(permutations(triangle, 2))
        for a, b, c in permutations(triangle):
            told.append(
                z3.Or(z3.Not(graph.most(a, b)), z3.Not(graph.most(b, c)), graph.most(a, c))
            )
    return told + [z3.Or(graph.most(a, b), graph.most(b, a)) for a, b in pairs if a < b]


def _compared(
    formulas: Iterable[Term],
) -> tuple[_Graph, list[tuple[Term, Term]], list[tuple[Term, Term, Term]]]:
    """What is compared; of this what is also asked to be equal; and what a word is, and when."""
    graph = _Graph()
    equations: list[tuple[Term, Term]] = []
    seen: set[int] = set()
    left = list(formulas)
    while left:
        formula = left.pop()
        if formula.get_id() in seen:
            continue
        seen.add(formula.get_id())
        sides = formula.children()
        if len(sides) == 2 and z3.is_bv(sides[0]) and sides[0].size() >= _BITS_MIN:
            if z3.is_app_of(formula, z3.Z3_OP_ULEQ):
                graph.compared(*sides)
            elif z3.is_eq(formula):
                equations.append((sides[0], sides[1]))
        left += sides
    chosen: list[tuple[Term, Term, Term]] = []
    words = list(graph.words.values())
    while words:  # a choice between two words is one of them
        word = words.pop()
        if z3.is_app_of(word, z3.Z3_OP_ITE):
            condition, then, other = word.children()
            chosen += [(word, condition, then), (word, z3.Not(condition), other)]
            words += [each for each in (then, other) if each.get_id() not in graph.words]
            graph.compared(word, then)
            graph.compared(word, other)
    equal = [
        (one, other)
        for one, other in equations
        if one.get_id() in graph.words and other.get_id() in graph.words
    ]
    for one, other in equal:
        graph.compared(one, other)
    return graph, equal, chosen
