"""Programs that run by themselves: settings, files of packets, UDP wires, and their verbs."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random

import pytest

from p4xos import arguments, cli
from p4xos.tables import Address
from switch.cli import add_verbs
from switch.lang import ir, load
from switch.lang.interpreter import Interpreter
from switch.running import exchanges, settings
from switch.running.matches import to_match
from switch.running.settings import Settings, Wire
from switch.running.wires import FRAMES_PER_TURN, Wires

TAGGER = Path(__file__).parent / "tagger.p4"
ROOT = Path(__file__).parents[3]

CONFIG = """
[groups.1]
ports = [1, 2]
rids = [7, 8]

[[entry]]
table = "kinds"
match = [1]
action = "forward"
arguments = [2]

[[entry]]
table = "Ingress.kinds"
match = ["0x20&&&0xf0"]
action = "forward"
arguments = [1]

[[entry]]
table = "kinds"
match = [9]
action = "spread"

[[default]]
table = "kinds"
action = "drop"

[registers]
marks = [0, 0x55]
"""


@cache
def program() -> ir.Program:
    return load(TAGGER)


def configured(tmp_path: Path, text: str = CONFIG, *ports: str) -> tuple[Interpreter, Settings]:
    path = tmp_path / "switch.toml"
    path.write_text(text, encoding="utf-8")
    read = settings.read(path, ports, ())
    switch = Interpreter(program())
    read.apply(switch)
    return switch, read


# Settings


def test_a_configured_switch_forwards_spreads_and_drops(tmp_path: Path) -> None:
    switch, _ = configured(tmp_path)
    assert switch.process(1, b"\x01\xaarest") == [(2, b"\x01\x55rest")]
    assert switch.process(1, b"\x01\xbb") == [(2, b"\x01\xaa")]
    assert switch.process(1, b"\x2f\x00") == [(1, b"\x2f\x00")]
    assert switch.process(1, b"\x09\x00") == [(1, b"\x09\x07"), (2, b"\x09\x08")]
    assert switch.process(1, b"\x05\x00") == []


def test_trap_11_no_frame_stops_a_switch(tmp_path: Path) -> None:
    switch, _ = configured(tmp_path)
    random = Random(11)
    for _ in range(1500):
        frame = random.randbytes(random.choice((0, 1, 2, 3, 64, 1500)))
        for port, packet in switch.process(random.randrange(512), frame):
            assert port in (1, 2)
            assert len(packet) == len(frame)
    assert switch.statistics.packets_in == 1500
    assert switch.statistics.parser_errors.keys() == {"PacketTooShort"}


def test_flags_say_ports_and_groups() -> None:
    read = settings.read(None, ["1=127.0.0.1:9001,127.0.0.1:9101"], ["3=1,2:5"])
    assert read.wires == {1: Wire(Address("127.0.0.1", 9001), Address("127.0.0.1", 9101))}
    assert read.groups == {3: ((1, 0), (2, 5))}


@pytest.mark.parametrize(
    ("ports", "groups", "message"),
    [
        (["1"], [], "--port 1: write it as --port 1=127.0.0.1:9001,127.0.0.1:9101"),
        (["1=127.0.0.1:9001"], [], "write it as --port 1=127.0.0.1:9001,127.0.0.1:9101"),
        (["1=localhost:9001,127.0.0.1:1"], [], "write the number of the interface"),
        (["511=127.0.0.1:1,127.0.0.1:2"], [], "port 511: a port is a number from 0 to 510"),
        ([], ["x=1"], "--group x=1: write it as --group 1=1,2:5"),
        ([], ["1=a"], "'a' is no PORT or PORT:RID"),
    ],
)
def test_wrong_flags_are_told(ports: list[str], groups: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        settings.read(None, ports, groups)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port = 1", 'this key is unknown; did you mean "ports"?'),
        ("[ports.a]\n", '"a": allowed is a number; write it as [ports.1]'),
        ("[ports.1]\nlocal = 'x'\n", "add a colon and the port"),
        ("[groups.1]\nports = [1, 2]\nrids = [1]\n", "allowed is as many numbers as there are"),
        ("[groups.1]\nports = 1\n", "found 1, allowed is a list of whole numbers"),
        ("[registers]\nmarks = ['1']\n", "write them without quotes"),
        ("[registers]\nmark = [1]\n", "mark: the program has no such name; known are"),
        ("[registers]\nmarks = [256]\n", "256 does not fit into register Ingress.marks, of bit<8>"),
        ("[registers]\nmarks = [1, 1, 1, 1, 1]\n", "has cells 0 to 3, not 4"),
        ("[[entry]]\ntable = 'kind'\n", "kind: the program has no such name"),
        ("[[entry]]\ntable = 'kinds'\n", '"match": the key is missing'),
        ("[[entry]]\ntable = 'kinds'\nmatch = [1, 2]\n", "allowed is a list of 1 matches"),
        ("[[entry]]\ntable = 'kinds'\nmatch = ['one']\n", "'one' is no number: write 5,"),
        ("[[entry]]\ntable = 'kinds'\nmatch = [1]\naction = 'go'\n", "go: the program has no such"),
        ("[[entry]]\ntable = 'kinds'\nmatch = ['1..2']\naction = 'drop'\n", "its match cannot be"),
        ("[[default]]\ntable = 'kinds'\naction = 'forward'\n", "takes 1 arguments, not 0"),
    ],
)  # fmt: skip
def test_wrong_settings_are_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        configured(tmp_path, text)


def test_what_matches_may_look_like() -> None:
    key = ir.Key(ir.Read("x", ir.Bits(32)), "ternary", "x")
    assert [to_match(each, key) for each in (5, "0x5", "10.0.0.1", "_")] == [
        ir.Match("exact", 5), ir.Match("exact", 5), ir.Match("exact", 0x0A000001), ir.Match("any"),
    ]  # fmt: skip
    assert to_match("0x10&&&0xf0", key) == ir.Match("ternary", 0x10, 0xF0)
    assert to_match("10.0.0.0/8", key) == ir.Match("lpm", 0x0A000000, 0xFF000000)
    assert to_match("1..9", key) == ir.Match("range", 1, high=9)
    with pytest.raises(ValueError, match="a prefix of x has 0 to 32 bits"):
        to_match("1/33", key)


# Files of packets


def exchanged(tmp_path: Path, text: str) -> exchanges.Outcome:
    path = tmp_path / "some.packets"
    path.write_text(text, encoding="utf-8")
    return exchanges.run(configured(tmp_path)[0], path)


def test_a_file_without_answers_is_a_question(tmp_path: Path) -> None:
    outcome = exchanged(tmp_path, "# two\n> 1 01 aa # a remark\n\n> 1 05bb\n")
    assert outcome.lines == ["> 1 01aa", "< 2 0155", "> 1 05bb", "< nothing"]
    assert outcome.differences == []


def test_a_file_with_answers_is_compared(tmp_path: Path) -> None:
    right = "! marks 1 = 0x77\n> 1 0112\n< 2 0177\n= marks 1 = 0x12\n> 1 05\n< nothing\n"
    assert exchanged(tmp_path, right).differences == []
    wrong = right.replace("0177", "0178").replace("= 0x12", "= 0x13").replace("nothing", "1 00")
    path = tmp_path / "some.packets"
    assert exchanged(tmp_path, wrong).differences == [
        f"{path}:2: expected < 2 0178, found < 2 0177",
        f"{path}:4: expected Ingress.marks 1 = 19, found 18",
        f"{path}:5: expected < 1 00, found < nothing",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("> 1 0g", "2: found '1 0g', expected a port and hex digits"),
        ("> 511 00", "2: found port 511, expected 0 to 510"),
        ("< x", "2: found 'x', expected a port and hex digits"),
        ("! marks 1", "2: found 'marks 1', expected NAME INDEX = VALUE"),
        ("= marks 9 = 1", "2: register Ingress.marks has cells 0 to 3, not 9"),
        ("hello", "2: found 'hello', expected a line that begins with > < ! = or #"),
    ],
)
def test_a_wrong_file_of_packets_is_told(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        exchanged(tmp_path, f"# first\n{line}\n")


# UDP


@contextmanager
def host() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.settimeout(60)
        yield bound


def free_address() -> Address:
    with host() as found:
        return Address(*found.getsockname())


def test_frames_go_from_wire_to_wire(tmp_path: Path) -> None:
    switch, _ = configured(tmp_path)
    with host() as one, host() as two, host() as stranger:
        ends = {
            port: Wire(free_address(), Address(*end.getsockname()))
            for port, end in ((1, one), (2, two))
        }
        with Wires(switch, ends) as wires:
            one.sendto(b"\x01\xaarest", ends[1].local)
            assert wires.turn(20) == 1
            assert two.recvfrom(100) == (b"\x01\x55rest", ends[2].local)
            two.sendto(b"\x09\x00", ends[2].local)
            assert wires.turn(20) == 1
            assert one.recvfrom(100) == (b"\x09\x07", ends[1].local)
            assert two.recvfrom(100) == (b"\x09\x08", ends[2].local)
            stranger.sendto(b"\x01\x01", ends[1].local)
            wires.turn(20)
            assert (wires.strangers, switch.statistics.packets_in) == (1, 2)
            assert wires.turn(0) == 0


def test_a_flooded_port_lets_others_have_their_turn(tmp_path: Path) -> None:
    switch, _ = configured(tmp_path)
    with host() as one:
        wire = Wire(free_address(), Address(*one.getsockname()))
        with Wires(switch, {1: wire}) as wires:
            for _ in range(FRAMES_PER_TURN + 3):
                one.sendto(b"\x01\x00", wire.local)
            assert [wires.turn(20), wires.turn(20)] == [FRAMES_PER_TURN, 3]
            assert wires.unsent == {2: FRAMES_PER_TURN + 3}  # port 2 has no wire


def test_an_address_that_is_taken_is_named() -> None:
    with host() as taken:
        address = Address(*taken.getsockname())
        with pytest.raises(OSError, match=str(address)):
            Wires(Interpreter(program()), {1: Wire(address, free_address())})


# The verbs


def verb(*words: str) -> int:
    return arguments.run(cli.build_parser([add_verbs]), ["switch", *words])


def test_run_on_packets_tells_what_leaves_and_fails_on_a_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, packets = tmp_path / "switch.toml", tmp_path / "some.packets"
    config.write_text(CONFIG)
    packets.write_text("> 1 01aa\n")
    words = ["run", str(TAGGER), "--config", str(config), "--packets", str(packets)]
    assert verb(*words) == 0
    assert capsys.readouterr().out == "> 1 01aa\n< 2 0155\n"
    packets.write_text("> 1 01aa\n< nothing\n")
    assert verb(*words) == 1
    assert capsys.readouterr().err == f"{packets}:1: expected < nothing, found < 2 0155\n"
    assert verb(*words, "--json") == 1
    assert json.loads(capsys.readouterr().out)["lines"] == ["> 1 01aa", "< 2 0155"]


def test_run_without_ports_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert verb("run", str(TAGGER)) == 2
    assert "a switch without ports: give --port 1=LOCAL,PEER" in capsys.readouterr().err


def test_bill_tells_a_person_and_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert verb("bill", str(TAGGER)) == 0
    assert "It fits bmv2." in capsys.readouterr().out
    assert verb("bill", str(TAGGER), "--target", "tofino", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["stages"]["ingress"], told["fits"]) == (2, True)
    assert verb("bill", str(TAGGER), "--target", "none") == 2
    assert "target none: neither a known one (bmv2, tofino)" in capsys.readouterr().err


def test_a_process_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """With its sockets and signals; the statistics come at the end."""
    config = tmp_path / "switch.toml"
    config.write_text(CONFIG)
    with host() as one, host() as two:
        words = [sys.executable, "-c", "import sys; from p4xos import arguments, cli\n"
                 "from switch.cli import add_verbs\n"
                 "sys.exit(arguments.run(cli.build_parser([add_verbs]), sys.argv[1:]))",
                 "switch", "run", str(TAGGER), "--config", str(config), "--json"]  # fmt: skip
        locals_ = [free_address(), free_address()]
        for port, (local, end) in enumerate(zip(locals_, (one, two), strict=True), start=1):
            words += ["--port", f"{port}={local},{Address(*end.getsockname())}"]
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith(f"port 1: {locals_[0]}, peer ")
            one.sendto(b"\x01\xaa", locals_[0])
            assert two.recvfrom(100) == (b"\x01\x55", locals_[1])
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
    told = json.loads(out)
    assert (process.returncode, told["packets_in"], told["packets_out"]) == (0, 1, 1)
    assert told["counters"] == {"Ingress.passed": {"1": 1}}
