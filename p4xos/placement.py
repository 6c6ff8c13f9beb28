"""Which data plane an acceptor or a coordinator is on: as the cluster file says, until it moves.

A role that has moved has a file in its node's directory, `acceptor-0.plane`, which goes before the
cluster file whenever the node starts:

    version = 1
    cluster = 305419896
    data_plane = "p4"

It says where registers are, never what is in them: an acceptor that comes up without its memory
has forgotten, on whatever data plane (docs/PROTOCOL.md, section 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from p4xos.config import DATA_PLANE, MOVABLE, NUMPY, Cluster, ConfigError, Movable
from p4xos.errors import BadPacket
from p4xos.framing import text_untrusted
from p4xos.storage.disk import RealDisk, disk_errors, replace_file
from p4xos.tables import Table, parse_toml, read_text

_VERSION = 1
_BYTES_MAX = 4096


def plane_file(cluster: Cluster, role: Movable, member_id: int) -> Path:
    """Where it is kept which data plane a role has moved to."""
    node = cluster.member(role, member_id).node
    return cluster.data_directory(node) / f"{role}-{member_id}.plane"


def read(cluster: Cluster, role: Movable, member_id: int) -> str:
    """The name of a role's data plane.

    Raises:
      ConfigError: the file of a role that has moved is no good.
      OSError: it cannot be read.
    """
    path = plane_file(cluster, role, member_id)
    remedy = f"remove it, and the role is on {cluster.data_plane} again, as the cluster file says"
    try:
        text = read_text(path, remedy, _BYTES_MAX)
    except FileNotFoundError:
        return cluster.data_plane
    keys = ("version", "cluster", "data_plane")
    found = parse_toml(text, str(path))
    version = found.get("version")
    if version != _VERSION:
        complaint = f"version {version} was found, version {_VERSION} was expected"
        raise ConfigError(str(path), "", f"{complaint}; use the release that wrote it, or {remedy}")
    table = Table(str(path), "", found, keys)
    if table.integer("cluster", 1, (1 << 32) - 1) != cluster.id:
        raise ConfigError(str(path), "", f"of another cluster than {cluster.id}; {remedy}")
    name = table.text("data_plane", "the name of a data plane")
    if not DATA_PLANE.fullmatch(name):
        raise table.wrong("data_plane", "the name of a data plane", remedy)
    obstacle = no_log(cluster, role, name)
    if obstacle:
        raise ConfigError(str(path), "", f"{obstacle}; {remedy}")
    return name


def write(cluster: Cluster, role: Movable, member_id: int, data_plane: str) -> None:
    """Keeps where a role is from now on; durable when it returns, after a crash old or new.

    Raises:
      StorageError: it cannot be kept.
    """
    path = plane_file(cluster, role, member_id)
    text = f'version = {_VERSION}\ncluster = {cluster.id}\ndata_plane = "{data_plane}"\n'
    disk = RealDisk()
    with disk_errors(path, "keep which data plane the role is on"):
        disk.make_directory(path.parent)
        replace_file(disk, path, text.encode())


def no_log(cluster: Cluster, role: Movable, data_plane: str) -> str:
    """Why a role of a cluster may not be on a data plane without a log; empty where it may."""
    if role == "coordinator" or cluster.storage == "memory" or data_plane == NUMPY:
        return ""
    return (
        f'acceptors keep a log here (storage = "disk"), and {data_plane} has none: what is '
        "acknowledged would be lost with the power of a majority"
    )


def plane_untrusted(head: Mapping[str, object]) -> str:
    """The data plane that a request names."""
    name = text_untrusted(head, "data_plane")
    if not DATA_PLANE.fullmatch(name):
        raise BadPacket('"data_plane" is no name of a data plane')
    return name


def role_untrusted(role: object) -> Movable:
    """A role that can move."""
    for known in MOVABLE:
        if role == known:
            return known
    raise BadPacket(f"a role is none of {', '.join(MOVABLE)}")


def roles_untrusted(head: Mapping[str, object]) -> tuple[Movable, ...]:
    """The roles that a request names: one at least, each once."""
    roles = head.get("roles")
    if not isinstance(roles, list) or not 0 < len(roles) <= len(MOVABLE):
        raise BadPacket('"roles" is no list of roles')
    return tuple(dict.fromkeys(map(role_untrusted, roles)))
