"""The few functions of Debian's libbpf that are needed, by ctypes.

Why not a binding: none on PyPI is kept in step with libbpf, and most bring a copy of it or need a
compiler. Its C interface has been stable since 1.0, and reading ELF, BTF and relocations is what it
is there for. Nothing is pinned: programs, maps and links live as long as this process has them
open, however it ends.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from switch.xdp.errors import XdpUnavailable

# linux/bpf.h, linux/if_link.h
_ATTACH_XDP, _ATTACH_TCX_EGRESS = 37, 47
_SKB_MODE, _DRV_MODE = 1 << 1, 1 << 2
_F_LOCK = 4
XDP_DROP, XDP_PASS, XDP_REDIRECT = 1, 2, 4

# The kernel answers membarrier when each processor has been outside of what RCU guards, as programs
# are. asm/unistd_64.h, asm-generic/unistd.h; linux/membarrier.h
_MEMBARRIER = 324 if os.uname().machine == "x86_64" else 283
_MEMBARRIER_GLOBAL = 1

_NAMES = ("libbpf.so.1",)
_PACKET_BYTES = 4096


class _LinkOptions(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("flags", ctypes.c_uint32),
        ("iter_info", ctypes.c_void_p),
        ("iter_info_len", ctypes.c_uint32),
        ("target_btf_id", ctypes.c_uint32),
    )


class _RunOptions(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("returned", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration_ns", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_libc = ctypes.CDLL(None, use_errno=True)
_said: list[str] = []  # by libbpf, since the last call that keeps it


def _print(level: int, form: bytes, arguments: int) -> int:
    text = ctypes.create_string_buffer(1 << 16)
    _libc.vsnprintf(text, len(text), form, ctypes.c_void_p(arguments))
    _said.append(text.value.decode(errors="replace"))
    return 0


_keep_print = _PRINT(_print)  # libbpf calls it for as long as the process lives


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
        library.bpf_object__open_file.restype = ctypes.c_void_p
        library.bpf_object__find_program_by_name.restype = ctypes.c_void_p
        library.libbpf_set_print.restype = ctypes.c_void_p
        library.libbpf_set_print(_keep_print)
        return library
    raise XdpUnavailable("libbpf is missing", "install it (Debian: apt-get install libbpf1)")


def _refused(reason: str, number: int) -> XdpUnavailable:
    """What the kernel said no to, with what it said."""
    if number in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
        return XdpUnavailable("it needs root", "run it as root")
    if number == errno.EPERM:
        return XdpUnavailable(
            "root may not load programs here",
            "give it CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN, as a privileged container has them",
        )
    told = [line for text in _said for line in text.splitlines()]
    verifier = [
        line for line in told
        if line and not line.startswith(("libbpf:", "processed ", "-- ", "verification time"))
    ]  # fmt: skip
    detail = verifier[-1] if verifier else os.strerror(number)
    return XdpUnavailable(
        f"{reason}: {detail}", f"use a newer kernel (this is {os.uname().release})"
    )


class Map:
    """A map of a loaded program; keys are 32-bit indexes unless bytes are given."""

    def __init__(self, descriptor: int, value_bytes: int) -> None:
        self._descriptor = descriptor
        self._value = ctypes.create_string_buffer(value_bytes)
        self._key = ctypes.c_uint32()

    def read(self, index: int = 0, *, locked: bool = False) -> bytes:
        """The value at an index; `locked`: all of it at one moment."""
        self._key.value = index
        code = _library().bpf_map_lookup_elem_flags(
            self._descriptor, ctypes.byref(self._key), self._value,
            ctypes.c_uint64(_F_LOCK if locked else 0),
        )  # fmt: skip
        if code:
            raise OSError(-code, os.strerror(-code))
        return self._value.raw

    def write(self, value: bytes, key: int | bytes = 0, *, locked: bool = False) -> None:
        """Makes the value at an index or key be this one."""
        packed = key if isinstance(key, bytes) else key.to_bytes(4, "little")
        code = _library().bpf_map_update_elem(
            self._descriptor, packed, value, ctypes.c_uint64(_F_LOCK if locked else 0)
        )
        if code:
            raise OSError(-code, os.strerror(-code))

    def find(self, key: bytes) -> bytes | None:
        """The value of a key; None where there is none."""
        code = _library().bpf_map_lookup_elem(self._descriptor, key, self._value)
        return None if code else self._value.raw

    def remove(self, key: int | bytes) -> None:
        """Empties an entry; nothing where it is empty."""
        packed = key if isinstance(key, bytes) else key.to_bytes(4, "little")
        _library().bpf_map_delete_elem(self._descriptor, packed)


class Program:
    """An XDP program that can be attached, and run on a packet without any interface."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._in = ctypes.create_string_buffer(_PACKET_BYTES)
        self._out = ctypes.create_string_buffer(_PACKET_BYTES)
        self._options = _RunOptions(
            size=ctypes.sizeof(_RunOptions),
            data_in=ctypes.addressof(self._in), data_out=ctypes.addressof(self._out),
        )  # fmt: skip

    def run(self, packet: bytes, repeat: int = 1) -> tuple[int, bytes]:
        """What the program says of a packet, and the packet afterwards.

        Its interface is then the loopback of the calling thread's network namespace.
        """
        options = self._options
        ctypes.memmove(self._in, packet, len(packet))
        options.data_size_in, options.data_size_out = len(packet), _PACKET_BYTES
        options.repeat = repeat
        code = _library().bpf_prog_test_run_opts(self.descriptor, ctypes.byref(options))
        if code:
            raise OSError(-code, os.strerror(-code))
        return options.returned, ctypes.string_at(self._out, options.data_size_out)

    @property
    def duration_ns(self) -> int:
        """What a packet took on average in the last run."""
        return int(self._options.duration_ns)

    def attach(self, interface: int, *, native: bool) -> int:
        """The descriptor of a link: the program runs on the interface until it is closed.

        Raises:
          OSError: the driver, or the kernel, does not.
        """
        return self._link(interface, _ATTACH_XDP, _DRV_MODE if native else _SKB_MODE)

    def attach_egress(self, interface: int) -> int:
        """The same for a program that sees what leaves (tcx, Linux 6.6 or later); OSError."""
        return self._link(interface, _ATTACH_TCX_EGRESS, 0)

    def _link(self, interface: int, kind: int, flags: int) -> int:
        options = _LinkOptions(size=ctypes.sizeof(_LinkOptions), flags=flags)
        link = int(
            _library().bpf_link_create(self.descriptor, interface, kind, ctypes.byref(options))
        )
        if link < 0:
            raise OSError(-link, os.strerror(-link))
        return link


