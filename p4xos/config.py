"""The cluster file: which role runs where, validated when it is read.

One TOML file describes a cluster, the same on every machine:

    [cluster]      id, group, window, value_bytes, storage, secret
    [[node]]       a process: name, peer (TCP: clients of the log, catch-up), data (its directory),
                   metrics (TCP: where it is watched over HTTP; left out: nowhere)
    [[acceptor]] [[coordinator]] [[learner]]    a role: id, node, address (UDP)
    [timing]       seconds; may be left out, as may each of its keys

A proposer has no table: it always sits beside a learner and shares its id and address.
Tables of applications (`EXTENSION_TABLES`, and any name that begins with "x_") are kept as they are
and not looked into. Any other table or key is refused: a misspelt key would else be a default.
Addresses are sets of senders (docs/PROTOCOL.md, section 1), so every machine needs the same file.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from p4xos.ports import free_addresses
from p4xos.quorum import ACCEPTORS_MAX
from p4xos.tables import (
    Address,
    ConfigError,
    Table,
    list_of_tables,
    nearest,
    parse_toml,
    read_text,
    write_table,
)
from p4xos.wire import VALUE_BYTES_MAX

__all__ = ["Address", "Cluster", "ConfigError", "Member", "Node", "Timing"]

EXTENSION_TABLES = ("kvstore", "clients", "log", "switch")
"""Tables that p4xos accepts and leaves to what is built on it."""
UNFINISHED_SUFFIX = ".unfinished"
"""A file name that ends so belongs to a creation that was interrupted: no node starts from it."""

WINDOW_MIN = 16  # checkpoints come at every eighth of a window: two instances at least
WINDOW_MAX = 1 << 20  # times the largest value, 1.5 GB an acceptor
VALUE_BYTES_MIN = 80  # the largest control value: a summary of 15 acceptors, 16 + 4 * 15, padded
LEARNERS_MAX = 99  # each vote goes to each learner; ids themselves are 16 bits
DATA_PLANE = re.compile(r"[a-z][a-z0-9_]{0,30}", re.ASCII)
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}", re.ASCII)

# Where `template` puts the ports of a cluster, counted from its base port. The applications' own
# endpoints come first (docs: RESP on 7101, 7102, ...); 15 nodes fit without a clash.
PEER_OFFSET, ACCEPTOR_OFFSET, COORDINATOR_OFFSET, LEARNER_OFFSET = 20, 30, 50, 70
METRICS_OFFSET = 40  # TCP, as the peers; the others are UDP
BASE_PORT_MAX = 65535 - LEARNER_OFFSET - ACCEPTORS_MAX

NUMPY = "numpy"
"""The data plane that is always there: the roles' own arrays."""
RoleName = Literal["acceptor", "coordinator", "learner"]
ROLE_NAMES: tuple[RoleName, ...] = ("acceptor", "coordinator", "learner")
Movable = Literal["acceptor", "coordinator"]
MOVABLE: tuple[Movable, ...] = ("acceptor", "coordinator")
"""Roles that a data plane can run."""
Storage = Literal["disk", "memory"]
SecretPlace = Literal["file", "none"]


@dataclass(frozen=True)
class Node:
    """A process of the cluster."""

    name: str
    peer: Address  # TCP
    data: str | None  # as written: relative to the cluster file's directory; None: keeps nothing
    metrics: Address | None = None  # TCP; None: no metrics are served


@dataclass(frozen=True)
class Member:
    """One role instance: an acceptor, a coordinator, or a learner with its proposer."""

    id: int
    node: str
    address: Address  # UDP


@dataclass(frozen=True)
class Timing:
    """Times in seconds. They decide how fast the group mends itself, never what is chosen."""

    heartbeat_s: float = 0.08
    takeover_timeout_s: float = 0.24
    gap_timeout_s: float = 0.02
    retry_s: float = 0.1
    deadline_s: float = 10.0


