"""Errors as they were raised, without the groups that nurseries put them into.

Every nursery that an exception passes wraps it. A connection has nurseries of its own, of which an
application knows nothing: it sees its own exception.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_plain_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery whose body's exception comes out as it is; one of a task does where it has none."""
    body: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                body = error
                raise
    except BaseExceptionGroup as group:
        raise plain(group, body) from None


def plain(group: BaseExceptionGroup[BaseException], body: BaseException | None) -> BaseException:
    """The one exception that tells what happened; the others are told in its notes."""
    found = list(dict.fromkeys(leaves(group)))
    real = [error for error in found if not isinstance(error, trio.Cancelled)]
    if body is not None and not isinstance(body, trio.Cancelled):
        first = body
        inside = {body, *(leaves(body) if isinstance(body, BaseExceptionGroup) else ())}
    else:
        first = (real or found)[0]
        inside = {first}
    for other in real:
        if other not in inside:
            first.add_note(f"also: {type(other).__name__}: {other}")
    return first


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group, and in the groups in it."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for below in error.exceptions for leaf in leaves(below)]
    return [error]
