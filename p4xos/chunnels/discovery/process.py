"""The discovery service as a process of its own: `p4xos discovery`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import trio

from p4xos import logs
from p4xos.chunnels.discovery.client import Discovery
from p4xos.chunnels.discovery.service import Service
from p4xos.chunnels.offers import AMOUNT_MAX
from p4xos.node import run_main, until_signalled


def capacities(words: Sequence[str]) -> dict[str, int]:
    """The capacities that flags name; ValueError where one is no NAME=COUNT."""
    found: dict[str, int] = {}
    for word in words:
        name, _, count = word.partition("=")
        if not name or not count.isdecimal() or len(count) > 20 or int(count) > AMOUNT_MAX:
            raise ValueError(
                f"--capacity {word}: write NAME=COUNT, as in card.slots=4, with a count of at most "
                f"{AMOUNT_MAX}"
            )
        if name in found:
            raise ValueError(f"--capacity {name} is given twice; add both, and give it once")
        found[name] = int(count)
    return found


def run(
    path: Path,
    state: Path | None,
    always: dict[str, int],
    log_format: logs.LogFormat | None = None,
) -> None:
    """Runs the service until a signal stops it.

    Raises:
      P4xosError, OSError: the socket cannot be had.
    """
    service = Service(path, state, always)
    run_main(until_signalled, service.run, node="discovery", log_format=log_format)


def show(path: Path) -> dict[str, object]:
    """What the service at a socket knows.

    Raises:
      Down: none answers.
    """

    async def look() -> dict[str, object]:
        view = await Discovery(path).picture()
        return {
            "implementations": {
                f"{type}/{name}": dict(parameters)
                for (type, name), parameters in view.registered.items()
            },
            "free": dict(view.free.amounts),
            "names": {
                name: [f"{host}:{port}" for (host, port), _ in instances]
                for name, instances in view.names.items()
            },
        }

    return trio.run(look)
