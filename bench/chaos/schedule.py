"""Which faults come when: drawn from a seed, several at once, in bouts that leave nothing broken.

The kinds come as from a deck of cards that is shuffled anew when it is used up, so that each is
played before any is played again.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

from bench.chaos.cluster import ChaosCluster, HarnessLost, Violation
from bench.chaos.faults import Fault, NotNow

AT_ONCE = 3
"""Faults at the same time, at most."""
BOUT = (2, 6)
"""Faults of a bout, drawn."""
_PAUSE_S = (0.1, 1.5)
"""Between the beginnings of two."""
_LOOK_S = 0.02


class Schedule:
    """Plays faults on a cluster, and counts them."""

    def __init__(
        self,
        cluster: ChaosCluster,
        kinds: Sequence[type[Fault]],
        chance: random.Random,
        say: Callable[[str], None],
        at_once: int = AT_ONCE,
    ) -> None:
        """Nothing happens yet.

        Args:
          cluster: to be broken.
          kinds: of the faults.
          chance: draws everything.
          say: is told what begins and what ends.
          at_once: how many there are at the same time, at most.
        """
        self.counts: Counter[str] = Counter()
        """How often each kind was played."""
        self.bites: Counter[str] = Counter()
        """How often each kind is known to have bitten."""
        self._cluster = cluster
        self._kinds = kinds
        self._chance = chance
        self._say = say
        self._at_once = at_once
        self._deck: list[type[Fault]] = []
        self._active: list[tuple[float, Fault]] = []

    @property
    def unplayed(self) -> set[str]:
        """Kinds that have not come yet."""
        return {kind.kind for kind in self._kinds} - self.counts.keys()

    def play_bout(self) -> None:
        """Plays some faults, and returns when all of them have ended.

        Raises:
          Violation: the cluster broke a promise; all faults have ended even so.
        """
        left = self._chance.randint(*BOUT)
        next_at = 0.0
        try:
            while left or self._active:
                now = time.monotonic()
                for due in [fault for at, fault in self._active if at <= now]:
                    self._end(due)
                if left and now >= next_at and len(self._active) < self._at_once:
                    self._begin(now)
                    left -= 1
                    next_at = now + self._chance.uniform(*_PAUSE_S)
                self._cluster.check_running()
                time.sleep(_LOOK_S)
        finally:
            self._end_all()

    def _begin(self, now: float) -> None:
        """The next fault of the deck for which there is something to take."""
        if not self._deck:
            self._deck = list(self._kinds)
            self._chance.shuffle(self._deck)
        for kind in reversed(self._deck):
            fault = kind(self._cluster, self._chance)
            try:
                told = fault.begin()
            except NotNow:
                continue
            self._deck.remove(kind)
            self._active.append((now + fault.lasts_s, fault))
            self.counts[kind.kind] += 1
            self._say(f"{told} ({fault.lasts_s:.1f} s)")
            return

    def _end(self, fault: Fault) -> None:
        self._active = [(at, other) for at, other in self._active if other is not fault]
        fault.end()
        self.bites[fault.kind] += fault.bites
        self._say(f"over: {fault.kind}")

    def _end_all(self) -> None:
        """Whatever one of them says, the others are ended too."""
        errors: list[Exception] = []
        for _, fault in sorted(self._active, key=lambda pair: pair[0]):
            try:
                self._end(fault)
            except (Violation, HarnessLost) as error:
                errors.append(error)
        if errors:
            raise errors[0]
