"""paxos.conf: what is read, and what is refused, with line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from p4xos.compat.libpaxos.conf import ConfSyntaxError, Options, PaxosConf
from p4xos.compat.libpaxos.serving import check_options, ids_of, ports_of
from p4xos.config import Cluster, ConfigError
from p4xos.tables import Address

TEXT = """\
# three replicas and a proposer
replica 7 127.0.0.1 8800
R 7 127.0.0.1 8801
acceptor 0 127.0.0.1 8802   # a comment
  p 0 10.0.0.1 5550

Verbosity DEBUG
tcp-nodelay no
learner-catch-up no
proposer-timeout 10
proposer-preexec-window 1024
storage-backend lmdb
acceptor-trash-files yes
lmdb-sync yes
lmdb-env-path /var/my path/acceptor
lmdb-mapsize 1gb
"""


def test_every_line_of_libpaxos_is_read() -> None:
    conf = PaxosConf.parse(TEXT)
    local = [Address("127.0.0.1", 8800 + k) for k in range(3)]
    assert conf.acceptors == tuple(local)
    assert conf.proposers == (local[0], local[1], Address("10.0.0.1", 5550))
    assert conf.options == Options(
        "debug", False, False, 10, 1024, "lmdb", True, True, "/var/my path/acceptor", 1 << 30
    )
    assert conf.given["lmdb_mapsize"] == (16, 14)
    assert PaxosConf.parse("a 0 1.2.3.4 1\r\n").options == Options()


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a 0 1.2.3.4 1\nacceptr 0 1.2.3.4 2", 2, 1, 'did you mean "acceptor"'),
        ("a 0 1.2.3.4 1\n lmdb-synk yes", 2, 2, 'did you mean "lmdb-sync"'),
        ("a 0 1.2.3.4 1\nlmdb_sync yes", 2, 1, "unknown"),
        ("a 0 1.2.3.4", 1, 5, "ends too early"),
        ("a", 1, 1, "ends too early"),
        ("a x 1.2.3.4 1", 1, 3, "no number"),
        ("a 0 localhost 1", 1, 5, "no IPv4 address"),
        ("a 0 1.2.3.4 70000", 1, 13, "1 to 65535"),
        ("a 0 1.2.3.4 -1", 1, 13, "1 to 65535"),
        ("a 0 1.2.3.4 1 2", 1, 15, "too much"),
        ("a 0 1.2.3.4 1\nr 1 1.2.3.4 1", 2, 1, "acceptor 0 already"),
        ("\n".join(f"a {k} 1.2.3.4 {k + 1}" for k in range(11)), 11, 1, "one acceptor too many"),
        ("tcp-nodelay", 1, 1, "yes or no"),
        ("tcp-nodelay maybe", 1, 13, "yes or no"),
        ("verbosity loud", 1, 11, "quiet, error, info or debug"),
        ("storage-backend bdb", 1, 17, "memory or lmdb"),
        ("proposer-timeout 0", 1, 18, "at least 1"),
        ("lmdb-mapsize 10 tb", 1, 14, "kb, mb or gb"),
        ("lmdb-sync yes\nlmdb-sync yes\nlmdb-sync no", 3, 11, "another value in line 2"),
    ],
)
def test_errors_have_line_and_column(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(ConfSyntaxError) as caught:
        PaxosConf.parse(text, "paxos.conf")
    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(caught.value).startswith(f"paxos.conf: line {line}, column {column}: ")
    assert words in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no acceptor and no replica"):
        PaxosConf.parse("verbosity info")
    with pytest.raises(OSError, match="No such file"):
        PaxosConf.load(tmp_path / "paxos.conf")
    path = tmp_path / "paxos.conf"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        PaxosConf.load(path)
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigError, match="1 MiB"):
        PaxosConf.load(path)


def conf(text: str = "") -> PaxosConf:
    lines = [f"a {k} 127.0.0.1 {9000 + k}" for k in range(5)]
    return PaxosConf.parse("\n".join([*lines, "p 0 127.0.0.1 9100", text]), "paxos.conf")


def test_nodes_take_turns_for_acceptors_and_proposers() -> None:
    cluster = Cluster.template(3, 7101)
    ids = {name: ids_of(conf(), cluster, name, None) for name in ("n1", "n2", "n3")}
    assert ids == {"n1": [0, 3], "n2": [1, 4], "n3": [2]}
    assert [(p.address.port, p.acceptor) for p in ports_of(conf(), ids["n1"])] == [
        (9000, 0), (9003, 3), (9100, None)
    ]  # fmt: skip
    assert ids_of(conf(), cluster, "n2", [2, 0, 2]) == [0, 2]
    with pytest.raises(ConfigError, match="there is no id 5"):
        ids_of(conf(), cluster, "n2", [5])
    with pytest.raises(ConfigError, match="no node"):
        ids_of(conf(), cluster, "n9", None)


def test_a_replica_is_served_once() -> None:
    both = PaxosConf.parse("r 0 127.0.0.1 9000\np 1 127.0.0.1 9001")
    assert [(p.address.port, p.acceptor) for p in ports_of(both, [0, 1])] == [
        (9000, 0), (9001, None)
    ]  # fmt: skip


def test_what_a_cluster_cannot_do_is_refused_by_name() -> None:
    on_disk = Cluster.template(3, 7101)
    memory = Cluster.template(3, 7101, "memory")
    check_options(conf("storage-backend lmdb"), on_disk)
    check_options(conf("proposer-preexec-window 65536"), memory)
    with pytest.raises(ConfSyntaxError, match="line 7, column 17: storage-backend: lmdb is found"):
        check_options(conf("storage-backend lmdb"), memory)
    with pytest.raises(ConfSyntaxError, match="proposer-preexec-window: 65537 is found"):
        check_options(conf("proposer-preexec-window 65537"), on_disk)
