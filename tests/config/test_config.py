"""The cluster file: what is accepted, what is refused in which words, and the way back to text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.config import endpoint, endpoints, with_endpoints
from p4xos.config import Address, Cluster, ConfigError, Timing

GOOD = Cluster.template(nodes=3, base_port=7101, cluster_id=2882400001).to_toml()


def parse(text: str) -> Cluster:
    return Cluster.parse(text, "cluster.toml")


def table(name: str, number: int, text: str = GOOD) -> str:
    """The text of one table of the good file."""
    found = re.findall(rf"^\[\[?{name}\]\]?\n(?:.+\n)*", text, re.MULTILINE)[number - 1]
    assert isinstance(found, str)
    return found


def test_good_file() -> None:
    cluster = parse(GOOD)
    assert cluster.id == 2882400001
    assert (cluster.window, cluster.value_bytes, cluster.storage) == (65536, 1432, "disk")
    assert cluster.nodes[0].peer == Address("127.0.0.1", 7121)
    assert cluster.nodes[0].metrics == Address("127.0.0.1", 7141)
    assert cluster.addresses("acceptor")[2] == ("127.0.0.1", 7133)
    assert cluster.member("learner", 1).node == "n2"
    assert [role for role, _ in cluster.members_of("n3")] == ["acceptor", "coordinator", "learner"]
    assert cluster.timing == Timing()


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(GOOD)
    cluster = Cluster.load(file)
    assert cluster.data_directory("n2") == tmp_path / "n2"
    assert cluster.member_directory("acceptor", 1) == tmp_path / "n2" / "acceptor-1"


REFUSED = [
    ("id = 2882400001", "id = 0", '[cluster], "id": found 0, allowed is a whole number from 1 to'),
    ("id = 2882400001", "", '[cluster], "id": the key is missing'),
    ("id = 2882400001", 'id = "7"', "write it without quotes"),
    ("id = 2882400001", "id = true", "found true, allowed is a whole number"),
    ("group = 0", "group = 65536", '"group": found 65536'),
    ("window = 65536", "window = 65000", "found 65000, allowed is a power of two; 32768 is near"),
    ("window = 65536", "window = 8", "allowed is a whole number from 16 to 1048576"),
    ("value_bytes = 1432", "value_bytes = 1440", "one frame of at most 1472 bytes"),
    ("value_bytes = 1432", "value_bytes = 1430", "allowed is a multiple of 8; 1424 is near"),
    ('storage = "disk"', 'storage = "tape"', 'allowed is "disk" or "memory"'),
    ("window = ", "windw = ", '"windw": this key is unknown; did you mean "window"?'),
    ("[timing]", "[timings]", 'the table "timings" is unknown; did you mean "timing"?'),
    ("[cluster]", "[kluster]", 'the table "kluster" is unknown; did you mean "cluster"?'),
    ("[timing]", "[[timing]]", "found a list, allowed is a table"),
    ('"127.0.0.1:7122"', '"127.0.0.1"', 'number 2, "peer": found "127.0.0.1", allowed is an IPv4'),
    ('"127.0.0.1:7122"', '"127.0.0.1:0"', "the port is a number from 1 to 65535"),
    ('"127.0.0.1:7122"', '"127.0.0.1:65536"', "the port is a number from 1 to 65535"),
    ('"127.0.0.1:7122"', '"localhost:7122"', "no host name and no IPv6"),
    ('"127.0.0.1:7122"', '"0.0.0.0:7122"', "the one address of the machine"),
    ('"127.0.0.1:7122"', "7122", "write it in double quotes"),
    ('"127.0.0.1:7122"', '"127.0.0.1:7121"', "TCP address 127.0.0.1:7121 is given to node"),
    ('"127.0.0.1:7142"', '"127.0.0.1:7122"', 'to node "n2" (peer) and to node "n2" (metrics)'),
    ('"127.0.0.1:7142"', '"0.0.0.0:7142"', 'number 2, "metrics": found "0.0.0.0:7142"'),
    ('"127.0.0.1:7142"', "7142", "write it in double quotes"),
    ('"127.0.0.1:7132"', '"127.0.0.1:7172"', "given to acceptor 1 and to learner 1"),
    ('name = "n2"', 'name = "../n2"', "it names a directory, so keep it simple"),
    ('name = "n2"', 'name = "n1"', "another node has it"),
    ('data = "n2"', 'data = "n1/."', 'node "n1" has it'),
    ('data = "n2"', 'data = ""', '"n2" would do'),
    ('data = "n2"', "", '[[node]] "n2": its acceptor keeps data but "data" is missing'),
    ("heartbeat_s = 0.08", "heartbeat_s = 0.2", "one lost heartbeat must not start a takeover"),
    ("heartbeat_s = 0.08", "heartbeat_s = nan", "found nan, allowed is a number of seconds"),
    ("heartbeat_s = 0.08", "heart_s = 1", 'did you mean "heartbeat_s"?'),
    ("gap_timeout_s = 0.02", "gap_timeout_s = 1", "a gap is mended before"),
    ("retry_s = 0.1", "retry_s = 11", "else nothing is ever retried"),
    ("deadline_s = 10.0", "deadline_s = 0.5", "the last candidate waits that long"),
    (table("acceptor", 2), "", "[[acceptor]]: found 2, allowed is an odd number of at most 15"),
    (table("learner", 3), "", "[[learner]]: found 2, allowed is an odd number"),
    ("id = 2\n", "id = 4\n", "found the ids 0, 1, 4, allowed are 0 to 2; renumber them"),
    ("id = 2\n", "id = 15\n", "allowed is a whole number from 0 to 14"),
    ("id = 2\n", "id = 1\n", "another acceptor has it; renumber one"),
    ('node = "n2"', 'node = "m2"', '[[acceptor]] number 2, "node": found "m2"'),
    ("[cluster]", "[cluster", "this is not TOML"),
    ("id = 2882400001", f"id = {'9' * 5000}", "look for an endless number"),
    ("[cluster]", f"x_a = {'[' * 5000}\n[cluster]", "look for an endless number or bracket"),
    ("id = 2882400001", f"id = 0x{'f' * 5000}", "found a number of more than 64 bits"),
    (GOOD, "", "is this a cluster file?"),
    (GOOD, "[cluster]\nid = 1\n", "[[node]]: there is none; add one for each process"),
    (GOOD, "cluster = 3\n", "[cluster]: found 3, allowed is a table"),
    (GOOD, "node = 3\n[cluster]\nid = 1\n", "node: found 3, allowed is a list"),
    ("[timing]", '[[node]]\nname = "n4"\npeer = "127.0.0.1:9"\n[timing]', "no role runs there"),
]


@pytest.mark.parametrize(("old", "new", "message"), REFUSED, ids=[r[2][:40] for r in REFUSED])
def test_refused(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace(old, new, 1))
    assert message in str(caught.value)
    assert str(caught.value).startswith("cluster.toml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("role", ["acceptor", "coordinator", "learner"])
def test_each_role_is_needed(role: str) -> None:
    text = re.sub(rf"^\[\[{role}\]\]\n(?:.+\n)*", "", GOOD, flags=re.MULTILINE)
    with pytest.raises(ConfigError, match=rf"\[\[{role}\]\]: there is none"):
        parse(text)


def test_two_learners_on_a_node() -> None:
    moved = table("learner", 2).replace("n2", "n1")
    with pytest.raises(ConfigError, match="found two learners, allowed is one a node"):
        parse(GOOD.replace(table("learner", 2), moved))


def test_memory_acceptor_alone_needs_no_directory() -> None:
    alone = GOOD.replace('"disk"', '"memory"', 1)
    for role, node in (("coordinator", "n3"), ("learner", "n3"), ("learner", "n2")):
        number = int(node[1])
        alone = alone.replace(table(role, number), "")
    assert parse(alone.replace('data = "n3"\n', "")).node("n3").data is None


def test_unfinished_creation_is_no_cluster_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="was interrupted"):
        Cluster.load(tmp_path / "cluster.toml.unfinished")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * (2 << 20)])
def test_foreign_files(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "cluster.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="name a cluster file"):
        Cluster.load(file)


def test_missing_file_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Cluster.load(tmp_path / "none.toml")
    assert caught.value.filename == str(tmp_path / "none.toml")


def test_extension_tables_are_kept() -> None:
    extra = '[x_mine]\n"odd key" = [1, {a = 1979-05-27, b = "\\u007f\\""}]\n[[log]]\nlevel = 1.5\n'
    cluster = parse(f"x_bare = true\n{GOOD}\n{extra}")
    assert cluster.extensions["log"] == [{"level": 1.5}]
    assert parse(cluster.to_toml()) == cluster


@pytest.mark.parametrize("nodes", [1, 3, 5, 15])
def test_template_on_free_ports_and_back(nodes: int) -> None:
    cluster = Cluster.template(nodes=nodes, storage="memory")
    assert cluster.id != 0
    assert len(cluster.acceptors) == nodes
    assert parse(cluster.to_toml()) == cluster


def test_store_endpoints() -> None:
    cluster = parse(GOOD)
    addresses = {f"n{k}": Address("127.0.0.1", 7100 + k) for k in (1, 2, 3)}
    full = parse(with_endpoints(cluster, addresses).to_toml())
    assert endpoints(full) == addresses
    assert endpoint(full, "n2") == addresses["n2"]


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        ({}, "there is none"),
        ({"n9": Address("127.0.0.1", 7101)}, '"node": found "n9"'),
        ({"n1": Address("127.0.0.1", 7121)}, "it is given twice"),
        ({"n2": Address("127.0.0.1", 7102)}, 'node "n1" has none'),
    ],
)
def test_store_endpoints_refused(addresses: dict[str, Address], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        endpoint(with_endpoints(parse(GOOD), addresses), "n1")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)


SCALARS = (
    *("0", "-1", "1e400", "nan", "true", '""', '"n1"', "[]", "[[]]", "{}", "{a=1}", "[{a=1}]"),
    *("1979-05-27", "9" * 30, '"127.0.0.1:1"', '"::1:5"', '"\\u0000"', "0xffffffffffffffffff"),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, GOOD.count("\n") - 1), st.sampled_from(SCALARS), st.booleans())
def test_any_value_is_parsed_or_refused(line: int, value: str, drop: bool) -> None:
    """A file with one line changed or dropped gives a cluster that survives the way back."""
    lines = GOOD.splitlines()
    key, equals, _ = lines[line].partition(" = ")
    lines[line] = "" if drop or not equals else f"{key} = {value}"
    try:
        cluster = parse("\n".join(lines))
    except ConfigError:
        return
    assert parse(cluster.to_toml()) == cluster
