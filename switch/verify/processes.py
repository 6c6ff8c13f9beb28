"""Work on several cores: questions are independent, and the solver uses one core only."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from p4xos.processes import end_with_parent

R = TypeVar("R")

_tasks: Sequence[Callable[[], object]] = ()
"""What the children find when they are forked: formulas cannot be sent."""


def results(tasks: Sequence[Callable[[], R]], processes: int | None = None) -> list[R]:
    """What tasks return, in their order; each runs in a copy of this process.

    Args:
      tasks: whose results can be pickled. The long ones first keep all processes busy longest.
      processes: how many at once; as many as there are cores, if not told.
    """
    global _tasks
    count = min(processes or len(os.sched_getaffinity(0)), len(tasks))
    if count <= 1:
        return [task() for task in tasks]
    _tasks = tasks
    context = multiprocessing.get_context("fork")
    try:
        with warnings.catch_warnings():
            # Python warns where other threads run: a child could wait for a lock that one of them
            # held. Ours take none, they only compute.
            warnings.simplefilter("ignore", DeprecationWarning)
            with_us = end_with_parent(signal.SIGKILL)
            with ProcessPoolExecutor(count, context, _begin, (with_us,)) as pool:
                return list(pool.map(_run, range(len(tasks))))  # type: ignore[arg-type]
    finally:
        _tasks = ()


def _run(number: int) -> object:
    return _tasks[number]()


def _begin(with_us: Callable[[], None]) -> None:
    """A child ends when we do; of Ctrl-C at once, without a traceback beside what we say."""
    with_us()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
