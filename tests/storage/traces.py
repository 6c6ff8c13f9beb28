"""What a process did to its files, call by call, and what a power cut in between would leave.

A trace is made by `RecordingDisk` (storage in this process) or by recorder.c (any process, RocksDB
with its threads too). `Survivors` follows it and knows, at each point, what is durable and what
is not yet; `left` is the tree after a cut there, with any part of the latter: sectors one by one,
names one by one and apart from the data, sizes without content. That is harsher than a journal.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

from p4xos.storage.disk import Buffer, Disk, RealDisk

SECTOR_BYTES = 512
_HEAD = struct.Struct("=c3xiqII")
_SOURCE = Path(__file__).with_name("recorder.c")


class Call(NamedTuple):
    """One call; the letters are those of recorder.c."""

    kind: str
    handle: int = -1
    number: int = 0
    first: bytes = b""
    second: bytes = b""


def read_trace(path: Path) -> Iterator[Call]:
    """The calls that recorder.c has written."""
    data = path.read_bytes()
    position = 0
    while position < len(data):
        kind, handle, number, a, b = _HEAD.unpack_from(data, position)
        position += _HEAD.size
        first, second = data[position : position + a], data[position + a : position + a + b]
        position += a + b
        yield Call(kind.decode(), handle, number, first, second)


def build_recorder(directory: Path) -> Path:
    """Compiles recorder.c."""
    library = directory / "recorder.so"
    command = [
        "gcc",
        "-shared",
        "-fPIC",
        "-O1",
        "-o",
        str(library),
        str(_SOURCE),
        "-ldl",
        "-pthread",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return library


def run_recorded(
    recorder: Path, root: Path, trace: Path, code: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Runs a Python program on files below `root`, which is its first argument."""
    environment = {
        **os.environ, "LD_PRELOAD": str(recorder), "TRACE_ROOT": str(root),
        "TRACE_FILE": str(trace), "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    command = [sys.executable, "-c", code, str(root), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


class RecordingDisk(RealDisk):
    """The real disk; every call that changes something is appended to `trace`."""

    def __init__(self, trace: list[Call]) -> None:
        self.trace = trace

    def make_directory(self, path: Path) -> None:
        missing = [p for p in (path, *path.parents) if not p.exists()]
        for directory in reversed(missing):
            directory.mkdir()
            self.trace.append(Call("M", first=os.fsencode(directory)))
            self.sync_directory(directory.parent)

    def open(self, path: Path, *, create: bool) -> int:
        handle = super().open(path, create=create)
        flags = os.O_RDWR | (os.O_CREAT | os.O_TRUNC if create else 0)
        self.trace.append(Call("O", handle, flags, os.fsencode(path)))
        return handle

    def allocate(self, handle: int, size: int) -> None:
        super().allocate(handle, size)
        self.trace.append(Call("T", handle, os.fstat(handle).st_size))

    def write(self, handle: int, buffers: Sequence[Buffer], offset: int) -> int:
        size = super().write(handle, buffers, offset)
        self.trace.append(Call("W", handle, offset, b"".join(buffers)[:size]))
        return size

    def truncate(self, handle: int, size: int) -> None:
        super().truncate(handle, size)
        self.trace.append(Call("T", handle, size))

    def sync(self, handle: int) -> None:
        super().sync(handle)
        self.trace.append(Call("S", handle))

    def close(self, handle: int) -> None:
        super().close(handle)
        self.trace.append(Call("C", handle))

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.trace.append(Call("R", first=os.fsencode(source), second=os.fsencode(target)))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.trace.append(Call("U", first=os.fsencode(path)))

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self.trace.append(Call("O", -2, os.O_DIRECTORY, os.fsencode(path)))
        self.trace.append(Call("S", -2))


_check: type[Disk] = RecordingDisk


@dataclass
class _File:
    """One file or directory; `pending` are changes since it was last synced."""

    directory: bool = False
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """(offset, content), or (size, None)."""


_Names = dict[bytes, _File]
_Change = Callable[[_Names], object]
Chance = Callable[[], bool]


class Loss(NamedTuple):
    """What of the changes that were not synced a power cut keeps."""

    name: str
    keeps_names: Chance
    keeps_data: Chance
    keeps_size: Chance
    """Of a write whose data is lost: whether the file is as long as if it were not."""


def losses(random: Random) -> list[Loss]:
    """Nothing, all, the one without the other, and by chance."""

    def often() -> bool:
        return random.random() < 0.9

    def half() -> bool:
        return random.random() < 0.5

    def yes() -> bool:
        return True

    def no() -> bool:
        return False

    return [
        Loss("nothing that was not synced", no, no, no),
        Loss("everything", yes, yes, yes),
        Loss("names before data", yes, no, no),
        Loss("names and sizes before data", yes, no, yes),
        Loss("data before names", no, yes, yes),
        Loss("nearly all data", yes, often, half),
        Loss("by chance", half, half, half),
    ]


class Survivors:
    """Follows a trace; see the module's text."""

    def __init__(self, root: Path) -> None:
        """The root is there, durable and empty."""
        self._root = os.fsencode(root)
        self._seen: _Names = {self._root: _File(directory=True)}
        self._durable: _Names = dict(self._seen)
        self._pending: list[tuple[bytes, _Change]] = []  # with the directory that must be synced
        self._handles: dict[int, tuple[bytes, _File]] = {}

    def follow(self, call: Call) -> None:
        """Takes the next call."""
        getattr(self, f"_follow_{call.kind}")(call)

    def left(self, loss: Loss) -> dict[Path, bytes | None]:
        """The tree after a power cut here: content by path below the root, None for a directory."""
        names = dict(self._durable)
        for _, change in self._pending:
            if loss.keeps_names():
                change(names)
        contents: dict[int, bytes] = {}
        left: dict[Path, bytes | None] = {}
        for path, file in names.items():
            if path == self._root or not self._is_reached(names, path):
                continue
            relative = Path(os.fsdecode(os.path.relpath(path, self._root)))
            if file.directory:
                left[relative] = None
                continue
            if id(file) not in contents:  # one content for all names of a file
                contents[id(file)] = _content(file, loss)
            left[relative] = contents[id(file)]
        return left

    def _is_reached(self, names: _Names, path: bytes) -> bool:
        while path != self._root:
            path = os.path.dirname(path)
            if path not in names or not names[path].directory:
                return False
        return True

    # The calls -----------------------------------------------------------------------------------

    def _change(self, path: bytes, change: _Change) -> None:
        change(self._seen)
        self._pending.append((os.path.dirname(path), change))

    def _follow_O(self, call: Call) -> None:  # noqa: N802 - the letter of the trace
        path = call.first
        if path not in self._seen:
            file = _File()
            self._change(path, lambda names: names.__setitem__(path, file))
        elif call.number & os.O_TRUNC:
            self._seen[path].pending.append((0, None))
        self._handles[call.handle] = path, self._seen[path]

    def _follow_C(self, call: Call) -> None:  # noqa: N802
        self._handles.pop(call.handle, None)

    def _follow_W(self, call: Call) -> None:  # noqa: N802
        file, start, end = self._handles[call.handle][1], call.number, call.number + len(call.first)
        while start < end:
            stop = min((start // SECTOR_BYTES + 1) * SECTOR_BYTES, end)
            file.pending.append((start, call.first[start - call.number : stop - call.number]))
            start = stop

    def _follow_T(self, call: Call) -> None:  # noqa: N802
        self._handles[call.handle][1].pending.append((call.number, None))

    def _follow_S(self, call: Call) -> None:  # noqa: N802
        path, file = self._handles[call.handle]
        for offset, content in file.pending:
            _apply(file.durable, offset, content)
        file.pending.clear()
        if file.directory:
            for directory, change in self._pending:
                if directory == path:
                    change(self._durable)
            self._pending = [entry for entry in self._pending if entry[0] != path]

    def _follow_F(self, call: Call) -> None:  # noqa: N802
        """As Linux does: what could not be written counts as clean from then on, and is lost."""
        self._handles[call.handle][1].pending.clear()

    def _follow_R(self, call: Call) -> None:  # noqa: N802
        source, target = call.first, call.second
        file = self._seen[source]
        below = [path for path in self._seen if path.startswith(source + b"/")]
        inner = {path: self._seen[path] for path in below}

        def change(names: _Names) -> None:
            names.pop(source, None)
            names[target] = file
            for path, each in inner.items():
                if path in names:
                    del names[path]
                    names[target + path[len(source) :]] = each

        self._change(target, change)

    def _follow_L(self, call: Call) -> None:  # noqa: N802
        file = self._seen.get(call.first)
        if file is not None:
            self._change(call.second, lambda names: names.__setitem__(call.second, file))

    def _follow_U(self, call: Call) -> None:  # noqa: N802
        self._change(call.first, lambda names: names.pop(call.first, None))

    _follow_D = _follow_U  # noqa: N815

    def _follow_M(self, call: Call) -> None:  # noqa: N802
        file = _File(directory=True)
        self._change(call.first, lambda names: names.__setitem__(call.first, file))

    def _follow_E(self, call: Call) -> None:  # noqa: N802
        """Nothing was done."""


def _content(file: _File, loss: Loss) -> bytes:
    data = bytearray(file.durable)
    for offset, content in file.pending:
        if loss.keeps_data():
            _apply(data, offset, content)
        elif content is not None and loss.keeps_size():
            data.extend(bytes(max(offset + len(content) - len(data), 0)))
    return bytes(data)


def _apply(data: bytearray, offset: int, content: bytes | None) -> None:
    if content is None:
        del data[offset:]
        content = b""
    data.extend(bytes(max(offset + len(content) - len(data), 0)))
    data[offset : offset + len(content)] = content


def rebuild(tree: dict[Path, bytes | None], directory: Path) -> None:
    """Makes a directory hold this tree and nothing else."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for path, content in sorted(tree.items()):
        if content is None:
            (directory / path).mkdir()
        else:
            (directory / path).write_bytes(content)
