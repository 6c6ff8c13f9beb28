"""A learner and its proposer as one role, since they share an address.

Whatever arrives goes to both. What the learner delivers is given to the proposer by whoever owns
the application, which needs to know the tickets that it settles.
"""

from __future__ import annotations

from p4xos.batching import split_runs
from p4xos.effects import Effects
from p4xos.roles.learner import Learner
from p4xos.roles.proposer import Proposer
from p4xos.wire import Rows, Type


class Replica:
    """The machine that a driver runs beside an application."""

    def __init__(self, learner: Learner, proposer: Proposer) -> None:
        assert learner.frame == proposer.frame
        self.learner = learner
        self.proposer = proposer

    @property
    def counters(self) -> dict[str, int]:
        """Those of both."""
        return {**self.learner.counters, **self.proposer.counters}

    def step(self, rows: Rows, now: float) -> Effects:
        """Acts on a batch; see `Learner.step` and `Proposer.step`."""
        if self.learner.takes_late_votes(rows):
            return Effects.none()
        runs = split_runs(rows, self.learner.window)
        effects = self.learner.step_runs(rows, runs, now)
        for run in runs:
            if run.type != Type.PHASE2B:  # votes, as most batches are, are the learner's alone
                effects.extend(self.proposer.step(rows[run.start : run.stop], now))
        return effects

    def tick(self, now: float) -> Effects:
        """What time demands of either."""
        effects = self.learner.tick(now)
        if effects.send:  # it asks for votes that did not come
            self.proposer.slow_down(now)
        effects.extend(self.proposer.tick(now))
        return effects

    def deadline(self) -> float | None:
        """When `tick` next matters."""
        times = (self.learner.deadline(), self.proposer.deadline())
        return min([time for time in times if time is not None], default=None)
