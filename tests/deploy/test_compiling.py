"""deploy/compile.py: what is compiled, and when it is made anew. Compiling is `make compiled`."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from deploy import compile as compiling
from p4xos.inquiries import described
from tests import compiled as compiled_tests

ROOT = Path(__file__).resolve().parents[2]
LOADED = """
import importlib, json, sys
from p4xos.compiled import compiled_modules
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(compiled_modules()))
"""

SLICED = '''"""A slice."""


def between(data: bytes, start: int, end: int) -> bytes:
    """Of some bytes."""
    return data[start:end]
'''
PLAIN = ("Error", "Exception", "NamedTuple", "Enum", "Protocol")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project of one module a package, with the list and the settings of this one."""
    for package in compiling.PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f'"""{package}."""\n')
    (tmp_path / "deploy").mkdir()
    for name in (compiling.LIST, compiling.SEMANTICS, "deploy/compile.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def pretend(monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None) -> list[list[str]]:
    """In place of mypyc: notes what it is given, and leaves what it would."""
    calls: list[list[str]] = []

    def compile_files(files: list[str]) -> None:
        calls.append(files)
        Path("build").mkdir()
        Path("p4xos/made.so").touch()
        if error is not None:
            raise error

    monkeypatch.setattr(compiling, "_compile", compile_files)
    monkeypatch.setattr(compiling, "_compare", lambda directory: None)
    return calls


def test_the_list_names_modules_that_are_there_once() -> None:
    modules = compiling.listed(ROOT)
    left_out = tomllib.loads((ROOT / compiling.LIST).read_text())["left_out"]
    assert len(set(modules) | set(left_out)) == len(modules) + len(left_out)
    for module in [*modules, *left_out]:
        assert module.partition(".")[0] in compiling.PACKAGES
        assert (ROOT / compiling.file_of(ROOT, module)).is_file(), module


def test_no_listed_module_has_what_mypyc_refuses() -> None:
    """It compiles them, and they fail when they are imported."""
    for module in compiling.listed(ROOT):
        text = (ROOT / compiling.file_of(ROOT, module)).read_text()
        assert "@runtime_checkable" not in text, module


def test_no_name_of_a_caught_error_has_two_types() -> None:
    """In mypyc a variable has one type; an error of the second would be a TypeError instead."""
    for module in compiling.listed(ROOT):
        tree = ast.parse((ROOT / compiling.file_of(ROOT, module)).read_text())
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                types: dict[str, str] = {}
                for node in ast.walk(function):
                    if isinstance(node, ast.ExceptHandler) and node.name and node.type:
                        caught = ast.unparse(node.type)
                        found = types.setdefault(node.name, caught)
                        assert found == caught, f"{module}.{function.name}: {node.name}"


def test_no_compiled_class_has_a_subclass_elsewhere() -> None:
    """It could be made, and would raise a TypeError at the first instance; but for plain ones."""
    listed = {module: ROOT / compiling.file_of(ROOT, module) for module in compiling.listed(ROOT)}
    for package in (*compiling.PACKAGES, "switch", "bench", "examples"):
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text()
            if path in listed.values() or not re.search(r"^ *class \w+\(", text, re.MULTILINE):
                continue
            tree = ast.parse(text)
            imported = {
                alias.asname or alias.name: (node.module, alias.name)
                for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                for alias in node.names if node.module in listed
            }  # fmt: skip
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    bases = [imported.get(ast.unparse(base)) for base in node.bases]
                    for module, name in filter(None, bases):
                        assert _is_plain(listed[module], name), f"{path}: {node.name}"


def _is_plain(path: Path, name: str) -> bool:
    """Whether mypyc leaves a class one of Python's: an exception, a tuple, an enum, a Protocol."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return any(ast.unparse(base).endswith(PLAIN) for base in node.bases)
    return False


def test_what_is_done_elsewhere_is_found_to_be() -> None:
    """The samples themselves: that they are the same compiled is seen by each build."""
    spec = importlib.util.spec_from_file_location("semantics", ROOT / compiling.SEMANTICS)
    assert spec is not None
    assert spec.loader is not None
    semantics = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(semantics)
    found = semantics.found()
    assert len(found) == len({line.partition(":")[0] for line in found})
    assert min(map(len, found)) > 20


def test_a_module_is_compiled_and_does_what_python_does(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it on a project of one module; some seconds of a core."""
    monkeypatch.setattr(compiling, "OPTIMIZATION", "0")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # as with COMPILED=1
    if not shutil.which("gcc"):
        pytest.skip("no gcc: deploy/setup compiled")
    (tree / compiling.LIST).write_text('modules = ["p4xos.sliced"]\n')
    (tree / "p4xos" / "sliced.py").write_text(SLICED)
    compiling.build(tree)
    made = tree / compiling.COMPILED
    assert not list(made.glob("semantics.*"))
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from p4xos import sliced\n"
         "print(sliced.__file__.endswith('.so'), sliced.between(b'abcd', 3, 1))"],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": str(made)},
    )  # fmt: skip
    assert done.stdout == "True b''\n"