@dataclass(frozen=True)
class Cluster:
    """A validated cluster file."""

    id: int  # u32, never 0
    nodes: tuple[Node, ...]  # in the order of the file
    acceptors: tuple[Member, ...]  # by id, which are 0 .. n - 1
    coordinators: tuple[Member, ...]  # by id
    learners: tuple[Member, ...]  # by id
    group: int = 0
    window: int = 65536
    value_bytes: int = VALUE_BYTES_MAX
    storage: Storage = "disk"
    data_plane: str = NUMPY  # where acceptors and sequencers have their registers: p4xos.planes
    secret: SecretPlace = "none"  # "file": without it nothing starts; one that is there is used
    timing: Timing = Timing()
    extensions: Mapping[str, object] = field(default_factory=dict)
    source: str = field(default="<text>", compare=False)  # the file's name, for messages
    directory: Path = field(default=Path(), compare=False)  # what `data` is relative to

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read and check a cluster file.

        Raises:
          ConfigError: the file is no good; the message says where and how to mend it.
          OSError: the file cannot be read; it carries the path.
        """
        path = Path(path)
        if path.name.endswith(UNFINISHED_SUFFIX):
            complaint = "the creation of this cluster was interrupted; run the command that"
            raise ConfigError(str(path), "", f"{complaint} creates it once more, it goes on there")
        text = read_text(path, "name a cluster file")
        return cls.parse(text, str(path), path.absolute().parent)

    @classmethod
    def parse(cls, text: str, source: str, directory: Path = Path()) -> Self:
        """Check the text of a cluster file; `source` is its name in messages.

        Raises:
          ConfigError: the first problem found; nothing else, whatever the text is.
        """
        return cls(**_read(parse_toml(text, source), source), source=source, directory=directory)

    @classmethod
    def template(
        cls,
        nodes: int = 3,
        base_port: int | None = None,
        storage: Storage = "disk",
        cluster_id: int | None = None,
        directory: Path = Path(),
        apart: bool = False,
    ) -> Self:
        """A new cluster on loopback: every node has an acceptor, a coordinator and a learner.

        Args:
          nodes: odd, 1 to 15.
          base_port: ports are counted from it; None takes ports that are free now.
          storage: "disk" or "memory".
          cluster_id: u32, not 0; None draws one.
          directory: where the cluster file will stand.
          apart: acceptors and coordinators are nodes of their own, as switches are; the `nodes`
            then have learners alone.

        Raises:
          ValueError: a number out of range.
        """
        if not (1 <= nodes <= ACCEPTORS_MAX and nodes % 2 == 1):
            odd = f"an odd number from 1 to {ACCEPTORS_MAX}"
            raise ValueError(f"nodes is {nodes}, allowed is {odd}: an even one tolerates no more")
        if base_port is not None and not 1 <= base_port <= BASE_PORT_MAX:
            raise ValueError(f"base port is {base_port}, allowed is 1 to {BASE_PORT_MAX}")

        names = [f"n{k + 1}" for k in range(nodes)]
        switches = [f"{letter}{k + 1}" for letter in "ac" for k in range(nodes)] if apart else []
        places = [*names, *switches]
        sizes = {
            PEER_OFFSET: len(places), ACCEPTOR_OFFSET: nodes, COORDINATOR_OFFSET: nodes,
            LEARNER_OFFSET: nodes, METRICS_OFFSET: len(places),
        }  # fmt: skip
        if base_port is None:
            drawn = iter(free_addresses(sum(sizes.values())))
            free = {offset: [next(drawn) for _ in range(size)] for offset, size in sizes.items()}
        else:
            if len(places) > METRICS_OFFSET - PEER_OFFSET:
                most = (METRICS_OFFSET - PEER_OFFSET) // 3
                complaint = f"nodes is {nodes}, allowed is at most {most} with switches apart"
                raise ValueError(f"{complaint}: their ports would clash; give --base-port 0")
            free = {
                offset: [Address("127.0.0.1", base_port + offset + k) for k in range(size)]
                for offset, size in sizes.items()
            }

        def members(offset: int, first: int) -> tuple[Member, ...]:
            on = places[first : first + nodes] if apart else names
            return tuple(Member(k, on[k], free[offset][k]) for k in range(nodes))

        built = cls(
            id=secrets.randbelow((1 << 32) - 1) + 1 if cluster_id is None else cluster_id,
            nodes=tuple(
                Node(name, free[PEER_OFFSET][k], name, metrics=free[METRICS_OFFSET][k])
                for k, name in enumerate(places)
            ),
            acceptors=members(ACCEPTOR_OFFSET, nodes),
            coordinators=members(COORDINATOR_OFFSET, 2 * nodes),
            learners=members(LEARNER_OFFSET, 0),
            storage=storage,
            directory=directory,
        )
        return cls.parse(built.to_toml(), "<template>", directory)

    def to_toml(self) -> str:
        """The cluster file's text; `parse` gives an equal cluster back."""
        cluster = {
            "id": self.id,
            "group": self.group,
            "window": self.window,
            "value_bytes": self.value_bytes,
            "storage": self.storage,
            "data_plane": None if self.data_plane == NUMPY else self.data_plane,
            "secret": None if self.secret == "none" else self.secret,
        }
        parts = [write_table("[cluster]", cluster, _REMARKS)]
        for node in self.nodes:
            metrics = None if node.metrics is None else str(node.metrics)
            values = {"name": node.name, "peer": str(node.peer), "data": node.data}
            parts.append(write_table("[[node]]", values | {"metrics": metrics}, {}))
        for role in ROLE_NAMES:
            for member in self.members(role):
                values = asdict(member) | {"address": str(member.address)}
                parts.append(write_table(f"[[{role}]]", values, {}))
        parts.append(write_table("[timing]", asdict(self.timing), {}))
        for name, extension in self.extensions.items():
            listed = extension if isinstance(extension, list) else []
            if listed and all(isinstance(table, dict) for table in listed):
                parts += [write_table(f"[[{name}]]", table, {}) for table in listed]
            elif isinstance(extension, dict):
                parts.append(write_table(f"[{name}]", extension, {}))
            else:  # a bare key belongs to no table, so it stands before all of them
                parts.insert(0, write_table("", {name: extension}, {}).lstrip("\n"))
        return "\n".join(parts)

    def node(self, name: str) -> Node:
        """The node of this name, or a ConfigError that lists the names there are."""
        for node in self.nodes:
            if node.name == name:
                return node
        names = [node.name for node in self.nodes]
        raise ConfigError(self.source, "[[node]]", f'no node "{name}"; {nearest(name, names)}')

    def members(self, role: RoleName) -> tuple[Member, ...]:
        """All members of a role, by id."""
        return {
            "acceptor": self.acceptors,
            "coordinator": self.coordinators,
            "learner": self.learners,
        }[role]

    def member(self, role: RoleName, member_id: int) -> Member:
        """The member with this id, or a ConfigError that lists the ids there are."""
        for member in self.members(role):
            if member.id == member_id:
                return member
        ids = ", ".join(str(member.id) for member in self.members(role))
        raise ConfigError(self.source, f"[[{role}]]", f"no {role} {member_id}; known are {ids}")

    def members_of(self, node: str) -> list[tuple[RoleName, Member]]:
        """The roles that a node runs."""
        return [(r, m) for r in ROLE_NAMES for m in self.members(r) if m.node == node]

    def addresses(self, role: RoleName) -> dict[int, Address]:
        """Where the members of a role are, by id."""
        return {member.id: member.address for member in self.members(role)}

    def data_directory(self, node: str) -> Path:
        """Where a node keeps its data; the node has one when a role of it needs one."""
        data = self.node(node).data
        return self.directory / (node if data is None else data)

    def member_directory(self, role: RoleName, member_id: int) -> Path:
        """Where one role instance keeps its data, inside its node's."""
        node = self.member(role, member_id).node
        return self.data_directory(node) / f"{role}-{member_id}"


