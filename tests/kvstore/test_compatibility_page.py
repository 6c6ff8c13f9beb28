"""docs/compatibility.md names exactly the commands that are served."""

from __future__ import annotations

import re
from pathlib import Path

from kvstore.commands import TABLE

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"


def test_the_page_names_every_command_and_no_other() -> None:
    section = PAGE.read_text().split("\n## Commands\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    named = [name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)]
    assert sorted(named) == sorted(name.decode().upper() for name in TABLE)