def test_what_is_no_python_is_thrown_away(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare = compiling._compare
    pretend(monkeypatch)
    monkeypatch.setattr(compiling, "_compare", compare)
    with pytest.raises(SystemExit, match="it was not compiled"):
        compiling.build(tree)
    assert not (tree / compiling.COMPILED).exists()


def test_a_status_tells_who_runs_compiled() -> None:
    told = described({"n1": {"compiled_modules": 53}, "n2": {"compiled_modules": 0}, "n3": {}})
    assert told == {"n1": "compiled", "n2": "", "n3": ""}


def test_what_cannot_run_compiled_is_there() -> None:
    for name in [*compiled_tests.LEFT_OUT, *compiled_tests.FOLDERS]:
        path, _, test = name.partition("::")
        assert (ROOT / path).exists(), path
        assert test.rpartition("::")[2] in ((ROOT / path).read_text() if test else ""), name


def test_fingerprint_is_of_contents(tree: Path) -> None:
    before = compiling.fingerprint(tree)
    source = tree / "p4xos" / "__init__.py"
    os.utime(source, (1, 1))
    (tree / "p4xos" / "__pycache__").mkdir()
    (tree / "p4xos" / "__pycache__" / "x.pyc").touch()
    assert compiling.fingerprint(tree) == before
    source.write_text('"""Another."""\n')
    changed = compiling.fingerprint(tree)
    (tree / "kvstore" / "more.py").touch()
    assert len({before, changed, compiling.fingerprint(tree)}) == 3


def test_built_once_for_the_sources(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = pretend(monkeypatch)
    assert not compiling.is_fresh(tree)
    compiling.build(tree)
    files = [compiling.file_of(tree, name) for name in compiling.listed(tree)]
    assert calls == [[*files, "semantics.py"]]
    assert compiling.is_fresh(tree)
    made = tree / compiling.COMPILED
    assert (made / "p4xos" / "made.so").exists()
    assert not (made / "build").exists()
    assert not (made / "semantics.py").exists()
    assert not (tree / compiling.UNFINISHED).exists()
    (tree / "kvstore" / "more.py").touch()
    assert not compiling.is_fresh(tree)


def test_a_failure_leaves_what_was_there(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    compiling.build(tree)
    (tree / "kvstore" / "more.py").touch()
    pretend(monkeypatch, SystemExit("mypyc refuses"))
    with pytest.raises(SystemExit, match="mypyc refuses"):
        compiling.build(tree)
    assert not (tree / compiling.UNFINISHED).exists()
    assert not (tree / compiling.COMPILED / "kvstore" / "more.py").exists()
    assert not compiling.is_fresh(tree)


def test_compiled_modules_are_those_that_are_loaded() -> None:
    if not compiling.is_fresh(ROOT):
        pytest.skip("no .compiled/ of these sources: make compiled")
    modules = compiling.listed(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *modules], capture_output=True, text=True, check=True,
        env=compiled_tests.environment(), cwd=ROOT,
    )  # fmt: skip
    assert json.loads(done.stdout) == sorted(modules)