_REMARKS = {
    "id": "drawn at random when the cluster was created; foreign datagrams are dropped by it",
    "window": "instances held at once: a power of two",
    "value_bytes": "largest value of one instance",
    "storage": '"disk", or "memory": acceptors then forget when they stop',
    "data_plane": "what runs the acceptors and numbers requests",
    "secret": "cluster.secret, beside this file; nothing starts without it",
}


def _read(data: dict[str, object], source: str) -> dict[str, Any]:
    """The fields of a Cluster from the tables of a file; ConfigError at the first problem."""
    own = ("cluster", "node", *ROLE_NAMES, "timing")
    extensions = {}
    for name, value in data.items():
        if name in EXTENSION_TABLES or name.startswith("x_"):
            extensions[name] = value
        elif name not in own:
            known = nearest(name, (*own, *EXTENSION_TABLES))
            complaint = f'the table "{name}" is unknown; {known} (names of your own begin with x_)'
            raise ConfigError(source, "", complaint)
    if "cluster" not in data:
        raise ConfigError(source, "[cluster]", "the table is missing; is this a cluster file?")

    values = _read_cluster(Table(source, "[cluster]", data["cluster"], _CLUSTER_KEYS))
    nodes = _read_nodes(list_of_tables(data, source, "node", _NODE_KEYS))
    if not nodes:
        raise ConfigError(source, "[[node]]", "there is none; add one for each process")
    members = {role: _read_members(data, source, role, nodes) for role in ROLE_NAMES}
    _check_counts(source, members)
    _check_addresses(source, nodes, members)
    _check_nodes(source, nodes, members, str(values.get("storage", "disk")))
    timing = Table(source, "[timing]", data.get("timing", {}), [f.name for f in fields(Timing)])
    return {
        **values,
        "nodes": tuple(nodes.values()),
        **{f"{role}s": tuple(members[role]) for role in ROLE_NAMES},
        "timing": _read_timing(timing, len(members["coordinator"])),
        "extensions": extensions,
    }


