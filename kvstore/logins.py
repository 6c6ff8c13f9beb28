"""Clients that authenticate: the connection waits, its password is checked, then it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from kvstore import authentication, commands
from kvstore.admission import Admission
from kvstore.authentication import WRONG, Authenticator
from kvstore.commands.client import Client
from kvstore.commands.permissions import views
from kvstore.connection import Connection
from kvstore.replies import CommandError, Reply


class Logins:
    """Who the clients of a server have shown to be."""

    def __init__(
        self,
        access: Authenticator | None,
        admission: Admission,
        watch: Callable[[Connection], None],
        answered: Callable[[Connection], None],
    ) -> None:
        """Without `access` everybody may do all, and there is nothing to do.

        Args:
          access: the users.
          admission: is told who is known and who is not.
          watch: called when a connection waits for something else.
          answered: called when a connection's AUTH is answered.
        """
        self.access = access
        self.nursery: trio.Nursery | None = None
        """Where passwords are checked, while the server runs."""
        self._admission = admission
        self._watch = watch
        self._answered = answered
        self._views = {} if access is None else views(commands.TABLE)
        """What clients may run, by rights."""

    def limit(self, client: Client) -> bool:
        """Limits a new client to what one may run that is not known; false: it need not be."""
        if self._views:
            client.view = self._views[""]
        return bool(self._views)

    def check(self, connection: Connection) -> None:
        """Checks what the client has asked for; to its connection it is a run under way."""
        assert self.nursery is not None, "the server runs"
        connection.outstanding = 1
        connection.blocked = True  # who has not authenticated is not read ahead
        self._watch(connection)
        self.nursery.start_soon(self._verify, connection)

    async def _verify(self, connection: Connection) -> None:
        client, access = connection.client, self.access
        asked, client.asked = client.asked, None
        assert asked is not None
        assert access is not None
        reply: Reply
        try:
            user = await access.verify(asked, client.host)
            if not access.knows(user):  # the users were read again meanwhile
                raise CommandError(WRONG)
        except CommandError as error:
            reply = error.reply
            client.failures += 1
        else:
            client.user, client.view = user, self._views.get(user.rights)
            reply = asked.finish()
        if connection.closed:
            return
        if client.user is not None:
            self._admission.known(connection)
        connection.blocked = False
        connection.complete([reply])
        if client.failures >= authentication.FAILURES_MAX:
            connection.hang_up()
        self._answered(connection)

    def forget(self, client: Client, connections: Iterable[Connection]) -> None:
        """Makes a client one that is not known (RESET)."""
        if client.user is None:
            return  # it is a newcomer, and gets no new time
        client.user = None
        self.limit(client)
        for connection in connections:
            if connection.client is client:
                self._admission.begin(connection)
                return

    def reload(
        self, connections: Iterable[Connection], close: Callable[[Connection], None]
    ) -> None:
        """Reads the users again, and closes connections of those who were removed or changed."""
        if self.access is None:
            return
        self.access.reload()
        for connection in list(connections):
            user = connection.client.user
            if user is not None and not self.access.knows(user):
                why = f"user {user.name} was removed or changed"
                self._admission.turned_away("users_gone_closed", connection.client.address, why)
                close(connection)
