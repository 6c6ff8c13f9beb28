"""The network between simulated processes: loss, duplication, delay, reordering, partitions."""

from __future__ import annotations

from random import Random

import numpy as np

from p4xos.effects import Role
from p4xos.testing.simulator.scenario import Scenario
from p4xos.wire import Rows

Address = tuple[Role, int]
"""A process: a learner and its proposer share the learner's."""


class Network:
    """Decides what becomes of every batch; healed, it loses and reorders nothing."""

    def __init__(self, scenario: Scenario, random: Random) -> None:
        self._scenario = scenario
        self._random = random
        self._blocked: dict[tuple[Address, Address], int] = {}
        self.healed = False

    def block(self, links: list[tuple[Address, Address]]) -> None:
        """Nothing passes from the first to the second of each pair."""
        for link in links:
            self._blocked[link] = self._blocked.get(link, 0) + 1

    def unblock(self, links: list[tuple[Address, Address]]) -> None:
        """The inverse of `block`; partitions may overlap."""
        for link in links:
            if link in self._blocked:
                self._blocked[link] -= 1

    def heal(self) -> None:
        """From here on everything arrives, once."""
        self.healed = True
        self._blocked.clear()

    def carry(self, source: Address, target: Address, rows: Rows) -> list[tuple[float, Rows]]:
        """What arrives: (delay in seconds, rows), each a copy of its own."""
        if self._blocked.get((source, target), 0) > 0:
            return []
        random, scenario = self._random, self._scenario
        arrivals = []
        for piece in self._pieces(rows):
            if self.healed:
                arrivals.append((self._delay(), piece.copy()))
                continue
            if scenario.loss and random.random() < 2 * scenario.loss:
                # Bursts and single datagrams: half of the losses hit a whole piece.
                if random.random() < 0.5:
                    continue
                keep = np.array([random.random() >= scenario.loss for _ in range(len(piece))])
                piece = piece[keep]
                if not len(piece):
                    continue
            arrivals.append((self._delay(), piece.copy()))
            while random.random() < scenario.duplicate:
                arrivals.append((self._delay(), piece.copy()))
        return arrivals

    def _pieces(self, rows: Rows) -> list[Rows]:
        random = self._random
        if len(rows) == 1 or random.random() >= self._scenario.split:
            return [rows]
        pieces, start = [], 0
        while start < len(rows):
            stop = start + random.randint(1, len(rows))
            pieces.append(rows[start:stop])
            start = stop
        return pieces

    def _delay(self) -> float:
        scenario, random = self._scenario, self._random
        if not self.healed and random.random() < scenario.straggle:
            return random.uniform(0, scenario.straggle_s)
        return scenario.delay_s * random.uniform(0.5, 1.5)
