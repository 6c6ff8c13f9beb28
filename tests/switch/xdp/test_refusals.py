"""What keeps a machine from running the programs: one line says it, and that software would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from kvstore.cli import main
from p4xos import planes
from p4xos.config import Cluster
from p4xos.creation import DirectoryRefused, Wanted, find_or_create
from p4xos.planes import ENTRY_POINTS
from p4xos.roles.acceptor import Acceptor
from p4xos.roles.sequencer import Sequencer
from p4xos.wire import Frame
from switch.xdp import build, fabric, places
from switch.xdp.errors import XdpUnavailable
from switch.xdp.libbpf import Loaded
from switch.xdp.planes import AutoPlanes, XdpPlanes
from tests.switch.kernel import in_the_kernel

POINTS = EntryPoints(
    EntryPoint(name=name, value=f"switch.xdp.planes:{kind}", group=ENTRY_POINTS)
    for name, kind in (("xdp", "XdpPlanes"), ("auto", "AutoPlanes"))
)
SOFTWARE = "or serve in software (data plane numpy)"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's entry points, whether it is installed or not."""
    monkeypatch.setattr(planes, "entry_points", lambda group: POINTS.select(group=group))


def refused(capsys: pytest.CaptureFixture[str], directory: Path) -> str:
    """The one line with which a launch ends; nothing has been made."""
    directory.mkdir(exist_ok=True)
    flags = ["--directory", str(directory), "--base-port", "0", "--data-plane", "xdp"]
    assert main(["cluster", *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert not (directory / "cluster.toml").exists()
    assert line.startswith("kvstore: XDP cannot run here: ")
    assert line.endswith(SOFTWARE)
    return line


@pytest.mark.usefixtures("installed")
def test_without_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "it needs root; run it as root" in refused(capsys, tmp_path / "cluster")


@pytest.mark.usefixtures("installed")
def test_without_clang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None)
    line = refused(capsys, tmp_path / "cluster")
    assert "clang is missing; install it (Debian: apt-get install clang libbpf-dev)" in line


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("plane", "network", "told"),
    [
        ("numpy", "star", "the data plane numpy has none to choose from; leave it out"),
        ("xdp", "ring", "the data plane xdp has star and leaf-spine; choose one of them"),
    ],
)
def test_a_network_that_is_not_there(tmp_path: Path, plane: str, network: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"--network {network}: {told}"):
        made(tmp_path, plane, network)


@in_the_kernel
@pytest.mark.usefixtures("installed")
def test_another_network_than_the_cluster_has(tmp_path: Path) -> None:
    cluster = made(tmp_path, "xdp", "leaf-spine")
    assert made(tmp_path, "xdp", "leaf-spine") == made(tmp_path, None, None) == cluster
    with pytest.raises(DirectoryRefused, match="created with --network leaf-spine, not star"):
        made(tmp_path, None, "star")
    text = cluster.to_toml().replace("10.81.", "10.9.")
    (tmp_path / "cluster.toml").write_text(text)
    with pytest.raises(DirectoryRefused, match="created without --network, not star"):
        made(tmp_path, None, "star")


def made(directory: Path, plane: str | None, network: str | None) -> Cluster:
    wanted = Wanted(base_port=0, data_plane=plane, network=network)
    return find_or_create(directory, wanted, lambda new, _: new)


@in_the_kernel
@pytest.mark.usefixtures("installed")
def test_without_the_program_ip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    which = shutil.which
    monkeypatch.setattr("shutil.which", lambda name: None if name == "ip" else which(name))
    line = refused(capsys, tmp_path / "cluster")
    assert "the program ip is missing; install it (Debian: apt-get install iproute2)" in line


@in_the_kernel
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="there is no setpriv (util-linux)")
def test_root_without_its_rights(tmp_path: Path) -> None:
    """As in a container: a newer kernel would not help."""
    made = build.build("port", {}, tmp_path / "cache")
    for code, told in (
        (f"libbpf.Loaded(Path({str(made)!r}))", "root may not load programs here; give it CAP_BPF"),
        ("namespaces.check()", "it may not make a network of its own; run it as root, in a"),
    ):
        program = f"from pathlib import Path\nfrom switch.xdp import libbpf, namespaces\n{code}\n"
        done = subprocess.run(
            ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", program],
            capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
        )  # fmt: skip
        assert told in done.stderr


