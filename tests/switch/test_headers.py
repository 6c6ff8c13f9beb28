"""The headers that the switches' programs have are those of the wire format."""

import re

from switch.p4 import FOLDER as P4
from switch.p4 import generate as for_p4
from switch.xdp import generate as for_c
from switch.xdp.outcomes import COUNT, Outcome


def test_headers_are_generated_from_the_wire_format() -> None:
    """docs/PROTOCOL.md, section 2: one place with offsets."""
    assert for_p4.PATH.read_text(encoding="utf-8") == for_p4.text(), (
        "run `python -m switch.p4.generate`"
    )
    for path, text in for_c.FILES.items():
        assert path.read_text(encoding="utf-8") == text(), "run `python -m switch.xdp.generate`"


def test_both_kinds_of_switches_count_the_same_outcomes() -> None:
    text = (P4 / "outcomes.p4").read_text(encoding="utf-8")
    found = dict(re.findall(r"OUTCOME_(\w+) = (\d+);", text))
    p4 = {name: int(number) for name, number in found.items()}
    own = {outcome.name for outcome in Outcome} - p4.keys()
    assert own == {"HANDED_UP", "CLOSED", "RACED"}
    assert {o.name: o.value for o in Outcome if o.name not in own} == p4
    assert max(Outcome) < COUNT
