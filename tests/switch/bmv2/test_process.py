"""A switch is a process in a network of its own, and nothing of it outlives whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.processes import wait_until
from p4xos.planes import NoDataPlane
from switch.bmv2 import programs
from switch.bmv2.plane import Bmv2Plane
from switch.bmv2.process import SimpleSwitch
from switch.bmv2.runtime import SwitchGone
from switch.control.packets import Datagram
from tests.switch.bmv2 import standin
from tests.switch.planes import plan

LIMIT_S = 60
HOLDER = """
import sys, time
from switch.bmv2.plane import Bmv2Plane
from tests.switch.planes import plan
plane = Bmv2Plane()
plane.load(plan("acceptor", 1, window=8, value_bytes=32))
plane.open()
print(plane._switch.pid, flush=True)
time.sleep(600)
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root")


@pytest.fixture(scope="module")
def programs_once(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Stand-ins that nobody changes; what they compile is compiled once."""
    return standin.install(tmp_path_factory.mktemp("standin") / "programs")


def on_path(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> dict[str, str]:
    """In place of what may be there."""
    for name in ("PATH", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, environment[name])
    return environment | {"PYTHONPATH": str(standin.ROOT)}


@pytest.fixture
def standing_in(
    programs_once: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Stand-ins on PATH."""
    return on_path(monkeypatch, programs_once)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Stand-ins on PATH, of the test's own."""
    return on_path(monkeypatch, standin.install(tmp_path / "programs"))


def processes_of(namespace: str) -> list[str]:
    """Processes whose network it is."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "ns/net") == namespace:
                found.append(entry.name)
        except OSError:  # it has ended
            continue
    return found


@needs_root
def test_a_switch_is_in_a_network_of_its_own(standing_in: dict[str, str]) -> None:
    here = os.readlink("/proc/thread-self/ns/net")
    links = Path("/sys/class/net")
    before = sorted(links.iterdir())
    plane = Bmv2Plane()
    plane.load(plan("acceptor", 1, window=8, value_bytes=32))
    switch = plane._switch
    assert isinstance(switch, SimpleSwitch)
    there = os.readlink(f"/proc/{switch.pid}/ns/net")
    assert there != here == os.readlink("/proc/thread-self/ns/net")
    assert sorted(links.iterdir()) == before, "nothing is seen outside"
    plane.write("low", 7)
    plane.open()
    assert plane.read("low") == 7
    plane.teardown()
    assert processes_of(there) == []


@needs_root
def test_no_switch_outlives_its_node(standing_in: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], env=standing_in, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        there = os.readlink(f"/proc/{pid}/ns/net")
        assert str(pid) in processes_of(there)
        holder.kill()
    wait_until(lambda: not processes_of(there), LIMIT_S, "the switch's end")


@needs_root
def test_a_killed_switch_is_said_to_be_gone(standing_in: dict[str, str]) -> None:
    """docs/PROTOCOL.md, section 8: with its registers its memory is gone."""
    plane = Bmv2Plane()
    made = plan("acceptor", 1, window=8, value_bytes=32)
    plane.load(made)
    plane.open()
    switch = plane._switch
    assert isinstance(switch, SimpleSwitch)
    os.kill(switch.pid, signal.SIGKILL)
    datagram = Datagram(next(iter(made.addresses.values())), made.own, b"")
    with pytest.raises(SwitchGone, match=rf"process {switch.pid}, was killed by SIGKILL"):
        plane.carry([datagram])
    with pytest.raises(SwitchGone, match="its registers are lost"):
        plane.read("low")
    plane.teardown()


@needs_root
def test_a_switch_that_does_not_come_up_says_why(
    tmp_path: Path, installed: dict[str, str]
) -> None:
    script = Path(installed["XDG_CACHE_HOME"]) / "simple_switch"
    script.write_text("#!/bin/sh\necho Bad JSON; exit 3\n")
    with pytest.raises(NoDataPlane, match=r'ended with 3 and said "Bad JSON"; see whether'):
        SimpleSwitch.start(tmp_path / "none.json")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoDataPlane) as caught:
        programs.require()
    assert "\n" not in str(caught.value)
    for words in (
        "p4c-bm2-ss and simple_switch are not on PATH", "https://github.com/p4lang",
        "--data-plane p4, which runs the same programs",
    ):  # fmt: skip
        assert words in str(caught.value)
    present = tmp_path / "p4c-bm2-ss"
    present.write_text("#!/bin/sh\n")
    present.chmod(0o755)
    assert (programs.missing() or "").startswith("simple_switch is not on PATH: ")


def test_a_program_is_compiled_once(installed: dict[str, str]) -> None:
    compiler = Path(installed["XDG_CACHE_HOME"]) / "p4c-bm2-ss"
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done; echo {} >> "$2"\n')
    sizes = {"VALUE_BYTES": "32", "SLOT_BITS": "3", "ACCEPTORS": "3"}
    made = programs.compiled("coordinator", sizes)
    made.write_text("as it was")
    assert programs.compiled("coordinator", sizes) == made
    assert made.read_text() == "as it was"
    other = programs.compiled("coordinator", sizes | {"VALUE_BYTES": "64"})
    assert other != made
    compiler.write_text(compiler.read_text() + "# another compiler\n")
    assert programs.compiled("coordinator", sizes) != made, "another compiler, another file"


def test_what_the_compiler_says_is_told(installed: dict[str, str]) -> None:
    compiler = Path(installed["XDG_CACHE_HOME"]) / "p4c-bm2-ss"
    compiler.write_text("#!/bin/sh\necho 'sizes.p4(3): error: no' >&2; exit 1\n")
    with pytest.raises(NoDataPlane, match=r"ended with 1 on acceptor.p4: sizes.p4\(3\): error: no"):
        programs.compiled("acceptor", {"VALUE_BYTES": "32"})
    assert list(programs.cache_directory().glob("*.json")) == []
