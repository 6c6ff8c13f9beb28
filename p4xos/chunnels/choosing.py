"""Feasibility, compatibility and choice: pure, from two offers to the layers of a connection.

For each way to read both stacks, best first: layers are paired by type, in order; a layer that one
end alone has asked for is allowed where one end can run it alone. For each layer, the candidates
are the pairs of implementations, or single ones, that

1. may be used: within the scopes that both ends allow, not further apart than they reach, able to
   run at the server, and with their resources free;
2. fit: equal on exact keys, at least what both ends require on compared ones, on layers below that
   can be what they must stand on (`over`);

and the operator's policy puts them in order, or leaves some out. docs/chunnels.md tells it with
examples. Why a candidate was not taken is kept, for `explain` and for errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from p4xos.chunnels.errors import NoAgreement
from p4xos.chunnels.implementations import Ends, Over
from p4xos.chunnels.levels import Level, disagreement, in_words, lacking, together
from p4xos.chunnels.offers import Offer, Offered, OfferedLayer
from p4xos.chunnels.places import Scope, distance


class Candidate(NamedTuple):
    """One way to run a layer, as a policy sees it."""

    type: str
    client: Offered | None
    """What runs at the client; None: nothing."""
    server: Offered | None
    levels: Mapping[str, Level]
    """What it provides."""

    @property
    def over(self) -> Over | None:
        """What the server's must stand on; None: anything."""
        return None if self.server is None else self.server.over

    @property
    def priority(self) -> int:
        """The higher one of both ends'."""
        return max(each.priority for each in (self.client, self.server) if each is not None)

    @property
    def scope(self) -> Scope:
        """The wider one of both ends'."""
        return max(each.scope for each in (self.client, self.server) if each is not None)

    @property
    def ends(self) -> str:
        """For people: who runs it."""
        if self.client is not None and self.server is not None:
            return "both ends"
        return "client" if self.server is None else "server"

    @property
    def name(self) -> str:
        """For people: the implementation, or both where they differ."""
        names = dict.fromkeys(e.name for e in (self.client, self.server) if e is not None)
        return " / ".join(names)


Policy = Callable[[Sequence[Candidate]], Sequence[Candidate]]
"""Puts candidates for a layer in order, the best first; those that it leaves out are forbidden."""


