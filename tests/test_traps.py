"""docs/traps.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_trap_names_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "traps.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert [int(section.split(".")[0]) for section in sections] == list(range(1, 18))
    for section in sections:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", section)
        assert named, section
        for file, test in named:
            source = (ROOT / file).read_text()
            assert not test or f"def {test}(" in source, (file, test)
