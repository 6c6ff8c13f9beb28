"""docs/configuration.md is what the code says."""

from __future__ import annotations

import pytest

from kvstore import reference
from p4xos.config import Timing


def test_the_page_is_up_to_date() -> None:
    found = reference.FILE.read_text(encoding="utf-8")
    assert found == reference.text(), "the code has changed: make docs"


def test_a_key_without_a_word_about_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {name: why for name, why in reference.MEANINGS["node"].items() if name != "peer"}
    monkeypatch.setattr(reference, "MEANINGS", {**reference.MEANINGS, "node": told})
    with pytest.raises(LookupError, match="peer"):
        reference.text()


def test_keys_are_as_the_code_reads_them() -> None:
    timing = {key.name: key for key in reference.keys("timing")}
    assert timing["deadline_s"].default == f"`{Timing().deadline_s}`"
    assert timing["deadline_s"].allowed == "a number of seconds from 0.001 to 600"
    cluster = {key.name: key for key in reference.keys("cluster")}
    assert cluster["id"].default == "must be given"
    assert cluster["storage"].allowed == '"disk" or "memory"'
