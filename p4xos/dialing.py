"""Connections to a node's TCP service; see `service` for what is said on them."""

from __future__ import annotations

import os
from typing import NamedTuple

import trio

from p4xos.errors import BadPacket, P4xosError
from p4xos.framing import (
    Frame,
    FrameStream,
    bytes_untrusted,
    encode_head,
    integer_untrusted,
    text_untrusted,
)
from p4xos.remote_errors import Refused, raise_error_untrusted
from p4xos.sealing import NONCE_BYTES, Altered, Seal, new_nonce
from p4xos.secret import Secret
from p4xos.service import OPEN_VERSION, SEALED_VERSION
from p4xos.tables import Address

DIAL_S = 2.0


class Unreachable(P4xosError):
    """No node could be reached that serves what was asked for."""

    def __init__(self, problems: dict[str, str]) -> None:
        told = "; ".join(f"{where}: {why}" for where, why in problems.items())
        super().__init__(f"no node serves this ({told}); start a node, or check the addresses")
        self.problems = problems


class ConnectionLost(P4xosError):
    """The connection to a node ended while an answer was awaited."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(
            f"the connection to node {node} ended ({reason}); the outcome of what was submitted "
            "through it is unknown: read before you submit again"
        )
        self.node = node


class Dialed(NamedTuple):
    """A connection behind its hello."""

    frames: FrameStream
    node: str
    cluster: int
    no_log: str
    """Why values are not submitted and delivered there; empty when they are."""


async def dial(
    address: Address, cluster: int, secret: Secret | None, *, peer: bool = False
) -> Dialed:
    """Connects to a node and says hello; with a secret, both prove that they have it.

    Args:
      address: its `peer` address.
      cluster: the cluster's id; 0 takes any.
      secret: the cluster's; None where it has none, and whoever answers is believed.
      peer: whether this is a node that catches up.

    Raises:
      Refused: it does not want this connection.
      Unreachable: it cannot be reached, or is no node.
    """
    frames: FrameStream | None = None
    try:
        with trio.fail_after(DIAL_S):
            frames = FrameStream(await trio.open_tcp_stream(address.host, address.port))
            if secret is None:
                frames.post(
                    {"ask": "hello", "version": OPEN_VERSION, "cluster": cluster, "peer": peer}
                )
            else:
                await _prove(frames, str(address), cluster, secret, peer=peer)
                frames.post({"ask": "prove"})
            await frames.flush()
            head = (await answer_untrusted(frames, str(address))).head
        return Dialed(
            frames, text_untrusted(head, "node"), integer_untrusted(head, "cluster"),
            text_untrusted(head, "log"),
        )  # fmt: skip
    except BaseException as error:
        if frames is not None:
            await frames.aclose()
        if isinstance(error, trio.TooSlowError):
            raise Unreachable({str(address): f"no answer within {DIAL_S:g} s"}) from None
        if isinstance(error, Altered):
            raise Refused(f"{address}: {error}") from None
        if isinstance(error, (OSError, BadPacket, ConnectionLost)):
            raise Unreachable({str(address): _reason(error)}) from None
        raise


async def _prove(
    frames: FrameStream, node: str, cluster: int, secret: Secret, *, peer: bool
) -> None:
    """Exchanges nonces, and seals the connection with the keys that they give.

    Raises:
      Refused: the node does not go on; who says so has not proved that it is one.
    """
    nonce = new_nonce()
    hello = {
        "ask": "hello", "version": SEALED_VERSION, "cluster": cluster, "peer": peer, "nonce": nonce
    }  # fmt: skip
    frames.post(hello)
    await frames.flush()
    try:
        head = (await answer_untrusted(frames, node)).head
    except Refused as error:
        raise Refused(f"{node} answers, before any proof of who it is: {str(error)!r}") from None
    if cluster and integer_untrusted(head, "cluster") != cluster:
        raise BadPacket("it belongs to another cluster")
    theirs = bytes_untrusted(head, "nonce", NONCE_BYTES)
    cluster = integer_untrusted(head, "cluster", 1, (1 << 32) - 1)
    frames.seal = Seal.of(secret, "dialing", cluster, nonce + theirs, encode_head(hello))


async def answer_untrusted(frames: FrameStream, node: str) -> Frame:
    """The next frame of a node.

    Raises:
      P4xosError: the error that it carries.
      ConnectionLost: there is none.
      BadPacket: it is no frame.
    """
    try:
        frame = await frames.receive_untrusted()
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise ConnectionLost(node, str(error) or "broken") from None
    if frame is None:
        raise ConnectionLost(node, "it was closed there")
    raise_error_untrusted(frame.head)
    return frame


async def ask_untrusted(dialed: Dialed, head: dict[str, object]) -> Frame:
    """One request and its answer, or the error that it is; see `answer_untrusted`."""
    dialed.frames.post(head)
    try:
        await dialed.frames.flush()
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise ConnectionLost(dialed.node, str(error)) from None
    return await answer_untrusted(dialed.frames, dialed.node)


def _reason(error: BaseException) -> str:
    """What the system said: trio tells which host, and has the reason below, in a group or not."""
    if isinstance(error, OSError):
        below = error.__cause__
        if isinstance(below, BaseExceptionGroup):
            below = below.exceptions[0]
        if isinstance(below, OSError):
            error = below
        return os.strerror(error.errno).lower() if error.errno else str(error)
    return str(error)


__all__ = ["ConnectionLost", "Dialed", "Refused", "Unreachable", "answer_untrusted", "dial"]
