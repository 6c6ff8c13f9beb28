"""deploy/setup and the Makefile, with programs that only pretend: nothing is installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Stands for Debian's python3 without python3-venv, until `venv-installed` lies beside it.
PYTHON = """#!/bin/sh
here=$(dirname "$0")
case "$*" in
    *version_info*3,*) exit 0 ;;
    *"import ensurepip"*) [ -e "$here/venv-installed" ] ;;
    *libpython3*) echo libpython3.11-dev ;;
    *sysconfig*) echo "$INCLUDE" ;;
    deploy/compile.py*) touch compiled ;;
    *python3-venv*) echo python3-venv ;;
    *sys.executable*) echo "$0" ;;
    "-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; touch .venv/bin/venv-installed ;;
    "-m pip --version") exit 0 ;;
    "-m pip install"*) echo "$*" >> pip-calls; [ ! -e pip-fails ] || { cat pip-fails; exit 1; } ;;
esac
"""
SYSTEM_PROGRAMS = [
    "cat",
    "chmod",
    "cksum",
    "cp",
    "dirname",
    "flock",
    "grep",
    "mkdir",
    "rm",
    "sh",
    "tail",
    "touch",
]
TEST_PROGRAMS = (
    "redis-cli", "redis-benchmark", "redis-server", "ip", "nft", "spin", "gcc", "make", "clang",
    "bpftool",
)  # fmt: skip
APT_GET = """#!/bin/sh
echo "$*" >> apt-calls
case "$1" in install) cp "$POLICY_FILE" policy-seen; touch "$(dirname "$0")/venv-installed" ;; esac
"""


class Tree:
    """A copy of what set-up reads, and a PATH of pretenders and a few of the system's programs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("deploy", "Makefile", "pyproject.toml"):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, path / name)
            else:
                shutil.copy(source, path)
        (path / "bin").mkdir()
        for name in SYSTEM_PROGRAMS:
            found = shutil.which(name)
            if found is not None:
                (path / "bin" / name).symlink_to(found)
        self.program("python3", PYTHON)
        self.program("apt-get", APT_GET)
        for name in TEST_PROGRAMS:
            self.program(name, "#!/bin/sh\n")
        (path / "stdlib.h").touch()
        (path / "event2").mkdir()
        (path / "event2" / "event.h").touch()
        (path / "bpf").mkdir()
        (path / "bpf" / "bpf_helpers.h").touch()
        (path / "Python.h").touch()

    def program(self, name: str, text: str) -> None:
        file = self.path / "bin" / name
        file.write_text(text)
        file.chmod(0o755)

    def user(self, number: int) -> None:
        self.program("id", f"#!/bin/sh\necho {number}\n")

    def setup(self, level: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "deploy/setup", level],
            cwd=self.path,
            env={
                "PATH": f"{self.path}/bin",
                "POLICY_FILE": f"{self.path}/policy",
                "INCLUDE": str(self.path),
            },
            capture_output=True,
            text=True,
        )

    def calls(self, program: str) -> list[str]:
        file = self.path / f"{program}-calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_user_without_venv_gets_one_message(tree: Tree) -> None:
    tree.user(1000)
    done = tree.setup("run")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Debian's package python3-venv is missing" in done.stderr
    assert "sudo apt-get install python3-venv" in done.stderr
    assert done.stderr.count("\n") == 1
    assert tree.calls("apt") == []


def test_root_installs_what_is_missing(tree: Tree) -> None:
    tree.user(0)
    assert tree.setup("run").returncode == 0
    assert (tree.path / "policy-seen").read_text() == "#!/bin/sh\nexit 101\n"  # starts no service
    assert not (tree.path / "policy").exists()
    assert tree.calls("apt") == ["update -q", "install -y -q --no-install-recommends python3-venv"]


