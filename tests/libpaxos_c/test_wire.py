"""The C library's wire is the Python modules'."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from random import Random

import msgpack
import pytest

from p4xos.compat.libpaxos_c import generate
from p4xos.errors import BadPacket
from p4xos.framing import decode_head_untrusted
from tests.libpaxos_c.building import FOLDER, build_program, environment

NUMBERS = ("id", "next", "cluster", "version", "libpaxos")
TEXTS = ("error", "text", "log")
"""In the order of `src/head.h`."""


def test_constants_are_generated_from_the_modules() -> None:
    assert generate.PATH.read_text(encoding="utf-8") == generate.text(), (
        "run `python -m p4xos.compat.libpaxos_c.generate`"
    )


def anything(random: Random, depth: int = 0) -> object:
    """A value of any kind that msgpack has."""
    kind = random.randrange(12 if depth < 3 else 8)
    match kind:
        case 0:
            return random.choice([None, True, False])
        case 1 | 2:
            return random.getrandbits(random.choice([1, 7, 8, 16, 32, 64]))
        case 3:
            return -random.getrandbits(random.choice([1, 5, 8, 16, 32, 63]))
        case 4:
            return random.random()
        case 5:
            return "x" * random.choice([0, 5, 31, 32, 255, 256, 300, 66_000 if depth == 0 else 9])
        case 6:
            return random.randbytes(random.choice([0, 5, 255, 256, 66_000 if depth == 0 else 9]))
        case 7:
            return msgpack.ExtType(random.randrange(128), random.randbytes(random.randrange(40)))
        case 8 | 9:
            return [anything(random, depth + 1) for _ in range(random.choice([0, 3, 15, 16, 40]))]
        case _:
            count = random.choice([0, 3, 15, 16])
            return {str(k): anything(random, depth + 1) for k in range(count)}


def some_head(random: Random) -> bytes:
    """A head, good or nearly."""
    head: dict[str, object] = {}
    for _ in range(random.randrange(6)):
        match random.randrange(4):
            case 0:
                head[random.choice(NUMBERS)] = random.getrandbits(random.choice([3, 8, 33, 64]))
            case 1:
                head[random.choice(TEXTS)] = "t" * random.choice([0, 3, 40])
            case 2:
                head[random.choice([*NUMBERS, *TEXTS])] = anything(random)
            case 3:
                head[f"other{random.randrange(9)}"] = anything(random)
    data = bytearray(msgpack.packb(head))
    while random.random() < 0.4:
        place = random.randrange(len(data))
        match random.randrange(3):
            case 0:
                data[place] = random.randrange(256)
            case 1:
                del data[place + 1 :]
            case 2:
                data[place:place] = random.randbytes(1)
    return bytes(data)


def understood(data: bytes) -> str:
    """What Python makes of it, as `heads` prints it."""
    try:
        head = decode_head_untrusted(data)
    except BadPacket:
        return "bad"
    told = []
    for key in NUMBERS:
        number = head.get(key)
        good = isinstance(number, int) and not isinstance(number, bool) and number >= 0
        if key in head and not good:
            return "bad"
        told.append(str(number) if key in head else "-")
    for key in TEXTS:
        text = head.get(key)
        if key in head and not isinstance(text, str):
            return "bad"
        told.append("'" + str(text).encode().hex() if key in head else "-")
    return " ".join(told)


@pytest.fixture(scope="module")
def heads(programs: Path) -> Path:
    return build_program(Path(__file__).with_name("heads.c"), programs, "head.o", "buffer.o")


def test_heads_are_understood_as_python_does(heads: Path) -> None:
    """Thousands of them, spoilt or not; C may take what Python refuses elsewhere in a head."""
    random = Random(8)
    data = [some_head(random) for _ in range(1500)]
    done = subprocess.run(
        [str(heads)], input=b"".join(struct.pack(">I", len(one)) + one for one in data),
        capture_output=True, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    told = done.stdout.decode().splitlines()
    assert len(told) == len(data)
    expected = [understood(one) for one in data]
    wrong = [
        (one, c, python)
        for one, c, python in zip(data, told, expected, strict=True)
        if c != python and python != "bad"
    ]
    assert not wrong
    assert sum(python != "bad" for python in expected) > 500
    assert sum(c == python == "bad" for c, python in zip(told, expected, strict=True)) > 250


def test_the_programs_see_the_interface_and_nothing_else(programs: Path) -> None:
    """Only names of libpaxos' interface, and `p4xos_`, are exported."""
    done = subprocess.run(
        ["nm", "-D", "--defined-only", str(programs / "libevpaxos.so")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {line.split()[-1] for line in done.stdout.splitlines()}
    prefixes = ("evpaxos_", "evlearner_", "evproposer_", "evacceptor_", "paxos_", "p4xos_")
    assert {name for name in names if not name.startswith(("_", *prefixes))} == set()
    headers = "".join(path.read_text() for path in (FOLDER / "include").rglob("*.h"))
    assert {name for name in names if name.startswith(prefixes) and name not in headers} == set()
