"""Programs in the place of p4c and bmv2, for tests of everything around them.

They take the command lines that the real ones are given. What they run is the interpreter.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import socket
import sys
from pathlib import Path

from switch.bmv2 import network
from switch.lang import load
from tests.switch.bmv2.fake_switch import FakeSwitch, described

ROOT = Path(__file__).resolve().parents[3]


def install(folder: Path) -> dict[str, str]:
    """Puts them into a folder; an environment whose PATH has it."""
    folder.mkdir(parents=True)
    for name in ("p4c-bm2-ss", "simple_switch"):
        script = folder / name
        run = f"'{sys.executable}' -m tests.switch.bmv2.standin {name}"
        script.write_text(f"#!/bin/sh\nPYTHONPATH='{ROOT}' exec {run} \"$@\"\n")
        script.chmod(0o755)
    return {
        **os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(folder),
    }  # fmt: skip


def compile(words: list[str]) -> None:
    """As p4c-bm2-ss."""
    defines = dict(word[2:].split("=") for word in words if word.startswith("-D"))
    program = load(Path(words[-1]), defines)
    told = described(program) | {"program": base64.b64encode(pickle.dumps(program)).decode()}
    Path(words[words.index("-o") + 1]).write_text(json.dumps(told))


def run(words: list[str]) -> None:
    """As simple_switch."""
    if words == ["--help"]:
        print("Usage: SWITCH_NAME [options] <path to JSON config file>")
        return
    told = json.loads(Path(words[-1]).read_text())
    assert words[words.index("-i") + 1] == f"1@{network.SWITCH}"
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    frames.bind((network.SWITCH, 0))
    with socket.create_server(("", int(words[words.index("--thrift-port") + 1]))) as listener:
        calls, _ = listener.accept()
    print("Calling target program-options parser", flush=True)
    FakeSwitch(pickle.loads(base64.b64decode(told["program"])), frames, calls).run()


if __name__ == "__main__":
    {"p4c-bm2-ss": compile, "simple_switch": run}[sys.argv[1]](sys.argv[2:])