def test_installs_once_for_a_pyproject(tree: Tree) -> None:
    tree.user(1000)
    (tree.path / "bin" / "venv-installed").touch()
    assert tree.setup("run").returncode == 0
    assert tree.setup("run").stdout == ""
    assert len(tree.calls("pip")) == 1
    with (tree.path / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert tree.setup("develop").returncode == 0
    assert tree.setup("run").stdout == ""  # develop has all of run
    assert [call.rsplit(" ", 1)[1] for call in tree.calls("pip")] == [".", ".[dev]"]


def test_bench_is_more_than_develop(tree: Tree) -> None:
    tree.user(1000)
    (tree.path / "bin" / "venv-installed").touch()
    assert tree.setup("develop").returncode == 0
    assert tree.setup("bench").returncode == 0
    assert tree.setup("bench").stdout == ""
    assert tree.setup("test").stdout == ""
    assert [call.rsplit(" ", 1)[1] for call in tree.calls("pip")] == [".[dev]", ".[bench]"]


def test_missing_compiler_is_named(tree: Tree) -> None:
    tree.user(1000)
    (tree.path / "bin" / "venv-installed").touch()
    (tree.path / "pip-fails").write_text("error: command 'gcc' failed: No such file or directory\n")
    done = tree.setup("run")
    assert done.returncode == 1
    assert "sudo apt-get install build-essential python3-dev" in done.stderr
    (tree.path / "pip-fails").unlink()
    assert tree.setup("run").returncode == 0  # what was half done is redone


def test_compiled_is_run_and_mypyc(tree: Tree) -> None:
    tree.user(1000)
    (tree.path / "bin" / "venv-installed").touch()
    assert tree.setup("compiled").returncode == 0
    assert [call.rsplit(" ", 1)[1] for call in tree.calls("pip")] == [".", ".[compiled]"]
    assert (tree.path / "compiled").exists()


def test_nothing_is_compiled_without_headers(tree: Tree) -> None:
    tree.user(1000)
    (tree.path / "bin" / "venv-installed").touch()
    (tree.path / "Python.h").unlink()
    done = tree.setup("compiled")
    assert done.returncode == 1
    assert "sudo apt-get install libpython3.11-dev" in done.stderr
    assert not (tree.path / "compiled").exists()


def test_root_installs_the_compiler(tree: Tree) -> None:
    tree.user(0)
    (tree.path / "bin" / "gcc").unlink()
    assert tree.setup("compiled").returncode == 0
    assert tree.calls("apt")[-1] == "install -y -q --no-install-recommends gcc"


def test_user_without_redis_is_told_and_goes_on(tree: Tree) -> None:
    tree.user(1000)
    (tree.path / "bin" / "venv-installed").touch()
    (tree.path / "bin" / "redis-server").unlink()
    done = tree.setup("test")
    assert done.returncode == 0
    assert "without redis-server some tests will be skipped" in done.stdout


def test_root_gets_what_tests_drive(tree: Tree) -> None:
    tree.user(0)
    (tree.path / "bin" / "venv-installed").touch()
    (tree.path / "bin" / "nft").unlink()
    (tree.path / "stdlib.h").unlink()  # as with a compiler that came without the C library
    (tree.path / "event2" / "event.h").unlink()
    assert tree.setup("test").returncode == 0
    installed = "install -y -q --no-install-recommends nftables libc6-dev libevent-dev"
    assert tree.calls("apt") == ["update -q", installed]


def test_only_what_compiles_is_needed_for_libpaxos(tree: Tree) -> None:
    assert tree.setup("libpaxos").stdout == ""
    (tree.path / "event2" / "event.h").unlink()
    tree.user(1000)
    done = tree.setup("libpaxos")
    assert done.returncode == 1
    assert "sudo apt-get install libevent-dev" in done.stderr
    tree.user(0)
    assert tree.setup("libpaxos").returncode == 0
    installed = "install -y -q --no-install-recommends libevent-dev"
    assert tree.calls("apt") == ["update -q", installed]


def test_wrong_level_is_misuse(tree: Tree) -> None:
    assert tree.setup("everything").returncode == 2


def test_clean_tells_what_it_removes_and_keeps_the_environment(tree: Tree) -> None:
    for name in ("data/n1", ".venv", ".pytest_cache"):
        (tree.path / name).mkdir(parents=True)
    done = subprocess.run(["make", "clean"], cwd=tree.path, capture_output=True, text=True)
    assert done.returncode == 0
    assert "removing data\n" in done.stdout
    assert not (tree.path / "data").exists()
    assert (tree.path / ".venv").exists()


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("run", "kvstore cluster"),
        ("test", "-m tests.all"),
        ("sim", "--seeds 7"),
        ("bench", "-m bench"),
        ("libpaxos", "build/libpaxos/measure"),
    ],
)
def test_targets(target: str, command: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    done = subprocess.run(
        ["make", "--dry-run", target, "SEEDS=7"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert command in done.stdout.splitlines()[-1]