_NODE_KEYS = ("name", "peer", "data", "metrics")
_CLUSTER_KEYS = ("id", "group", "window", "value_bytes", "storage", "data_plane", "secret")


def _read_cluster(table: Table) -> dict[str, object]:
    """[cluster]: only the id must be given."""
    mend = "a cluster has the id that was drawn when it was created: restore it"
    values: dict[str, object] = {"id": table.integer("id", 1, (1 << 32) - 1, mend)}
    if table.has("group"):
        values["group"] = table.integer("group", 0, 0xFFFF)
    if table.has("window"):
        window = table.integer("window", WINDOW_MIN, WINDOW_MAX, "65536 is a good one")
        if window & (window - 1):
            nearby = 1 << window.bit_length() - 1
            raise table.wrong("window", "a power of two", f"{nearby} is near")
        values["window"] = window
    if table.has("value_bytes"):
        mend = "the 40-byte header and the value share one frame of at most 1472 bytes"
        value_bytes = table.integer("value_bytes", VALUE_BYTES_MIN, VALUE_BYTES_MAX, mend)
        if value_bytes % 8:
            raise table.wrong("value_bytes", "a multiple of 8", f"{value_bytes // 8 * 8} is near")
        values["value_bytes"] = value_bytes
    if table.has("storage"):
        values["storage"] = table.choice("storage", ("disk", "memory"))
    if table.has("data_plane"):
        name = table.text("data_plane", "the name of a data plane")
        if not DATA_PLANE.fullmatch(name):
            mend = f'"{NUMPY}" is always there'
            raise table.wrong("data_plane", "the name of a data plane", mend)
        if name != NUMPY and values.get("storage") != "memory":
            complaint = f'is "{name}", which has no disk; add storage = "memory"'
            raise table.error("data_plane", complaint)
        values["data_plane"] = name
    if table.has("secret"):
        values["secret"] = table.choice("secret", ("file", "none"))
    return values


def _read_nodes(tables: Iterable[Table]) -> dict[str, Node]:
    """[[node]] by name; no two share a name or a directory."""
    nodes: dict[str, Node] = {}
    for table in tables:
        name = table.text("name", "a name")
        if not _NODE_NAME.fullmatch(name):
            allowed = "up to 31 letters, digits, - and _, a letter or digit first"
            raise table.wrong("name", allowed, "it names a directory, so keep it simple")
        if name in nodes:
            raise table.wrong("name", "a name of its own", "another node has it; rename one")
        data = table.text("data", "a directory") if table.has("data") else None
        if data is not None:
            allowed = "a directory, absolute or relative to this file"
            if not data or "\0" in data or len(data) > 4000:
                raise table.wrong("data", allowed, f'"{name}" would do')
            for other in nodes.values():
                if other.data is not None and Path(other.data) == Path(data):
                    mend = f'node "{other.name}" has it; two nodes would overwrite each other'
                    raise table.wrong("data", "a directory of its own", mend)
        metrics = table.address("metrics") if table.has("metrics") else None
        nodes[name] = Node(name, table.address("peer"), data, metrics)
    return nodes


def _read_members(
    data: Mapping[str, object], source: str, role: RoleName, nodes: Mapping[str, Node]
) -> list[Member]:
    """The tables of one role, by id."""
    id_max = {"acceptor": ACCEPTORS_MAX - 1, "coordinator": 0xFF, "learner": 0xFFFF}[role]
    members: dict[int, Member] = {}
    for table in list_of_tables(data, source, role, ("id", "node", "address")):
        member_id = table.integer("id", 0, id_max)
        if member_id in members:
            raise table.wrong("id", "an id of its own", f"another {role} has it; renumber one")
        node = table.text("node", "the name of a [[node]]")
        if node not in nodes:
            raise table.wrong("node", "the name of a [[node]]", nearest(node, nodes))
        members[member_id] = Member(member_id, node, table.address("address"))
    return [members[member_id] for member_id in sorted(members)]


