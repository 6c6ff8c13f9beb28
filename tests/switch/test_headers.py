"""The header that P4 programs have is the one of the wire format."""

from switch.p4 import generate


def test_headers_are_generated_from_the_wire_format() -> None:
    """docs/PROTOCOL.md, section 2: one place with offsets."""
    assert generate.PATH.read_text(encoding="utf-8") == generate.text(), (
        "run `python -m switch.p4.generate`"
    )
