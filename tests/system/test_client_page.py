"""The programs of docs/client.md, run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.processes import ROOT, environment
from bench.store_cluster import StoreCluster

PAGE = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_of_the_page(shared: StoreCluster, tmp_path: Path, number: int) -> None:
    text = PROGRAMS[number]
    for port, name in zip((7101, 7102, 7103), shared.names, strict=True):
        text = text.replace(str(port), str(shared.endpoint(name).port))
    program = tmp_path / "program.py"
    program.write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_there_are_programs() -> None:
    assert len(PROGRAMS) >= 6
