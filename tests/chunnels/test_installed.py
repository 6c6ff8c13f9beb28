"""Implementations of packages that somebody else has written, found where they are installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p4xos.chunnels import Runtime, endpoint, local_or_remote, reliable, serialize
from tests.chunnels.messages import ANYWHERE, Op, echo, patiently

STACK = serialize(Op) | reliable() | local_or_remote()
OP = Op("put", "a", b"1")

LITERAL = '''
import ast

from p4xos.chunnels import mapping


@mapping("serialize", "literal", priority=50, provides={"codec": "literal"})
def literal(layer):
    """Python's own notation."""
    schema = layer.arguments
    return (
        lambda values: [repr(schema.write(value)).encode() for value in values],
        lambda values: [schema.read_untrusted(ast.literal_eval(v.decode())) for v in values],
    )


not_one = "literal"
many = [literal, literal]
some = [literal, 7]
'''


def install(site: Path, name: str, module: str, text: str, *points: str) -> None:
    """What `pip install` leaves of a distribution: a module, and what is said of it."""
    (site / f"{module}.py").write_text(text)
    told = site / f"{name.replace('-', '_')}-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("\n".join(["[p4xos.chunnels]", *points, ""]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("literal_"):
            del sys.modules[name]


async def test_an_installed_package_is_chosen_without_a_changed_line(site: Path) -> None:
    """It has the higher priority, so it runs the layer as soon as both ends have it."""
    before = Runtime()
    install(site, "literal-chunnel", "literal_a", LITERAL, "literal = literal_a:literal")
    found = {}
    async with patiently(), endpoint("kv", STACK).serving(echo, ANYWHERE) as address:
        for name, runtime in (("without", before), ("with", Runtime())):
            client = endpoint("c", STACK, runtime=runtime)
            async with client.connect(address) as connection:
                await connection.send(OP)
                assert await connection.receive() == OP
                found[name] = connection.explain().layers[0]
    assert found["without"].implementation == "msgpack"
    assert found["with"].implementation == "literal"
    assert found["with"].reason.startswith("priority 50; also possible: msgpack (20), json (10)")


@pytest.mark.parametrize(
    ("point", "text", "told"),
    [
        ("gone = literal_b:gone", LITERAL, "AttributeError: module 'literal_b' has no attribute"),
        ("x = literal_b:not_one", LITERAL, "TypeError: 'l' is no Implementation"),
        ("x = literal_b:some", LITERAL, "TypeError: 7 is no Implementation"),
        ("x = literal_b:literal", "import no_such_module", "No module named 'no_such_module'"),
        ("x = literal_b:literal", "raise OSError('no card')", "OSError: no card"),
        ("x = literal_b:literal", "def literal(:", "SyntaxError"),
    ],
)
async def test_a_broken_package_is_named_and_hinders_no_other(
    site: Path, caplog: pytest.LogCaptureFixture, point: str, text: str, told: str
) -> None:
    install(site, "broken-chunnel", "literal_b", text, point)
    install(site, "good-chunnel", "literal_c", LITERAL, "many = literal_c:many")
    runtime = Runtime()
    assert ("serialize", "literal") in runtime.known
    assert ("serialize", "msgpack") in runtime.known
    assert runtime.counters["broken_packages"] == 1
    (line,) = [each.getMessage() for each in caplog.records]
    assert line.startswith(f"broken-chunnel registers {point} under p4xos.chunnels")
    assert told in line
    assert line.endswith("upgrade the package, or remove it")
    async with (
        patiently(),
        endpoint("kv", STACK, runtime=runtime).serving(echo, ANYWHERE) as address,
        endpoint("c", STACK, runtime=runtime).connect(address) as connection,
    ):
        await connection.send(OP)
        assert await connection.receive() == OP
