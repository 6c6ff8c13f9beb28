"""What keeps a machine from running the programs in its kernel."""

from __future__ import annotations

from p4xos.errors import P4xosError


class XdpUnavailable(P4xosError):
    """The programs cannot run here; software would serve."""

    def __init__(self, reason: str, mend: str) -> None:
        super().__init__(
            f"XDP cannot run here: {reason}; {mend}, or serve in software (data plane numpy)"
        )
        self.reason = reason
        self.mend = mend


class InterfaceGone(P4xosError):
    """The interface that a program was attached to is there no more."""

    def __init__(self, interface: str) -> None:
        several = ", " in interface
        super().__init__(
            f"the interface{'s' * several} {interface} {'are' if several else 'is'} gone, and the "
            "program there: bring them back, then start this node again, or serve in software "
            "(data plane numpy)"
        )
        self.interface = interface
