"""The log of a process: lines for people, or one JSON object a line for what collects logs."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Final, Literal, get_args

LogFormat = Literal["text", "json"]
LOG_FORMATS: Final[tuple[LogFormat, ...]] = get_args(LogFormat)
DEFAULT_FORMAT: Final[LogFormat] = "text"
FORMAT_VARIABLE = "P4XOS_LOG_FORMAT"
"""Of the environment: how the nodes write that a launcher starts, and those without the flag."""
_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_OWN = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime"}
"""What every record has; anything else was given as `extra`."""


class JsonFormatter(logging.Formatter):
    """One line a record: time, level, logger, message, fields, and an exception where there is one.

    `fields` holds what the call gave as `extra` and what the process said of itself; a value that
    is no JSON is written as its text, so that a line is never lost.
    """

    def __init__(self, fields: dict[str, object] | None = None) -> None:
        super().__init__()
        self._fields = fields or {}

    def format(self, record: logging.LogRecord) -> str:
        """As JSON on one line."""
        at = datetime.fromtimestamp(record.created, UTC)
        extra = {name: value for name, value in vars(record).items() if name not in _OWN}
        line: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "fields": {**self._fields, **extra},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def format_of_environment() -> LogFormat:
    """What the environment asks for; text where it says nothing that is known."""
    return "json" if os.environ.get(FORMAT_VARIABLE) == "json" else DEFAULT_FORMAT


def configure(log_format: LogFormat, **fields: object) -> None:
    """Writes the log of this process to standard error, from level INFO on.

    Args:
      log_format: "text" or "json".
      fields: go into every JSON line.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter(fields) if log_format == "json" else logging.Formatter(_TEXT)
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
