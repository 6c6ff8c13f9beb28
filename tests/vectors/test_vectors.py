"""Every vector holds on the model and on the roles' scalar and numpy paths."""

import re
from pathlib import Path

import numpy as np
import pytest

from p4xos import wire
from p4xos.testing import vectors
from p4xos.testing.vectors import Kind, Target, Vector, VectorError, parse
from tests.vectors.targets import ModelTarget, RoleTarget

FOLDER = Path(__file__).parent
VECTORS = [vector for path in sorted(FOLDER.glob("*.vectors")) for vector in parse(path)]
TARGETS: dict[str, Target] = {
    "model": ModelTarget(),
    "scalar": RoleTarget(scalar_below=1 << 30),
    "numpy": RoleTarget(scalar_below=0),
}


@pytest.mark.parametrize("one_by_one", [False, True], ids=["batch", "singly"])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_vector(vector: Vector, target: Target, one_by_one: bool) -> None:
    vectors.run(vector, target, one_by_one=one_by_one)


def test_titles_are_unique() -> None:
    names = [vector.name for vector in VECTORS]
    assert len(set(names)) == len(names)


def layout() -> list[tuple[bytes, bytes]]:
    """The packets of layout.txt, as their fields say and as their hex says."""
    packets: list[tuple[bytes, bytes]] = []
    for line in (FOLDER / "layout.txt").read_text(encoding="utf-8").splitlines():
        key, _, rest = line.partition(" ")
        if key == "packet":
            packets.append((vectors.packet(rest), b""))
        elif key == "hex":
            fields, data = packets[-1]
            packets[-1] = (fields, data + bytes.fromhex(rest.partition("#")[0]))
        else:
            assert not line or line.startswith("#")
    return packets


def test_the_header_is_laid_out_as_documented() -> None:
    """docs/PROTOCOL.md, section 2: fields, `wire` and hex agree, for every type."""
    types = set()
    for from_fields, data in layout():
        assert from_fields == data
        rows = np.frombuffer(data, np.uint8).reshape(1, -1)
        message = wire.message(rows, 0)
        assert message == vectors.read(data)
        frame = message.cluster, message.group, message.type
        again = wire.encode(
            *frame,
            instance=message.instance,
            round=message.round,
            vround=message.vround,
            sender=message.sender,
            incarnation=message.incarnation,
            low=message.low,
            value=message.value,
        )
        assert again.tobytes() == data
        types.add(message.type)
    assert types == set(wire.Type)


GOOD = "== title\nrole: acceptor\n> HEARTBEAT low=3\n< nothing\n= low=3\n"


def parse_text(folder: Path, text: str) -> list[Vector]:
    path = folder / "bad.vectors"
    path.write_text(text, encoding="utf-8")
    return parse(path)


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (1, "> HEARTBEAT", "before the first"),
        (1, "== title\nrole: acceptor\n", "and steps"),
        (2, "== title\nrole: emperor\n", "role is one of"),
        (2, "== title\nrole: acceptor windows=8\n", "no parameter windows"),
        (2, "== title\n> HEARTBEAT low=3\n", "comes first"),
        (2, "== title\ntarget: switch\n", "`all` or `software`"),
        (3, "== title\nrole: acceptor\n< nothing\n", "no `>` or `!` line"),
        (3, "== title\nrole: acceptor\n> HEARTBEAT low=3\n= low=3\n", "no `<` line"),
        (3, GOOD.replace("HEARTBEAT", "HEARTBEET"), "is no type"),
        (3, GOOD.replace("low=3\n<", "lo=3\n<"), "no field lo"),
        (3, GOOD.replace("low=3\n<", "low=3 low=3\n<"), "given twice"),
        (3, GOOD.replace("low=3\n<", "low=three\n<"), "is no number"),
        (3, GOOD.replace("low=3\n<", "low\n<"), "expected name=value"),
        (3, GOOD.replace("low=3\n<", "value=text\n<"), "is no value"),
        (4, GOOD.replace("nothing", "somebody HEARTBEAT"), "is no destination"),
        (5, GOOD + "< learners HEARTBEAT\n", ""),
        (5, GOOD.replace("= low", "= law"), "no register law"),
        (5, GOOD.replace("= low=3", "= slot three: empty"), "is no number"),
        (6, GOOD + "? low=3", "unknown line"),
        (6, GOOD + "role: acceptor", "before the first step"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: int, text: str, message: str) -> None:
    if not message:
        line, message = 6, "beside `< nothing`"
    with pytest.raises(VectorError, match=re.escape(message)) as caught:
        parse_text(tmp_path, text)
    assert f"bad.vectors:{line}: " in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("= low=3", "= low=4"),
        GOOD.replace("= low=3", "= dropped stale_round=1"),
        GOOD.replace("= low=3", "= slot 3: round=1.0"),
        GOOD.replace("< nothing", "< learners PHASE2B instance=1 round=1.0 vround=1.0"),
        GOOD.replace("> HEARTBEAT low=3", "> READ_INDEX"),
    ],
)
def test_a_vector_that_does_not_hold_is_named(tmp_path: Path, text: str) -> None:
    (good,) = parse_text(tmp_path, GOOD)
    vectors.run(good, ModelTarget())
    (bad,) = parse_text(tmp_path, text)
    for target in TARGETS.values():
        with pytest.raises(VectorError, match=r"bad\.vectors:3: "):
            vectors.run(bad, target)


class PretendedSwitch(ModelTarget):
    """The model, answering as a switch does: one packet for one."""

    kind: Kind = "switch"

    def inject(self, packets: list[bytes]) -> list[tuple[str, bytes]]:
        sent = []
        for packet in packets:
            answers = super().inject([packet])
            if len(answers) == 2 and vectors.read(answers[0][1]).type == wire.Type.PHASE1B:
                answers = answers[1:] if self.bounded(packet) else answers
            sent += [(to, self.ask_one_by_one(packet, data)) for to, data in answers[:1]]
        return sent

    def bounded(self, packet: bytes) -> bool:
        return wire.unpack_end(vectors.read(packet).value) != wire.END_OF_LOG

    def ask_one_by_one(self, packet: bytes, data: bytes) -> bytes:
        m = vectors.read(data)
        if m.type != wire.Type.PHASE1B or not wire.is_summary(m.vround, m.length):
            return data
        summary = wire.unpack_summary(m.value, 3)._replace(votes=wire.ASK_ONE_BY_ONE)
        value = wire.pack_summary(summary)
        return bytes(wire.from_messages([m._replace(value=value)])[0])


@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if not v.software_only], ids=lambda vector: vector.name
)
def test_vectors_for_all_targets_need_one_packet_for_one(vector: Vector) -> None:
    """What is marked `target: all` is within what a switch can answer."""
    vectors.run(vector, PretendedSwitch())
