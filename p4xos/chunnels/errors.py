"""What can go wrong with a connection, as exceptions whose message ends with what to do."""

from __future__ import annotations

from p4xos.errors import P4xosError


class NoAgreement(P4xosError):
    """The two ends, or the members of a group, share no way to run a layer."""

    def __init__(self, layer: str, told: str, member: str = "") -> None:
        where = f"{member} refuses: " if member else ""
        what = f"layer {layer}: " if layer else ""
        super().__init__(f"{where}{what}{told}")
        self.layer = layer
        self.member = member


class NoAnswer(P4xosError):
    """Nobody has answered in time."""

    def __init__(self, peer: str, waited_s: float, attempts: int) -> None:
        super().__init__(
            f"{peer} has not answered within {waited_s:.2g} s ({attempts} offers were sent): look "
            "whether it serves there, and whether UDP gets through, then connect again"
        )
        self.waited_s = waited_s
        self.attempts = attempts


class UnknownName(P4xosError):
    """No instance of that name is announced."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f'"{name}" is announced by nobody ({why}): start what serves it with '
            f'announce="{name}", or give its address'
        )
        self.name = name


class Busy(P4xosError):
    """A resource that an implementation needs is taken."""

    def __init__(self, resource: str, free: int, wanted: int) -> None:
        super().__init__(
            f"{free} of {resource} are free and {wanted} are wanted: end what uses it, or allow "
            "an implementation that does without"
        )
        self.resource = resource
        self.free = free
        self.wanted = wanted


class Denied(P4xosError):
    """The server has agreed, and then could not begin."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the server does not begin the connection: {why}")
        self.why = why


class BadMessage(P4xosError):
    """A peer sent what is no message of the type that both ends agreed on."""

    def __init__(self, expected: str, why: str) -> None:
        super().__init__(
            f"a message is no {expected} ({why}); the peer breaks what it agreed to: end the "
            "connection, and look which program runs there"
        )


class Unable(P4xosError):
    """An implementation cannot run at this server; others may."""

    def __init__(self, why: str) -> None:
        super().__init__(f"an implementation cannot run here: {why}")
        self.why = why
