"""A run that is told to end does end, and what it has made is removed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN_S = 0.01


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt as Ctrl-C does, and neither gets lost.

    Python drops an exception that a callback raises (a hook of `fork`, a finalizer, a weak
    reference's), so a signal that comes just then would be gone: it comes once more, soon after.

    SIGTERM goes by way of SIGINT, since trio has its own handler for that one, which raises where
    trio can bear it. Main thread only.
    """
    dropped = sys.unraisablehook

    def note(unraisable: sys.UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        else:
            dropped(unraisable)

    previous = {
        number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGALRM)
    }
    sys.unraisablehook = note
    try:
        yield
    finally:
        sys.unraisablehook = dropped
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)
