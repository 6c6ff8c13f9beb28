"""Each bug of the gallery is refuted, by a packet that the interpreter agrees on.

`make test` takes all that are published and some others; `make gallery` takes all.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

import switch.p4
from p4xos.testing import vectors
from switch.lang import ir, load
from switch.verify.processes import results
from switch.verify.verifier import GENERAL, Finding, property_names, verify
from tests.switch.verify.gallery import BUGS, Bug
from tests.vectors.targets import ModelTarget, RoleTarget

PROGRAMS = Path(switch.p4.__file__).parent
SMALL = {"VERIFY": 1, "VALUE_BYTES": 8, "SLOT_BITS": 4}
"""A bug is one in any size; small programs are refuted sooner."""
ALL = "LONG_PROOFS" in os.environ
SOME = 3
"""One of so many of the others."""
PUBLISHED = "trap "
"""How the titles of bugs begin that docs/traps.md tells of."""


def chosen() -> list[Bug]:
    """The bugs of this run."""
    others = [bug for bug in BUGS if not bug.title.startswith(PUBLISHED)]
    some = others if ALL else others[::SOME]
    return [bug for bug in BUGS if bug in some or bug not in others]


def broken(bug: Bug) -> ir.Program:
    """The program with the bug; each edit must change just one place."""
    texts = {}
    for name, old, new in bug.edits:
        text = (PROGRAMS / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{bug.title}: {text.count(old)} times in {name}: {old}"
        texts[str(PROGRAMS / name)] = text.replace(old, new)
    return load(PROGRAMS / f"{bug.program}.p4", SMALL, texts)


def refuted(bug: Bug) -> list[Finding]:
    """What is found where only the bug's property is asked for."""
    return verify(broken(bug), [bug.property], processes=1).broken


@pytest.fixture(scope="module")
def found() -> dict[str, list[Finding]]:
    """All at once, on all cores."""
    bugs = chosen()
    answers = results([partial(refuted, bug) for bug in bugs])
    return {bug.title: answer for bug, answer in zip(bugs, answers, strict=True)}


@pytest.mark.parametrize("bug", chosen(), ids=lambda bug: bug.title)
def test_a_bug_is_refuted(bug: Bug, found: dict[str, list[Finding]]) -> None:
    assert found[bug.title]
    for finding in found[bug.title]:
        assert finding.counterexample is not None
        if bug.property == "unset":
            continue  # what is read may be anything to the solver; it is 0 to the interpreter
        assert finding.counterexample.replay() == finding.differences == []


def test_a_counter_example_is_a_vector_of_what_is_right(
    tmp_path: Path, found: dict[str, list[Finding]]
) -> None:
    """Of every bug where a vector can say it: model and numpy do with the packet what it says."""
    texts = [finding.vector for each in found.values() for finding in each if finding.vector]
    assert len(texts) > len(found) // 2
    path = tmp_path / "found.vectors"
    path.write_text("\n".join(texts), encoding="utf-8")
    read = vectors.parse(path)
    assert len(read) == len(texts)
    for vector in read:
        for target in (ModelTarget(), RoleTarget(scalar_below=1 << 30)):
            vectors.run(vector, target)


def test_titles_are_unique() -> None:
    assert max(Counter(bug.title for bug in BUGS).values()) == 1


def test_every_property_of_a_role_is_broken_by_a_bug() -> None:
    """One that no bug breaks may hold because it says nothing."""
    named = {(bug.program, bug.property) for bug in BUGS}
    assert len(chosen()) >= 30
    for program in ("acceptor", "coordinator"):
        role = property_names(load(PROGRAMS / f"{program}.p4", SMALL)).keys() - GENERAL.keys()
        assert {name for name in role if (program, name) not in named} == set()
