"""Which module may import which: the arrows of docs/ARCHITECTURE.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p4xos import chunnels

ROOT = Path(__file__).parents[1]
PURE = {
    "p4xos.batching", "p4xos.effects", "p4xos.envelope", "p4xos.errors", "p4xos.quorum",
    "p4xos.wire",
}  # fmt: skip
PURE_STANDARD = {
    "__future__", "bisect", "collections", "dataclasses", "enum", "functools", "itertools", "math",
    "struct", "typing",
}  # fmt: skip
"""Of the standard library: what needs no clock, no chance, no file and no peer."""
CHECKER = "p4xos.testing.linearizability"
"""Of what is for tests, `kvstore check` alone uses this."""
LEAVES = {"switch", "bench", "tests"}
PACKAGES = ("p4xos", "kvstore")
HEAVY = {"trio", "msgpack", "prometheus_client", "rocksdict", "hiredis", "rich", "lark", "z3"}
"""What a verb imports when it is called: `--help`, completion and errors stay quick."""
SWITCH_MODULES = sorted((ROOT / "switch").rglob("*.py"))
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """The full names of all modules imported anywhere in a file; relative imports are not used."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield below if is_module(below) else node.module


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def is_role(module: str) -> bool:
    return module == "p4xos.roles" or module.startswith("p4xos.roles.")


def test_there_is_something_to_check() -> None:
    names = {name_of(path) for path in MODULES}
    assert names >= PURE
    assert sum(is_role(name) for name in names) >= 8


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_the_right_way(path: Path) -> None:
    """Pure modules import pure ones; roles those; and nobody what is built on it."""
    module = name_of(path)
    for name in imported(path):
        top = name.partition(".")[0]
        assert top not in LEAVES, f"{module} imports {name}"
        if top not in PACKAGES:
            if module in PURE or is_role(module):
                assert top == "numpy" or top in PURE_STANDARD, f"{module} imports {name}"
            continue
        if module in PURE:
            assert name in PURE | {"p4xos"}, f"{module} imports {name}"
        if is_role(module):
            assert name in PURE or is_role(name), f"{module} imports {name}"
        if module.startswith("p4xos"):
            assert top != "kvstore", f"{module} imports {name}"
        judges = module.startswith("kvstore.checking") and name.startswith(CHECKER)
        if name.startswith("p4xos.chunnels") and top == "p4xos" and module.startswith("p4xos"):
            above = module.startswith("p4xos.chunnels") or module == "p4xos.cli"
            assert above, f"{module} imports {name}"
        if not module.startswith("p4xos.testing") and not judges:
            assert not name.startswith("p4xos.testing"), f"{module} imports {name}"


@pytest.mark.parametrize("path", SWITCH_MODULES, ids=name_of)
def test_the_switch_stands_on_the_log_alone(path: Path) -> None:
    """It knows no store; its P4 front end knows nothing but itself."""
    module = name_of(path)
    for name in imported(path):
        top = name.partition(".")[0]
        assert top not in ("kvstore", "bench", "tests"), f"{module} imports {name}"
        assert not name.startswith("p4xos.testing"), f"{module} imports {name}"
        if module.startswith("switch.lang"):
            own = name.startswith("switch.lang")
            assert own or top not in ("p4xos", "switch"), f"{module} imports {name}"


@pytest.mark.parametrize("module", ["p4xos.cli", "kvstore.cli", "switch.cli"])
def test_a_command_line_is_read_before_anything_heavy_is_imported(module: str) -> None:
    told = f"import sys, {module}; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert module in found.stdout.split()
    assert not HEAVY & set(found.stdout.split())


def test_a_node_of_the_store_starts_without_what_connections_need() -> None:
    """It negotiates with its group; sockets, windows and codecs are for others."""
    told = "import sys, kvstore.node; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True
    )
    chunnels = {
        name.removeprefix("p4xos.chunnels.")
        for name in found.stdout.split()
        if name.startswith("p4xos.chunnels.")
    }
    assert "group.connection" in chunnels
    assert not chunnels & {
        "builtin", "connecting", "serving", "udp", "transport", "window", "sharding",
        "serialization", "discovery.service",
    }  # fmt: skip


def test_a_package_gives_on_what_it_says() -> None:
    """Its names are imported when they are asked for: the three lists of them agree."""
    listed: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(Path(chunnels.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("p4xos"):
            module = str(node.module).removeprefix("p4xos.chunnels.")
            listed[module] = {alias.name for alias in node.names}
    assert listed == {module: set(names.split()) for module, names in chunnels._HOMES.items()}
    assert sorted(chunnels.__all__) == sorted(name for names in listed.values() for name in names)
    for name in chunnels.__all__:
        assert getattr(chunnels, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        chunnels.nonsense  # type: ignore[attr-defined]  # noqa: B018  # that is what is tested


def test_the_check_sees_all_forms(tmp_path: Path) -> None:
    """The checker itself: each form of import is found, in functions too."""
    source = (
        "import trio.socket\nfrom p4xos import wire\ndef f():\n    from p4xos.wire import Rows\n"
    )
    path = tmp_path / "module.py"
    path.write_text(source, encoding="utf-8")
    assert list(imported(path)) == ["trio.socket", "p4xos.wire", "p4xos.wire"]