def default_policy(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """What the client provides by itself first, then the highest priority."""
    return sorted(candidates, key=lambda each: (each.server is not None, -each.priority))


class Free(NamedTuple):
    """What is left of the capacities that discovery knows; all else needs no leave."""

    amounts: Mapping[str, int]

    def short(self, resources: Mapping[str, int]) -> str | None:
        """The first resource that is not there."""
        for name, wanted in sorted(resources.items()):
            if self.amounts.get(name, 0) < wanted:
                return name
        return None


class Chosen(NamedTuple):
    """One layer of a connection."""

    type: str
    client: str | None
    """The implementation that the client runs."""
    server: str | None
    levels: Mapping[str, Level]
    reason: str
    ends: str
    scope: Scope = Scope.APPLICATION
    parameters: Mapping[str, object] = {}
    """From the server, for the client's implementation."""
    merged: tuple[str, ...] = ()
    """Types of the layers that it runs as one; none: only its own."""


class Choice(NamedTuple):
    """All layers of a connection, from application to wire."""

    client_alternative: int
    """Which reading of the client's stack; 0 where it is dictated."""
    server_alternative: int
    layers: tuple[Chosen, ...]


class _Pair(NamedTuple):
    type: str
    client: OfferedLayer | None
    server: OfferedLayer | None


def choose(
    client: Offer,
    server: Offer,
    *,
    policy: Policy = default_policy,
    free: Free | None = None,
    forbidden: frozenset[tuple[str, str]] = frozenset(),
    unable: Mapping[tuple[str, str], str] = {},
) -> Choice:
    """The best way to run a connection.

    Args:
      client: what one end offers; it may leave all to the other.
      server: what the other one offers.
      policy: the operator's.
      free: resources that are left.
      forbidden: (type, name) of implementations that were tried in vain.
      unable: those that the server cannot run now, and why.

    Raises:
      NoAgreement: there is none; it names the layer, what each end offers, and what to do.
    """
    apart = distance(client.place, server.place)
    rules = _Rules(apart, policy, free or Free({}), forbidden, unable)
    best: tuple[int, NoAgreement] | None = None
    servers = server.alternatives()
    clients = [()] if client.dictated else client.alternatives()
    for c, asked in enumerate(clients):
        for s, served in enumerate(servers):
            pairs = _pair(client.nodes if client.dictated else asked, served, client.dictated)
            try:
                return Choice(c, s, tuple(rules.choose(pairs, {})))
            except NoAgreement as error:
                reached = [pair.type for pair in pairs].index(error.layer)
                if best is None or reached > best[0]:
                    best = reached, error
    if best is None:
        raise NoAgreement("", "a stack has no way to be read; give it a layer")
    raise best[1]


def _pair(
    client: Sequence[object], server: tuple[OfferedLayer, ...], dictated: bool
) -> list[_Pair]:
    """Layers of both ends by type, in the order of the stacks."""
    theirs = [each for each in client if isinstance(each, OfferedLayer)]
    if dictated:
        known = {each.type: each for each in theirs}
        return [_Pair(each.type, known.get(each.type), each) for each in server]
    pairs: list[_Pair] = []
    rest = list(server)
    for each in theirs:
        at = next((k for k, other in enumerate(rest) if other.type == each.type), None)
        if at is None:
            pairs.append(_Pair(each.type, each, None))
            continue
        pairs += [_Pair(other.type, None, other) for other in rest[:at]]
        pairs.append(_Pair(each.type, each, rest[at]))
        del rest[: at + 1]
    pairs += [_Pair(other.type, None, other) for other in rest]
    # What only one end asks for, and stands below the other's last layer, stays above the wire.
    return pairs


class _Rules(NamedTuple):
    distance: Scope
    policy: Policy
    free: Free
    forbidden: frozenset[tuple[str, str]]
    unable: Mapping[tuple[str, str], str]

    def choose(self, pairs: Sequence[_Pair], asked: Over) -> list[Chosen]:
        """The best candidates for a layer and those below; NoAgreement where there are none.

        Args:
          pairs: the layers, from the uppermost.
          asked: what those above need of layers of a type.
        """
        if not pairs:
            return []
        pair, below = pairs[0], pairs[1:]
        ordered, refused = self._ordered(pair, asked.get(pair.type, {}))
        for k, best in enumerate(ordered):
            others = ordered[k + 1 :]
            if best.over is None:
                return [_chosen(best, others, refused), *self.choose(below, asked)]
            foreign = [each.type for each in below if each.type not in best.over]
            if foreign:
                refused.append(f"{_not(best)}it cannot stand on {foreign[0]}")
                continue
            needs = {
                type: {**asked.get(type, {}), **levels} for type, levels in best.over.items()
            }
            try:
                lower = self.choose(below, needs)
            except NoAgreement as error:
                wanted = in_words(best.over.get(error.layer, {})) or "another"
                refused.append(f"{_not(best)}it needs {error.layer} with {wanted}")
                continue
            return [_chosen(best, others, refused), *lower]
        raise NoAgreement(pair.type, _told(pair, refused))

    def _ordered(
        self, pair: _Pair, asked: Mapping[str, Level]
    ) -> tuple[list[Candidate], list[str]]:
        """Candidates that fit, the best first, and why others do not; NoAgreement: none does."""
        refused: list[str] = []
        foreign: list[str] = []  # two implementations that were never meant for one another
        able: list[Candidate] = []
        for candidate in self._candidates(pair):
            differ = _differ(candidate)
            if differ is not None:
                foreign.append(f"{_not(candidate)}the ends differ on {differ}")
                continue
            why = self._problem(pair, candidate, asked)
            if why is None:
                able.append(candidate)
            else:
                refused.append(_not(candidate) + why)
        ordered = list(self.policy(able))
        refused += [
            f"{_not(each)}the policy forbids it" for each in able if each not in ordered
        ]
        if not ordered:
            raise NoAgreement(pair.type, _told(pair, refused or foreign))
        return ordered, refused

    def _candidates(self, pair: _Pair) -> list[Candidate]:
        ours = pair.client.implementations if pair.client is not None else ()
        theirs = pair.server.implementations if pair.server is not None else ()
        found = [
            Candidate(pair.type, c, s, together(c.provides, s.provides))
            for c in ours for s in theirs if c.ends is s.ends is Ends.BOTH
        ]  # fmt: skip
        alone = (Ends.EITHER, Ends.CLIENT)
        found += [Candidate(pair.type, c, None, c.provides) for c in ours if c.ends in alone]
        alone = (Ends.EITHER, Ends.SERVER)
        found += [Candidate(pair.type, None, s, s.provides) for s in theirs if s.ends in alone]
        return found

    def _problem(
        self, pair: _Pair, candidate: Candidate, asked: Mapping[str, Level]
    ) -> str | None:
        """Why a candidate cannot be used."""
        if candidate.server is not None:
            unable = self.unable.get((pair.type, candidate.server.name))
            if unable is not None:
                return unable
            if self.distance < candidate.server.apart:
                near = Scope(candidate.server.apart - 1)
                return f"the ends are within one {near.words}"
        key = lacking(candidate.levels, asked)
        if key is not None:
            return f"a layer above needs {key}={asked[key]}"
        for each in (candidate.client, candidate.server):
            if each is None:
                continue
            if (pair.type, each.name) in self.forbidden:
                return "it was tried and could not begin"
            if self.distance > each.reach:
                return f"the ends are further apart than one {each.reach.words}"
            short = self.free.short(each.resources)
            if short is not None:
                return f"no {short} is free"
        for asking in (pair.client, pair.server):
            if asking is not None and asking.scope is not None and candidate.scope > asking.scope:
                return f"it runs in scope {candidate.scope.words}, beyond {asking.scope.words}"
        return self._misfit(pair, candidate)

    def _misfit(self, pair: _Pair, candidate: Candidate) -> str | None:
        provides = dict(candidate.levels)
        # Facts bind who runs the layer: a server that does all by itself does as it likes.
        if candidate.client is not None and pair.client is not None and pair.server is not None:
            ours, theirs = {**candidate.client.provides, **pair.client.facts}, pair.server.facts
            key = disagreement(ours, theirs)
            if key is not None:
                return f"{key} is {ours[key]} at the client and {theirs[key]} at the server"
        for asking in (pair.client, pair.server):
            if asking is not None:
                provides |= asking.facts
        for asking in (pair.client, pair.server):
            if asking is None:
                continue
            key = lacking(provides, asking.requires)
            if key is not None:
                had = provides.get(key, "nothing")
                return f"{key}={asking.requires[key]} is required and it provides {had}"
        return None


def _chosen(best: Candidate, others: Sequence[Candidate], refused: Sequence[str]) -> Chosen:
    return Chosen(
        best.type,
        None if best.client is None else best.client.name,
        None if best.server is None else best.server.name,
        best.levels, "; ".join([_why(best, others), *refused]), best.ends, best.scope,
    )  # fmt: skip


def _not(candidate: Candidate) -> str:
    return f"not {candidate.name} ({candidate.ends}): "


def _differ(candidate: Candidate) -> str | None:
    if candidate.client is None or candidate.server is None:
        return None
    return disagreement(candidate.client.provides, candidate.server.provides)


def _why(best: Candidate, others: Sequence[Candidate]) -> str:
    if not others:
        return "the only one that fits"
    beaten = ", ".join(f"{each.name} ({each.priority})" for each in others)
    if best.server is None and any(each.server is not None for each in others):
        return f"the client's own goes first; also possible: {beaten}"
    return f"priority {best.priority}; also possible: {beaten}"


def _told(pair: _Pair, refused: list[str]) -> str:
    """What each end offers, why nothing fits, and what to do."""
    offers = []
    for end, each in (("the client", pair.client), ("the server", pair.server)):
        if each is None:
            offers.append(f"{end} does not have it")
            continue
        able = ", ".join(
            f"{i.name} [{i.ends.value}]" + (f" ({in_words(i.provides)})" if i.provides else "")
            for i in each.implementations
        )
        said = [f"{end} offers {able or 'no implementation'}"]
        if each.facts:
            said.append(f"with {in_words(each.facts)}")
        if each.requires:
            said.append(f"and requires {in_words(each.requires)}")
        offers.append(" ".join(said))
    mend = (
        "change a requirement, or register an implementation that fits at both ends"
        if pair.client is not None and pair.server is not None
        else "put the layer into both stacks, or register one that runs at one end alone"
    )
    return "; ".join([*offers, *refused, mend])