class Loaded:
    """Programs and maps of an object file, in the kernel until `close`."""

    def __init__(self, path: Path) -> None:
        """Loads it.

        Raises:
          XdpUnavailable: no rights, no libbpf, or the kernel's verifier refuses the programs.
        """
        library = _library()
        self._object: int | None = None
        with _heard():
            opened = library.bpf_object__open_file(os.fsencode(path), None)
            if not opened:
                raise _refused(f"libbpf cannot read {path}", ctypes.get_errno())
            self._object = int(opened)
            code = library.bpf_object__load(ctypes.c_void_p(self._object))
            if code:
                error = _refused("the kernel refuses the programs", -code)
                self.close()
                raise error

    def map(self, name: str, value_bytes: int) -> Map:
        """A map by name; of one by processor `value_bytes` is that of all processors together."""
        found = _library().bpf_object__find_map_fd_by_name(self._pointer(), name.encode())
        assert found >= 0, f"no map {name}"
        return Map(found, value_bytes)

    def program(self, name: str) -> Program:
        """A program by name."""
        found = _library().bpf_object__find_program_by_name(self._pointer(), name.encode())
        assert found, f"no program {name}"
        return Program(_library().bpf_program__fd(ctypes.c_void_p(found)))

    def close(self) -> None:
        """Gives programs and maps back; twice does nothing."""
        if self._object is not None:
            _library().bpf_object__close(self._pointer())
            self._object = None

    def _pointer(self) -> ctypes.c_void_p:
        assert self._object is not None, "it is closed"
        return ctypes.c_void_p(self._object)


@contextmanager
def _heard() -> Iterator[None]:
    """Keeps what libbpf says in the block, for an error's message."""
    _said.clear()
    try:
        yield
    finally:
        _said.clear()


def wait_for_programs() -> None:
    """Returns when every run of a program that had begun has ended, on all processors."""
    if _libc.syscall(_MEMBARRIER, _MEMBARRIER_GLOBAL, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot wait for programs to end: {os.strerror(number)}")


def processors() -> int:
    """How many values a map by processor has."""
    return int(_library().libbpf_num_possible_cpus())
