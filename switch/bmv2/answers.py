"""What leaves a switch for a batch of messages, put together from its frames."""

from __future__ import annotations

import numpy as np

from p4xos import wire
from p4xos.effects import To
from p4xos.errors import BadPacket
from p4xos.wire import Rows, Type
from switch.control.packets import Datagram, unframe
from switch.control.plan import Plan

_TELLS = (Type.PHASE2A, Type.PHASE2B)  # what an audience is told; LEARN alone is replied to so too


class Answers:
    """Of one batch: the copies for an audience are one answer."""

    def __init__(self, plan: Plan, *, replies_only: bool) -> None:
        """None yet; with `replies_only`, each goes to who asked."""
        self.count = 0  # of whole answers
        self.frames = 0
        self._plan = plan
        self._tells = () if replies_only else _TELLS
        self._known = set(plan.addresses.values())
        self._members = {plan.addresses[to] for to in plan.told}
        self._told: list[Datagram] = []  # copies of one answer, so far
        self._sends: list[tuple[To, bytes]] = []

    def add(self, packet: bytes) -> None:
        """The next frame; BadPacket for one that the programs never send."""
        datagram = unframe(packet)
        self.frames += 1
        if datagram.source != self._plan.own:
            raise BadPacket(f"the switch answers from {datagram.source}")
        payload = datagram.payload
        if len(payload) < wire.HEADER_BYTES:
            raise BadPacket(f"the switch sends {len(payload)} bytes")
        if payload[1] not in self._tells:
            if datagram.destination not in self._known:
                raise BadPacket(f"the switch answers {datagram.destination}, who is no member")
            self._answer(self._plan.receiver(datagram.destination, payload[1]), payload)
            return
        self._told.append(datagram)
        if len(self._told) == len(self._members):
            same = {each.payload for each in self._told} == {payload}
            if not same or {each.destination for each in self._told} != self._members:
                raise BadPacket("what the switch multicasts differs, or misses one it is for")
            self._told = []
            self._answer(self._plan.audience, payload)

    def sends(self) -> list[tuple[To, Rows]]:
        """As DataPlane.inject says."""
        return [
            (to, np.frombuffer(data, np.uint8).reshape(1, -1).copy()) for to, data in self._sends
        ]

    def _answer(self, to: To, payload: bytes) -> None:
        self.count += 1
        self._sends.append((to, payload))
