"""The numpy roles as a data plane: the reference for all others."""

from __future__ import annotations

import numpy as np

from p4xos.effects import To
from p4xos.roles.acceptor import Acceptor
from p4xos.roles.sequencer import Sequencer
from p4xos.wire import Rows
from switch.control.backend import REGISTERS, SLOT_REGISTERS, pack_seen, unpack_seen
from switch.control.plan import Plan


class NumpyPlane:
    """An acceptor or a sequencer (switch.control.backend.DataPlane)."""

    def __init__(self) -> None:
        """Nothing is loaded."""
        self._plan: Plan | None = None
        self._role: Acceptor | Sequencer | None = None
        self._open = False

    def load(self, plan: Plan) -> None:
        """As Backend."""
        self._plan = plan
        self.reset()

    def open(self, incarnation: int = 0) -> None:
        """As Backend."""
        role = self._loaded()
        if isinstance(role, Acceptor):
            role.incarnation = incarnation
        self._open = True

    def close(self) -> None:
        """As Backend."""
        self._open = False

    def read(self, register: str, index: int = 0) -> int:
        """As Backend."""
        role = self._loaded()
        _check(role, register)
        if register == "slot_value":
            assert isinstance(role, Acceptor)
            length = int(role.slot_length[index])
            value = role.slot_value[index, :length].tobytes()
            return int.from_bytes(value.ljust(role.value_bytes, b"\0"), "big")
        held = getattr(role, register)
        if register == "seen":
            return pack_seen(held)
        return int(held[index]) if isinstance(held, np.ndarray) else int(held)

    def write(self, register: str, value: int, index: int = 0) -> None:
        """As Backend."""
        role = self._loaded()
        _check(role, register)
        if register == "slot_value":
            assert isinstance(role, Acceptor)
            data = value.to_bytes(role.value_bytes, "big")
            role.slot_value[index] = np.frombuffer(data, np.uint8)
        elif register == "seen":
            assert isinstance(role, Acceptor)
            role.seen = unpack_seen(value, len(role.seen))
        elif register in SLOT_REGISTERS:
            getattr(role, register)[index] = value
        else:
            setattr(role, register, value)

    def reset(self) -> None:
        """As Backend."""
        plan = self._plan
        assert plan is not None, "nothing is loaded"
        self._open = False
        if plan.role == "acceptor":
            self._role = acceptor = Acceptor(
                frame=plan.frame, acceptors=plan.acceptors, window=plan.window,
                value_bytes=plan.value_bytes,
            )  # fmt: skip
            acceptor.low = 0  # as a switch: the controller writes the first one
        else:
            self._role = Sequencer(
                frame=plan.frame, window=plan.window, value_bytes=plan.value_bytes
            )

    def statistics(self) -> dict[str, int]:
        """As Backend: the role's counters."""
        return dict(self._loaded().counters)

    def teardown(self) -> None:
        """As Backend."""
        self._role = None

    def inject(self, rows: Rows) -> list[tuple[To, Rows]]:
        """As DataPlane."""
        if not self._open:
            return []
        return self._loaded().step(rows, now=0.0).send

    def _loaded(self) -> Acceptor | Sequencer:
        assert self._role is not None, "nothing is loaded"
        return self._role


def _check(role: Acceptor | Sequencer, register: str) -> None:
    known = REGISTERS["coordinator"]
    if isinstance(role, Acceptor):
        known = REGISTERS["acceptor"] + SLOT_REGISTERS
    if register not in known:
        raise ValueError(f"no register {register}: there is {', '.join(known)}")
