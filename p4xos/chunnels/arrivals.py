"""How a client comes to its server: with a ticket, which may be there before all is ready, or not.

Without a pass the ticket comes first, and the client is told when the connection begins. With one
the server makes ready first, and answers the offer then: the ticket that follows finds all done.
Where making ready takes long, the offer is answered before, and the client waits as if it had none.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from p4xos.chunnels.connection import Messages
from p4xos.chunnels.implementations import Begin

LONG_S = 0.2
"""A client that hears nothing for longer could take the server for dead."""


class Arrival:
    """The coming of one client."""

    def __init__(
        self, answer: Callable[[bool], object], carried: Messages[bytes] | None = None
    ) -> None:
        """Has not come.

        Args:
          answer: answers the offer, and says whether the client has to wait then.
          carried: its messages, where they are there before its ticket.
        """
        self.answered = False
        """Whether its offer was answered."""
        self.carried = carried
        self._answer = answer
        self._begin: Begin | None = None
        self._came = trio.Event()

    def come(self, carried: Messages[bytes], begin: Begin) -> None:
        """Its ticket is there; `begin` as in `Serving.admit_untrusted`."""
        self.answered = True
        self.carried = carried
        self._begin = begin
        self._came.set()

    async def messages(self) -> Messages[bytes]:
        """From and to it; asks it to come where they are not there before."""
        if self.carried is None:
            self.answer(wait=True)
            await self._came.wait()
        else:
            await trio.lowlevel.checkpoint()
        assert self.carried is not None, "it came with them"
        return self.carried

    def answer(self, *, wait: bool) -> None:
        """Answers the offer, unless that is done."""
        if not self.answered:
            self.answered = True
            self._answer(wait)

    async def answer_if_long(self) -> None:
        """Answers when all is not ready in time."""
        await trio.sleep(LONG_S)
        self.answer(wait=True)

    async def wait(self, longest_s: float) -> bool:
        """Whether it comes in time."""
        with trio.move_on_after(longest_s):
            await self._came.wait()
        return self._came.is_set()

    def begin(self, why: str) -> None:
        """Tells one that has come that the connection begins, or why it does not."""
        if self._begin is not None:
            self._begin(why)
