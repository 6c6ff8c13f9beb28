"""Compiles the modules that `deploy/compiled.toml` lists, in a copy of the packages.

    python deploy/compile.py             .compiled/ holds the packages, compiled; at once if it does
    python deploy/compile.py --check     exit code 1 when it does not

mypyc turns the modules, as they are, into one shared library with direct calls between them. The
copy is a directory to put first on PYTHONPATH: beside the sources lies nothing that could be older
than they are. It is made anew when anything it depends on has changed, under another name, and
takes its place when it is whole and does what Python does (`deploy/semantics.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("p4xos", "kvstore")
COMPILED = ".compiled"
UNFINISHED = ".compiled.unfinished"
LIST = "deploy/compiled.toml"
SEMANTICS = "deploy/semantics.py"
FINGERPRINT = "fingerprint"
OPTIMIZATION = "1"
"""-O2 takes twice as long and gains nothing measurable: most of the time is spent inside Python's
own objects."""

BYTES_RUNTIME = "build/bytes_ops.c"
"""A part of mypyc's own that is compiled with the modules, and a slice of bytes is in it."""
SLICE_MEND = """\
#define CPyBytes_GetSlice mypyc_bytes_slice
%s
#undef CPyBytes_GetSlice

/* One that ends before it begins is empty in Python, and an error to mypyc's (2.4.1). */
PyObject *CPyBytes_GetSlice(PyObject *whole, CPyTagged start, CPyTagged end) {
    PyObject *slice = mypyc_bytes_slice(whole, start, end);
    if (slice == NULL && PyErr_ExceptionMatches(PyExc_SystemError)) {
        PyErr_Clear();
        return CPyObject_GetSlice(whole, start, end);
    }
    return slice;
}
"""

COMPARE = """
import sys
from importlib.machinery import ExtensionFileLoader, SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

sys.path.insert(0, ".")
import semantics

assert isinstance(semantics.__spec__.loader, ExtensionFileLoader), "it was not compiled"
loader = SourceFileLoader("plain", "semantics.py")
plain = module_from_spec(spec_from_loader("plain", loader))
loader.exec_module(plain)
differ = [pair for pair in zip(semantics.found(), plain.found(), strict=True) if len({*pair}) > 1]
for compiled, source in differ:
    print(f"compiled {compiled}\\nsource   {source}", file=sys.stderr)
sys.exit(bool(differ))
"""


def listed(root: Path) -> list[str]:
    """The modules to compile, as they are listed."""
    modules: list[str] = tomllib.loads((root / LIST).read_text())["modules"]
    return modules


def file_of(root: Path, module: str) -> str:
    """Where a module or a package's own one is, from the project's directory on."""
    place = module.replace(".", "/")
    return f"{place}/__init__.py" if (root / place).is_dir() else f"{place}.py"


def fingerprint(root: Path) -> str:
    """Of all that the outcome depends on: contents and not times, which git checkout changes."""
    found = hashlib.sha256()
    for told in (sys.version, sysconfig.get_config_var("SOABI"), _version("mypy")):
        found.update(f"{told}\n".encode())
    paths = [root / name for name in (LIST, SEMANTICS, "deploy/compile.py", "pyproject.toml")]
    for package in PACKAGES:
        paths += sorted(p for p in (root / package).rglob("*") if _is_source(p))
    for path in paths:
        data = path.read_bytes()
        found.update(f"{path.relative_to(root)} {len(data)}\n".encode())
        found.update(data)
    return found.hexdigest()


def is_fresh(root: Path) -> bool:
    """Whether the compiled packages are those of the sources as they are now."""
    with contextlib.suppress(FileNotFoundError):
        return (root / COMPILED / FINGERPRINT).read_text() == fingerprint(root)
    return False


def build(root: Path) -> None:
    """Makes the compiled packages; what was there before stays until they are whole.

    Raises:
      SystemExit: mypyc or the C compiler refused, or what they made is not Python; what they said
        is printed.
    """
    current = fingerprint(root)
    unfinished = root / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for package in PACKAGES:
            shutil.copytree(
                root / package, unfinished / package,
                ignore=shutil.ignore_patterns("__pycache__", "*.so"),
            )  # fmt: skip
        shutil.copy(root / "pyproject.toml", unfinished)  # mypy's settings
        shutil.copy(root / SEMANTICS, unfinished)
        with contextlib.chdir(unfinished):
            _compile([*(file_of(root, module) for module in listed(root)), Path(SEMANTICS).name])
        _compare(unfinished)
        shutil.rmtree(unfinished / "build")
        for file in unfinished.glob("semantics.*"):
            file.unlink()
        (unfinished / FINGERPRINT).write_text(current)
        shutil.rmtree(root / COMPILED, ignore_errors=True)
        unfinished.rename(root / COMPILED)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _compare(unfinished: Path) -> None:
    """Whether what was compiled does what its source does."""
    done = subprocess.run(  # -I: whatever PYTHONPATH and PYTHONSAFEPATH are, as with COMPILED=1
        [sys.executable, "-I", "-c", COMPARE], cwd=unfinished, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"compiled code does not do what Python does:\n{done.stderr}")


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "none"


def _compile(files: list[str]) -> None:
    """Compiles modules in place, below the present directory."""
    # Only who compiles has what is imported here: `make run` alone installs no compiler.
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    extensions = mypycify(
        # Everything that they import is checked by `make check`.
        ["--follow-imports=silent", "--cache-dir=../.mypy_cache/compiled", *files],
        opt_level=OPTIMIZATION, debug_level="0",
        multi_file=True,  # a C file for each module, so that there is something to do in parallel
    )  # fmt: skip
    runtime = Path(BYTES_RUNTIME)
    if not runtime.is_file():
        raise SystemExit(f"mypyc has no {BYTES_RUNTIME} to mend: is there a fit release of mypy?")
    runtime.write_text(SLICE_MEND % runtime.read_text())
    command: Any = build_ext(Distribution({"name": "p4xos", "ext_modules": extensions}))
    command.inplace = True
    command.build_temp = "build"
    command.parallel = len(os.sched_getaffinity(0))
    command.ensure_finalized()
    one_by_one = command.build_extensions

    def build_extensions() -> None:
        compile_files = command.compiler.compile

        def compile_together(sources: list[str], **options: Any) -> list[str]:
            with ThreadPool(command.parallel) as pool:
                made = pool.map(lambda source: compile_files([source], **options), sources, 1)
            return [object_file for group in made for object_file in group]

        command.compiler.compile = compile_together
        one_by_one()

    # setuptools would compile the library's files in turn.
    command.build_extensions = build_extensions
    command.run()


@contextlib.contextmanager
def _quiet_unless_it_fails() -> Iterator[None]:
    """Keeps what mypyc and setuptools print; it is told when they end in an error."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            yield
    except BaseException:
        sys.stderr.write(told.getvalue())
        raise


def main(arguments: list[str]) -> int:
    """Exit code 0: the compiled packages are there and fresh."""
    parser = argparse.ArgumentParser(description=__doc__, prog="deploy/compile.py")
    parser.add_argument("--check", action="store_true", help="only say whether they are fresh")
    if parser.parse_args(arguments).check:
        return 0 if is_fresh(ROOT) else 1
    if not is_fresh(ROOT):
        print(f"compile: {len(listed(ROOT))} modules to {COMPILED}/: some minutes", flush=True)
        with _quiet_unless_it_fails():
            build(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
