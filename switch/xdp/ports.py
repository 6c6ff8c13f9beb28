"""The programs on a machine's interfaces: several roles share each, and a role may have many.

One program can be on an interface, so that is `port.bpf.c`, which gives each packet to the program
of the role that it is for. It comes with the first role of this process and goes with its last.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Mapping

from p4xos.tables import Address
from switch.control.packets import host_number
from switch.xdp import attaching, libbpf
from switch.xdp.build import build
from switch.xdp.errors import XdpUnavailable

ROLES_MAX = 64
_SERVICE, _NUMBER = struct.Struct(">IH2x"), struct.Struct("=I")
_HERE = "/proc/thread-self/ns/net"


class _Attached:
    """An interface with the program on it."""

    def __init__(self, link: int, native: bool) -> None:
        self.link = link
        self.native = native
        self.users = 0


class _Board:
    """The interfaces of one namespace that have a program of this process."""

    def __init__(self) -> None:
        self._loaded = libbpf.Loaded(build("port", {}))
        self._program = self._loaded.program("port")
        self._services = self._loaded.map("services", _NUMBER.size)
        self._programs = self._loaded.map("programs", _NUMBER.size)
        self._entries: dict[bytes, int] = {}
        self.attached: dict[int, _Attached] = {}

    def attach(self, name: str, number: int, *, native: bool | None, else_: str) -> None:
        """One more role is on an interface; XdpUnavailable where it takes no program."""
        found = self.attached.get(number)
        if found is None:
            link, in_driver = attaching.attached(
                self._program.attach, name, number, native=native, sends=True, else_=else_
            )
            found = self.attached[number] = _Attached(link, in_driver)
        found.users += 1

    def detach(self, number: int) -> None:
        """One role less is on it."""
        found = self.attached[number]
        found.users -= 1
        if not found.users:
            os.close(found.link)
            del self.attached[number]

    def give(self, service: bytes, program: libbpf.Program) -> None:
        """From here on a role's packets go to its program."""
        free = (entry for entry in range(ROLES_MAX) if entry not in self._entries.values())
        entry = self._entries.get(service, next(free, None))
        if entry is None:
            raise XdpUnavailable(
                f"{ROLES_MAX} roles are on these interfaces", "give some another machine"
            )
        self._programs.write(_NUMBER.pack(program.descriptor), entry)
        self._services.write(_NUMBER.pack(entry), service)
        self._entries[service] = entry

    def take(self, service: bytes) -> None:
        """From here on they go where they would without programs."""
        self._services.remove(service)
        self._programs.remove(self._entries.pop(service))

    def close(self) -> None:
        """Nothing is attached any more."""
        self._loaded.close()


_boards: dict[int, _Board] = {}  # of this process, by the number of the namespace
_turn = threading.Lock()  # roles are opened in threads


class Plugged:
    """A role's program on interfaces of the calling thread's namespace, until `close`."""

    def __init__(
        self,
        interfaces: Mapping[str, int],
        address: Address,
        program: libbpf.Program,
        *,
        native: bool | None,
        else_: str,
    ) -> None:
        """Attaches it.

        Args:
          interfaces: numbers by name.
          address: of the role; packets to it are the program's.
          program: the role's; it is the caller's to unload, behind `close`.
          native: in the driver; None: where it can.
          else_: for people: what is slower where it cannot.

        Raises:
          XdpUnavailable: one of them takes no program; none has it then.
        """
        self._native, self._else = native, else_
        self._service = _SERVICE.pack(host_number(address.host), address.port)
        self._attached: dict[str, int] = {}
        self._given = False
        with _turn:
            self._at = os.stat(_HERE).st_ino
            board = self._board = _boards.get(self._at) or _Board()
            _boards[self._at] = board
            try:
                self._change(interfaces)
                board.give(self._service, program)
                self._given = True
            except BaseException:
                self._close()
                raise

    @property
    def interfaces(self) -> dict[str, int]:
        """Where it is attached, numbers by name."""
        return dict(self._attached)

    @property
    def native(self) -> bool:
        """Whether it is in the driver on all of them."""
        return all(self._board.attached[number].native for number in self._attached.values())

    def change(self, interfaces: Mapping[str, int]) -> None:
        """From here on it is on these; XdpUnavailable as before, and it is on the others then."""
        with _turn:
            self._change(interfaces)

    def close(self) -> None:
        """The program is on none of them any more; twice does nothing."""
        with _turn:
            self._close()

    def _change(self, interfaces: Mapping[str, int]) -> None:
        for name, number in [*self._attached.items()]:
            if interfaces.get(name) != number:
                self._board.detach(number)
                del self._attached[name]
        for name, number in interfaces.items():
            if name not in self._attached:
                self._board.attach(name, number, native=self._native, else_=self._else)
                self._attached[name] = number

    def _close(self) -> None:
        if self._given:
            self._board.take(self._service)
            self._given = False
        self._change({})
        if not self._board.attached and _boards.get(self._at) is self._board:
            del _boards[self._at]
            self._board.close()
