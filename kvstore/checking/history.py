"""What clients of a workload did and were told: one attempt after the other, and as JSON lines.

An attempt is one command, or one transaction, sent once. Its times are of the machine's monotonic
clock, which all processes of the machine share, so histories of several of them can be joined.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, NamedTuple, Self, get_args

from kvstore.replies import Error
from p4xos.testing.linearizability import UNKNOWN, Operation

Outcome = Literal["answered", "refused", "unknown"]
"""answered: `output` is what the command gave. refused: nothing of it was done, for sure.
unknown: it may have been done, or be done later; of a read: there is no answer."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

Command = tuple[Any, ...]
"""Words as bytes: (b"SET", key, value); a transaction is (b"MULTI", command, command, ...)."""
Output = Any
"""None, bytes, int or `Error`; a tuple of them for a transaction."""


class BadHistory(ValueError):
    """A file that holds no history; the message says where and why."""

    def __init__(self, source: str, line: int, complaint: str) -> None:
        super().__init__(
            f"{source}, line {line}: {complaint}; give a file that `kvstore check --history` wrote"
        )


class Attempt(NamedTuple):
    """One command sent once. Flat, since there are many."""

    client: int
    node: str
    called: int
    """Nanoseconds, monotonic: before its first byte was sent."""
    ended: int
    """When its answer had come, or nobody waited any longer."""
    command: Command
    outcome: Outcome
    output: Output = None
    """Meaningful when it was answered."""
    problem: str = ""
    """What went wrong, when it was not."""


class History:
    """Attempts in the order in which they ended; each is written to a file at once, if asked."""

    def __init__(self, file: Path | None = None) -> None:
        """Empty.

        Args:
          file: gets a line of JSON for each attempt; overwritten.

        Raises:
          OSError: it cannot be written.
        """
        self.attempts: list[Attempt] = []
        self.outcomes: Counter[str] = Counter()
        """How many, by outcome."""
        self._file: IO[str] | None = None if file is None else file.open("w", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Writes what is buffered, and closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def add(self, attempt: Attempt) -> None:
        """Keeps an attempt that has ended."""
        self.attempts.append(attempt)
        self.outcomes[attempt.outcome] += 1
        if self._file is not None:
            self._file.write(to_line(attempt))

    def operations(self) -> Iterator[Operation]:
        """What the checker judges."""
        return operations(self.attempts)


def operations(attempts: Iterable[Attempt]) -> Iterator[Operation]:
    """Attempts as the checker takes them; what was refused had no effect, and is left out."""
    for attempt in attempts:
        client = f"{attempt.client}@{attempt.node}"
        if attempt.outcome == "answered":
            yield Operation(client, attempt.called, attempt.ended, attempt.command, attempt.output)
        elif attempt.outcome == "unknown":
            yield Operation(client, attempt.called, None, attempt.command, UNKNOWN)


def to_line(attempt: Attempt) -> str:
    """One line of JSON."""
    fields: dict[str, object] = {
        "client": attempt.client,
        "node": attempt.node,
        "called": attempt.called,
        "ended": attempt.ended,
        "command": _to_json(attempt.command),
        "outcome": attempt.outcome,
    }
    if attempt.outcome == "answered":
        fields["output"] = _to_json(attempt.output)
    else:
        fields["problem"] = attempt.problem
    return json.dumps(fields) + "\n"


def read_history(path: Path) -> list[Attempt]:
    """The attempts of a file; a last line that was cut off is left out.

    Raises:
      OSError: it cannot be read.
      BadHistory: it is no history.
    """
    attempts: list[Attempt] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                break  # a process that was killed wrote half of it
            try:
                attempts.append(from_line_untrusted(line))
            except (ValueError, RecursionError) as error:
                raise BadHistory(str(path), number, str(error)) from None
    return attempts


def from_line_untrusted(line: str) -> Attempt:
    """What `to_line` made.

    Raises:
      ValueError: it is no such line.
    """
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError("this is no object of JSON")
    client, called, ended = (_number(fields, name) for name in ("client", "called", "ended"))
    outcome, node, problem = fields.get("outcome"), fields.get("node"), fields.get("problem", "")
    if outcome not in OUTCOMES:
        raise ValueError(f'"outcome" must be one of {", ".join(OUTCOMES)}')
    if not isinstance(node, str) or not isinstance(problem, str):
        raise ValueError('"node" and "problem" must be texts')
    if ended < called:
        raise ValueError('"ended" lies before "called"')
    command = _from_json(fields.get("command"))
    if not isinstance(command, tuple) or not command:
        raise ValueError('"command" must be a list of words')
    if outcome == "answered" and "output" not in fields:
        raise ValueError('"output" is missing')
    return Attempt(
        client, node, called, ended, command, outcome, _from_json(fields.get("output")), problem
    )


def _number(fields: dict[str, object], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f'"{name}" must be a whole number')
    return value


def _to_json(value: object) -> object:
    match value:
        case Error(text):
            return {"error": _text(text)}
        case bytes():
            return _text(value)
        case tuple() | list():
            return [_to_json(item) for item in value]
        case _:
            return value


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _from_json(value: object) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "surrogateescape")
        case list():
            return tuple(_from_json(item) for item in value)
        case {"error": str(text)}:
            return Error(text.encode("utf-8", "surrogateescape"))
        case None | int():
            return value
        case _:
            raise ValueError(f"{json.dumps(value)[:60]} has no meaning here")
