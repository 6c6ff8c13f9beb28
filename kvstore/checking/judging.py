"""From a history to what is said about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from kvstore.checking.history import OUTCOMES, Attempt, operations
from kvstore.checking.model import StoreModel, check_command
from p4xos.testing.linearizability import STEPS_MAX, Verdict, check, lines


@dataclass(frozen=True)
class Judged:
    """A history and the verdict about it."""

    verdict: Verdict
    attempts: int
    outcomes: dict[str, int]
    """How many attempts, by outcome."""
    commands: dict[str, int]
    """How many attempts, by the command's name."""
    seconds: float
    """From the first call to the last answer."""

    @property
    def good(self) -> bool:
        """Whether it is proven that what was answered is linearizable, and something was."""
        return self.verdict.good and self.outcomes["answered"] > 0

    @property
    def said(self) -> str:
        """The verdict in a word; where nothing was answered, nothing is decided."""
        if self.verdict.good and not self.good:
            return "undecided"
        return self.verdict.judgement

    @property
    def per_second(self) -> float:
        """Attempts that were answered."""
        return self.outcomes["answered"] / self.seconds if self.seconds else 0.0

    def data(self) -> dict[str, object]:
        """For scripts."""
        verdict = self.verdict
        return {
            "verdict": self.said,
            "attempts": self.attempts,
            "outcomes": self.outcomes,
            "commands": self.commands,
            "seconds": round(self.seconds, 3),
            "answered_per_s": round(self.per_second, 1),
            "partitions": verdict.partitions,
            "steps": verdict.steps,
            "offending_keys": [_texts(offence.keys) for offence in verdict.offences],
            "undecided_keys": [_texts(keys) for keys in verdict.undecided],
            "offence": self.offence(),
        }

    def lines(self) -> list[str]:
        """For people."""
        verdict = self.verdict
        told = [
            f"verdict: {self._explained()}",
            f"attempts: {self.attempts} in {self.seconds:.1f} s, "
            + ", ".join(f"{self.outcomes[name]} {name}" for name in OUTCOMES)
            + f" ({self.per_second:.0f} answered/s)",
            "commands: " + ", ".join(f"{count} {name}" for name, count in self.commands.items()),
        ]
        for offence in verdict.offences:
            told.append(f"wrong: {' '.join(_texts(offence.keys))}")
        for keys in verdict.undecided:
            told.append(f"undecided: {' '.join(_texts(keys))}")
        if verdict.offences:
            told += ["no order explains these (milliseconds):", *self.offence()]
        return told

    def _explained(self) -> str:
        if not self.outcomes["answered"]:
            return "undecided: no node answered anything, so nothing is proven"
        return _VERDICTS[self.said]

    def offence(self) -> list[str]:
        """The first offence, one operation a line; empty when there is none."""
        if not self.verdict.offences:
            return []
        return lines(self.verdict.offences[0].operations, StoreModel())


_VERDICTS = {
    "linearizable": "linearizable",
    "violation": "VIOLATION: this is not linearizable",
    "undecided": "undecided: the search was over its bound, so nothing is proven",
}


def judge(attempts: Sequence[Attempt], *, steps_max: int = STEPS_MAX) -> Judged:
    """Judges what clients of a store saw.

    Args:
      attempts: of all clients that used these keys, in any order.
      steps_max: bounds the search, for each partition.

    Raises:
      ValueError: the model does not know a command.
    """
    for attempt in attempts:
        check_command(attempt.command)
    verdict = check(operations(attempts), StoreModel(), steps_max=steps_max)
    outcomes = Counter(attempt.outcome for attempt in attempts)
    commands = Counter(attempt.command[0].decode() for attempt in attempts)
    begin = min((attempt.called for attempt in attempts), default=0)
    end = max((attempt.ended for attempt in attempts), default=0)
    return Judged(
        verdict, len(attempts), {name: outcomes[name] for name in OUTCOMES},
        dict(sorted(commands.items())), (end - begin) / 1e9,
    )  # fmt: skip


def _texts(keys: Sequence[object]) -> list[str]:
    return [k.decode("utf-8", "backslashreplace") if isinstance(k, bytes) else str(k) for k in keys]