def _check_counts(source: str, members: Mapping[RoleName, list[Member]]) -> None:
    """At least one of each role, odd numbers of acceptors and learners, acceptor ids dense."""
    for role in ROLE_NAMES:
        if not members[role]:
            raise ConfigError(source, f"[[{role}]]", "there is none; add one at least")
    limits: dict[RoleName, int] = {"acceptor": ACCEPTORS_MAX, "learner": LEARNERS_MAX}
    for role, highest in limits.items():
        count = len(members[role])
        if count % 2 == 0 or count > highest:
            allowed = f"an odd number of at most {highest}"
            mend = f"{min(count, highest + 1) - 1} of them tolerate as many failures: remove some"
            raise ConfigError(source, f"[[{role}]]", f"found {count}, allowed is {allowed}; {mend}")
    ids = [member.id for member in members["acceptor"]]
    if ids != list(range(len(ids))):
        found = ", ".join(map(str, ids))
        complaint = f"found the ids {found}, allowed are 0 to {len(ids) - 1}; renumber them"
        raise ConfigError(source, "[[acceptor]]", complaint)


def _check_addresses(
    source: str, nodes: Mapping[str, Node], members: Mapping[RoleName, list[Member]]
) -> None:
    """No address is used twice; TCP and UDP ports are told apart."""
    taken: dict[tuple[str, Address], str] = {}
    users = [("TCP", n.peer, f'node "{n.name}" (peer)') for n in nodes.values()]
    users += [
        ("TCP", n.metrics, f'node "{n.name}" (metrics)')
        for n in nodes.values()
        if n.metrics is not None
    ]
    users += [("UDP", m.address, f"{r} {m.id}") for r in ROLE_NAMES for m in members[r]]
    for protocol, address, user in users:
        other = taken.setdefault((protocol, address), user)
        if other != user:
            complaint = f"the {protocol} address {address} is given to {other} and to {user}"
            raise ConfigError(source, "", f"{complaint}; change one of them")


def _check_nodes(
    source: str,
    nodes: Mapping[str, Node],
    members: Mapping[RoleName, list[Member]],
    storage: str,
) -> None:
    """Each node runs something, one learner at most, and has a directory when it needs one."""
    for name, node in nodes.items():
        where = f'[[node]] "{name}"'
        roles = [role for role in ROLE_NAMES for member in members[role] if member.node == name]
        if not roles:
            complaint = "no role runs there; give it one, or remove it"
            raise ConfigError(source, where, complaint)
        if roles.count("learner") > 1:
            complaint = "found two learners, allowed is one a node: it has one store; move one"
            raise ConfigError(source, where, complaint)
        # A memory acceptor keeps nothing, but a coordinator keeps its round (section 4) and
        # a learner its store, whatever the storage of the acceptors.
        keeps = [role for role in roles if role != "acceptor" or storage == "disk"]
        if keeps and node.data is None:
            complaint = f'its {keeps[0]} keeps data but "data" is missing; add data = "{name}"'
            raise ConfigError(source, where, complaint)


def _read_timing(table: Table, coordinators: int) -> Timing:
    """[timing] with the relations between the times."""
    given = {f.name: table.seconds(f.name, 0.001, 600) for f in fields(Timing) if table.has(f.name)}
    timing = Timing(**given)
    last_takeover_s = timing.takeover_timeout_s * coordinators
    relations: list[tuple[Callable[[float, float], bool], str, float, str, float, str]] = [
        (float.__ge__, "takeover_timeout_s", timing.takeover_timeout_s,
         "three times heartbeat_s", 3 * timing.heartbeat_s,
         "one lost heartbeat must not start a takeover"),
        (float.__le__, "gap_timeout_s", timing.gap_timeout_s,
         "takeover_timeout_s", timing.takeover_timeout_s,
         "a gap is mended before its coordinator is given up"),
        (float.__le__, "retry_s", timing.retry_s,
         "deadline_s", timing.deadline_s, "else nothing is ever retried"),
        (float.__ge__, "deadline_s", timing.deadline_s,
         "takeover_timeout_s times the number of coordinators", last_takeover_s,
         "the last candidate waits that long"),
    ]  # fmt: skip
    for holds, key, found, other, bound, reason in relations:
        if not holds(found, bound):
            least = "at least" if holds is float.__ge__ else "at most"
            complaint = f"is {found:g}, allowed is {least} {bound:g} ({other}): {reason}"
            raise table.error(key, f"{complaint}; change one of the two")
    return timing