def test_without_the_programs_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clang = tmp_path / "clang"
    clang.write_text("#!/bin/sh\necho \"x.c:1:10: fatal error: 'bpf/y.h' file not found\" >&2\n"
                     "[ $1 = --version ]\n")  # fmt: skip
    clang.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(XdpUnavailable, match=r"'bpf/y.h' file not found; install the headers"):
        build.build("acceptor", {}, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_where_others_write(tmp_path: Path) -> None:
    """The kernel is given what lies in the cache."""
    tmp_path.chmod(0o777)
    with pytest.raises(XdpUnavailable, match="others can write to"):
        build.build("acceptor", {}, tmp_path)


@in_the_kernel
def test_a_program_that_the_verifier_refuses(tmp_path: Path) -> None:
    source = tmp_path / "wrong.bpf.c"
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("xdp") int wrong(struct xdp_md *ctx) { return *(int *)(long)ctx->data; }\n'
        'char LICENSE[] SEC("license") = "GPL";\n'
    )
    made = build.build(str(source), {}, tmp_path / "cache")
    with pytest.raises(XdpUnavailable, match=r"the kernel refuses the programs: .*packet.*kernel"):
        Loaded(made)


@in_the_kernel
def test_an_object_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.build("coordinator", {"VALUE_BYTES": 80}, tmp_path / "cache")
    monkeypatch.setattr(build, "_compile", lambda command: pytest.fail("compiled again"))
    assert build.build("coordinator", {"VALUE_BYTES": 80}, tmp_path / "cache") == first
    with pytest.raises(pytest.fail.Exception, match="compiled again"):
        build.build("coordinator", {"VALUE_BYTES": 88}, tmp_path / "cache")


def test_without_libbpf(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom switch.xdp import libbpf\n"
        "libbpf._NAMES = ('libnone.so.1',)\nlibbpf.Loaded(Path('x'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ,
        "PYTHONPATH": ":".join(filter(None, sys.path))},
    )  # fmt: skip
    assert "libbpf is missing; install it (Debian: apt-get install libbpf1)" in done.stderr


@in_the_kernel
def test_on_the_loopback() -> None:
    """Nothing that is sent there passes a driver, and one batch is one packet."""
    cluster = Cluster.template(3, storage="memory", apart=True)
    with pytest.raises(XdpUnavailable, match=r"127.0.0.1 is on the loopback"):
        XdpPlanes().acceptor(cluster, Frame(cluster.id, 0, 0))


@in_the_kernel
def test_an_address_of_nobody() -> None:
    text = Cluster.template(3, 7101, "memory", apart=True).to_toml()
    cluster = Cluster.parse(text.replace("127.0.0.1", "203.0.113.7"), "file")
    with pytest.raises(XdpUnavailable, match=r"no interface here has the address 203\.0\.113\.7"):
        XdpPlanes().acceptor(cluster, Frame(cluster.id, 0, 0))


def test_auto_serves_in_software(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    template = Cluster.template(3, 7101, "memory", apart=True)
    cluster = AutoPlanes().fit(template)
    assert cluster == template
    assert not fabric.holds(cluster)
    monkeypatch.setattr("shutil.which", lambda name: None)
    frame = Frame(cluster.id, 0, 1)
    assert isinstance(AutoPlanes().acceptor(cluster, frame), Acceptor)
    assert type(AutoPlanes().sequencer(cluster, frame)) is Sequencer
    assert "acceptor 1 runs in software: XDP cannot run here: clang is missing" in caplog.text


def test_a_node_without_its_launcher(tmp_path: Path) -> None:
    """Its network is the launcher's to make."""
    cluster = Cluster.template(3, storage="memory", apart=True, directory=tmp_path)
    with pytest.raises(XdpUnavailable, match="its launcher makes it: start that first"):
        fabric.found(cluster)
    (tmp_path / places.FILE).write_text(f"/proc/{os.getpid()}/fd/0 net:[1] fabric\n")
    with pytest.raises(XdpUnavailable, match="the network of this cluster is not there"):
        fabric.found(cluster)
