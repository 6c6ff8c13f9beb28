"""Runs a program until it is told to stop, and tells what it did."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from switch.lang.interpreter import Interpreter
from switch.running.settings import Settings
from switch.running.wires import Wires


def serve(switch: Interpreter, settings: Settings) -> dict[str, Any]:
    """On the settings' ports, until SIGINT or SIGTERM; the statistics.

    Raises:
      ValueError: there is no port.
      OSError: an address cannot be had.
    """
    if not settings.wires:
        raise ValueError(
            "a switch without ports: give --port 1=LOCAL,PEER, or [ports.1] in the file of --config"
        )
    with Wires(switch, settings.wires) as wires, _until_stopped():
        for port, wire in settings.wires.items():
            print(f"port {port}: {wire.local}, peer {wire.peer}", file=sys.stderr, flush=True)
        while True:
            wires.turn(None)
    return statistics(switch) | {
        "strangers": wires.strangers,
        "unsent": {str(port): n for port, n in sorted(wires.unsent.items())},
    }


def statistics(switch: Interpreter) -> dict[str, Any]:
    """What a switch did, and its counters that are not 0."""
    told = switch.statistics
    return {
        "packets_in": told.packets_in,
        "packets_out": told.packets_out,
        "dropped": told.dropped,
        "parser_errors": told.parser_errors,
        "faults": {str(fault): n for fault, n in told.faults.items()},
        "counters": {
            name: {str(index): n for index, n in enumerate(cells.packets) if n}
            for name, cells in switch.counters.items()
        },
    }


@contextmanager
def _until_stopped() -> Iterator[None]:
    """Ends the block where a signal to stop comes; the packet it comes upon may be lost."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
