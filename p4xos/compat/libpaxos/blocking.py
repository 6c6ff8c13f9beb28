"""libpaxos' log for scripts without trio.

    with Blocking("paxos.conf") as paxos:
        iid = paxos.submit(b"value")
        for iid, value in paxos.deliver(after=0):
            ...
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import aclosing
from os import PathLike
from types import TracebackType
from typing import Self

import trio

from p4xos.compat.libpaxos.client import Learning, Submitting
from p4xos.compat.libpaxos.conf import PaxosConf
from p4xos.packing import Deliveries


class Blocking:
    """Submits and delivers by calls that wait; trio runs in a thread of its own."""

    def __init__(self, config_file: str | PathLike[str]) -> None:
        """Connects when it is entered; ConfigError, OSError for a file that is no good."""
        self._conf = PaxosConf.load(config_file)
        self._thread = threading.Thread(target=trio.run, args=(self._main,), daemon=True)
        self._begun = threading.Event()
        self._token: trio.lowlevel.TrioToken
        self._stop: trio.Event
        self._submitting: Submitting
        self._nursery: trio.Nursery

    def __enter__(self) -> Self:
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._token.run_sync_soon(self._stop.set)
        self._thread.join()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        self._submitting = Submitting(self._conf)
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._submitting.run)
            self._begun.set()
            await self._stop.wait()
            self._nursery.cancel_scope.cancel()

    def submit(self, value: bytes) -> int | None:
        """Returns when the value is in the log: its instance, where the answer was not lost."""

        async def submit() -> int | None:
            return await self._submitting.submit(value).wait()

        return trio.from_thread.run(submit, trio_token=self._token)

    def deliver(self, after: int = 0) -> Iterator[tuple[int, bytes]]:
        """(iid, value) behind an instance, then what follows, for ever.

        Raises:
          Trimmed: what comes next is no longer kept.
        """
        learning = Learning(self._conf)
        learning.next = after + 1
        ended = trio.from_thread.run_sync(trio.CancelScope, trio_token=self._token)
        send, receive = trio.open_memory_channel[Deliveries | Exception](0)

        async def learn() -> None:
            with ended:
                try:
                    async with aclosing(learning.batches()) as batches:
                        async for batch in batches:
                            await send.send(batch)
                except Exception as error:
                    await send.send(error)

        self._token.run_sync_soon(self._nursery.start_soon, learn)
        try:
            while True:
                found = trio.from_thread.run(receive.receive, trio_token=self._token)
                if isinstance(found, Exception):
                    raise found
                yield from found
        finally:
            self._token.run_sync_soon(ended.cancel)
