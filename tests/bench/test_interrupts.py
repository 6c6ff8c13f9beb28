"""A signal ends a run also when it comes where Python drops what is raised."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from bench.interrupts import interruptible

LIMIT_S = 60.0


class SignalsWhenItGoes:
    """An exception that leaves a finalizer is dropped, as one of a hook of `fork` is."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number

    def __del__(self) -> None:
        signal.raise_signal(self._number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_was_dropped_comes_again(number: signal.Signals) -> None:
    came = False
    with interruptible():
        try:
            SignalsWhenItGoes(number)
            ends = time.monotonic() + LIMIT_S
            while time.monotonic() < ends:
                time.sleep(0.01)
        except KeyboardInterrupt:
            came = True
    assert came


def test_other_dropped_exceptions_go_where_they_went(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fails:
        def __del__(self) -> None:
            raise ValueError("in a finalizer")

    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: told.append(dropped.exc_type))
    with interruptible():
        Fails()
    assert told == [ValueError]


def test_handlers_are_as_before_afterwards() -> None:
    numbers = (signal.SIGTERM, signal.SIGALRM)
    before = [sys.unraisablehook, *map(signal.getsignal, numbers)]
    with interruptible():
        pass
    assert [sys.unraisablehook, *map(signal.getsignal, numbers)] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
