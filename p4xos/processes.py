"""Which process runs what: lock files that hold a process id, and how to stop a process.

A lock (flock) is the proof, the number in the file only tells whom to ask: the kernel drops the
lock with its process, however that ends. A bare pid file would be believed after a crash, when
the number belongs to another program; comparing start times makes that rare, the lock excludes it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from p4xos.errors import P4xosError

NODE_LOCK = "node.pid"
"""Lock file of a running node, in its data directory."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)  # looked up before any fork

# Someone who looks whether a lock is held holds it for an instant: try again before giving up.
_TRIES, _TRY_AGAIN_S = 20, 0.01


def prefer_batches() -> bool:
    """Tells the kernel that this process gains by waiting a little; whether it was told.

    Under SCHED_BATCH whoever wakes this process keeps its core to the end of its turn, so what it
    sends arrives as one large batch and not as many small ones. On a core that is idle anyway
    nothing changes. It needs no privilege; where it is forbidden (seccomp) all works as before.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        return False
    return True


class AlreadyRunning(P4xosError):
    """Another process holds the lock."""

    def __init__(self, path: Path, what: str, pid: int | None) -> None:
        process = "by another process" if pid is None else f"as process {pid}"
        mend = "stop it first" if pid is None else f"stop it first: kill {pid}"
        super().__init__(f"{what} is running already, {process} ({path} is locked); {mend}")
        self.path = path
        self.pid = pid


@contextmanager
def claimed(path: Path, what: str) -> Iterator[None]:
    """Holds a lock file that names this process; `what` is who runs, for the message.

    Raises:
      AlreadyRunning: another process holds it.
      OSError: the directory cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        for attempt in range(_TRIES):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == _TRIES - 1:
                    raise AlreadyRunning(path, what, _written_pid(path)) from None
                time.sleep(_TRY_AGAIN_S)
        try:
            file.truncate(0)
            file.write(b"%d\n" % os.getpid())
        except OSError as error:  # a full disk; the system does not say which
            raise OSError(error.errno, error.strerror, str(path)) from None
        # The file stays: to remove it would let two processes lock two files of one name.
        yield


def running_process(path: Path) -> int | None:
    """The process that holds a lock file, or None."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _written_pid(path)
    except FileNotFoundError:
        pass
    return None


def open_process(path: Path) -> int | None:
    """A pidfd of the process that holds a lock file; the caller closes it. None: none holds it.

    A pidfd means one process for ever, where its number may be given to another.
    """
    pid = running_process(path)
    if pid is None:
        return None
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        if running_process(path) == pid:  # it was this one that was opened
            return handle
        os.close(handle)
    return None


def send_signal(handle: int, number: signal.Signals) -> None:
    """Signals the process of a pidfd; nothing when it has ended."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, number)


def _written_pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (ValueError, OSError):
        return None  # locked, and not yet written


def end_with_parent(number: signal.Signals) -> Callable[[], None]:
    """What a child does between fork and exec: asks for a signal at its parent's end.

    The parent is this process, however it ends; for subprocess' `preexec_fn`.
    """
    parent = os.getpid()

    def ask() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)

    return ask
