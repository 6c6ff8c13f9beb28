"""docs/configuration.md, made from the code: `python -m kvstore.reference`, or `make docs`.

Keys, allowed values and defaults are asked of the code that reads a cluster file: each key is left
out, and given a wrong value, and the complaint is read. Only what a key is for is told here, and a
key without a word about it is an error. Flags come from the parsers of the command lines.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import kvstore.cli
import p4xos.cli
from kvstore import admission, authentication, connection, resp
from kvstore.config import client_rules, endpoints
from kvstore.limits import Limits
from kvstore.placing import placed
from kvstore.users import PASSWORD_VARIABLE
from p4xos.chunnels.policies import POLICY_VARIABLE
from p4xos.chunnels.runtime import DISCOVERY_VARIABLE
from p4xos.config import Cluster, Timing
from p4xos.creation import DEFAULT_BASE_PORT
from p4xos.logs import DEFAULT_FORMAT, FORMAT_VARIABLE, LOG_FORMATS
from p4xos.tables import ConfigError, parse_toml, write_table

FILE = Path(__file__).parents[1] / "docs" / "configuration.md"
_NO_KEY = "no-such-key"
_CLUSTER_ID = 0x5EED

MEANINGS: Mapping[str, Mapping[str, str]] = {
    "cluster": {
        "id": "Drawn at random when the cluster is created. Datagrams of another id are dropped, "
        "and data of another id are refused. Never change it.",
        "group": "The number of the replicated log.",
        "window": "Instances that acceptors hold at once; a power of two. Larger: a node may stay "
        "behind for longer before it has to fetch a copy, for more memory. Do not change it in "
        "a cluster that has data.",
        "value_bytes": "The largest value of one instance, so that header and value fit a frame; "
        "a multiple of 8. Do not change it in a cluster that has data.",
        "data_plane": 'What runs the acceptors and numbers requests. "numpy": the nodes '
        'themselves. "p4": switches, here the P4 programs on an interpreter (docs/switch.md); '
        '"bmv2": the same programs on bmv2, where that and p4c are. `value_bytes` is then 128, and '
        '`storage` "memory". "xdp": programs in the kernel, on the interface with the member\'s '
        'address, or the ports that `[[switch]]` names (docs/xdp.md); "auto": that where the '
        'machine can, else software. `storage` is "memory" for both.',
        "storage": '"disk": acceptors sync to disk before they answer. "memory": they keep '
        "nothing; one that was stopped forgets, and joins again.",
        "secret": '"file": the secret of the cluster is in `cluster.secret`, beside this file, the '
        "same on every machine, and nothing starts without it. Nodes and clients of the log prove "
        "to one another at `peer` that they have it. \"none\", of clusters from before there were "
        "secrets: one that is there is used all the same; without it, whoever reaches `peer` is "
        "served (`p4xos secret` makes one).",
    },
    "node": {
        "name": "Names the process, and is what `--name` takes.",
        "peer": "TCP: other nodes, `status`, `backup` and clients of the log; all of them need the "
        "secret of the cluster.",
        "data": "Its directory, absolute or relative to the file. A node whose roles keep nothing "
        "may go without.",
        "metrics": "TCP: `/metrics`, `/healthz`, `/readyz` over HTTP. Left out: they are not "
        "served.",
    },
    "acceptor": {
        "id": "Dense, from 0; an odd number of acceptors.",
        "node": "The node that runs it.",
        "address": "UDP. Every machine must see its datagrams come from this address.",
    },
    "coordinator": {
        "id": "Part of its rounds. Where several start at once, the lowest serves first.",
        "node": "The node that runs it.",
        "address": "UDP, as for acceptors.",
    },
    "learner": {
        "id": "Also the id of the proposer beside it; an odd number of learners.",
        "node": "The node that runs it: one learner, and so one store, a node.",
        "address": "UDP, as for acceptors.",
    },
    "timing": {
        "heartbeat_s": "Between heartbeats of the coordinator that serves.",
        "takeover_timeout_s": "Silence after which the next coordinator takes over; at least three "
        "heartbeats.",
        "gap_timeout_s": "How long a learner waits for a missing instance before it asks.",
        "retry_s": "Between tries of a proposer.",
        "deadline_s": "How long a client waits for a majority until it is told that there is none.",
    },
    "kvstore": {
        "node": "A node with a learner.",
        "address": "TCP: Redis clients connect here. It may be left out where there is a "
        "tls_address.",
        "tls_address": "TCP: clients connect here with TLS.",
    },
    "clients": {
        "users": "The users file (`kvstore users`). Left out: whoever reaches the port may do all.",
        "tls_certificate": "The node's certificate and those between it and the root, PEM. Each "
        "machine has its own under this name.",
        "tls_key": "Its private key, PEM, without a pass phrase; others must not be able to read "
        "it.",
        "tls_client_ca": "Clients must show a certificate that one of these has signed. Left out: "
        "they need none.",
        "max_clients": "Clients of a node at once; further ones are told so and closed.",
        "max_per_address": "The same of one address; 0: no bound of its own.",
        "idle_timeout_s": "A client that has been silent for so long is closed; 0: never.",
        "greeting_timeout_s": "Within it a client must be through with its TLS handshake and have "
        "authenticated.",
        "stalled_timeout_s": "A client that takes nothing of its replies for so long is closed.",
    },
}
"""What each key is for, by table, in the order in which they are listed."""

LISTS = frozenset(("node", "acceptor", "coordinator", "learner", "kvstore"))
"""Tables that are written once for each member."""

VARIABLES = {
    PASSWORD_VARIABLE: "The password of `--user`.",
    DISCOVERY_VARIABLE: "The socket of the discovery service of this host, for programs that are "
    "given none ([chunnels.md](chunnels.md#discovery)).",
    POLICY_VARIABLE: "MODULE:FUNCTION, the operator's policy for what runs the layers of "
    "connections, and the acceptors and coordinators where the cluster file leaves that open "
    "([chunnels.md](chunnels.md#how-the-choice-is-made)).",
    FORMAT_VARIABLE: f"How a process writes its log: {' or '.join(LOG_FORMATS)}; "
    f"default: {DEFAULT_FORMAT}. The flag `--log-format` comes first.",
}

_INTRODUCTION = """\
# Configuration

Made from the code by `make docs`; a test compares. Change the code, not this file.

- [The cluster file](#the-cluster-file)
- [Limits of a client](#limits-of-a-client)
- [Command lines](#command-lines): [kvstore](#kvstore), [p4xos](#p4xos)
- [The environment](#the-environment)

## The cluster file

One TOML file, the same on every machine. `kvstore create` and `kvstore cluster` write it. It is
read when a node starts, and checked as a whole: a key that is misspelt, a table that is not known,
or a value that cannot be is refused, with what to do. Tables whose names begin with `x_` are yours.

Addresses are an IPv4 number and a port. A host name is refused: who sent a datagram is known by
its address, and a name may mean another one tomorrow.
"""


class Key(NamedTuple):
    """A key of a table."""

    name: str
    allowed: str
    default: str
    meaning: str


def text() -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    for table in MEANINGS:
        heading = f"`[[{table}]]`" if table in LISTS else f"`[{table}]`"
        parts.append(f"### {heading}\n\n{_rows_of_keys(table)}")
    parts.append("### Example\n\nThree nodes on three machines, as `kvstore create` writes it:\n")
    parts.append(f"```toml\n{_example().to_toml()}```\n")
    parts.append(_limits())
    parts.append("## Command lines\n")
    parts.append("Exit codes: 0 done, 1 failed, 2 misused (wrong flags, a bad cluster file).\n")
    for command in (kvstore.cli.build_parser(), p4xos.cli.build_parser()):
        parts.append(f"### {command.prog}\n\n{command.description}\n")
        parts += [_verb(name, verb, told) for name, verb, told in _verbs(command)]
    parts.append("## The environment\n\n| variable | meaning |\n|---|---|")
    parts.append("\n".join(f"| `{name}` | {told} |" for name, told in VARIABLES.items()) + "\n")
    return "\n".join(parts)


# Limits -------------------------------------------------------------------------------------------


def _limits() -> str:
    """What one client can take of a node whatever it sends, and what tells that it tried."""
    rows = [
        ("clients at once", "`max_clients`", "told so, closed", "connections_refused"),
        ("of one address", "`max_per_address`", "told so, closed",
         "connections_refused_of_address"),
        ("handshake and authentication", "`greeting_timeout_s`", "closed", "newcomers_timed_out"),
        ("clients that have not authenticated",
         f"{admission.NEWCOMERS_MAX:,}, and half of `max_clients`", "the oldest of them is closed",
         "newcomers_displaced"),
        ("words of a command before it is authenticated", f"{resp.NEWCOMER_ARGUMENTS}",
         "told so, closed", "protocol_errors"),
        ("a word before it is authenticated", _size(resp.NEWCOMER_BULK_BYTES), "told so, closed",
         "protocol_errors"),
        ("replies not taken, before it is authenticated",
         _size(admission.NEWCOMER_OUTPUT_BYTES), "closed", "newcomers_too_large"),
        ("wrong passwords of a connection", f"{authentication.FAILURES_MAX}",
         f"each is answered after {authentication.FAILURE_S:g} s; closed",
         "authentications_failed"),
        ("passwords that wait to be checked, of all and of one address",
         f"{authentication.WAITING_MAX}, {authentication.WAITING_OF_ADDRESS_MAX}", "told so",
         "authentications_refused"),
        ("words of a command", f"{resp.MAX_ARGUMENTS:,}", "told so, closed", "protocol_errors"),
        ("a word", _size(resp.MAX_BULK_BYTES), "told so, closed", "protocol_errors"),
        ("all words of a command", _size(resp.MAX_COMMAND_BYTES), "told so, closed",
         "protocol_errors"),
        ("a command typed on one line", _size(resp.MAX_LINE_BYTES), "told so, closed",
         "protocol_errors"),
        ("a pipeline that waits", _size(connection.BACKLOG_BYTES), "not read on until it has room",
         ""),
        ("replies not taken", _size(connection.OUTPUT_BYTES), "not read on until it takes some",
         ""),
        ("replies not taken, and nothing taken of them", "`stalled_timeout_s`", "closed",
         "stalled_closed"),
        ("what MONITOR shows and is not taken", _size(connection.OUTPUT_BYTES), "closed",
         "outputs_overrun"),
        ("silence", "`idle_timeout_s`", "closed", "idle_closed"),
    ]  # fmt: skip
    lines = [
        "## Limits of a client\n\nNames are keys of `[clients]`; the others are fixed. Counters "
        "are in `INFO stats`, and as metrics with `kvstore_` before and `_total` behind. The log "
        "tells each reason at most once a minute.\n",
        "| bound | is | beyond it | counter |\n|---|---|---|---|",
    ]
    for bound, value, then, counter in rows:
        lines.append(f"| {bound} | {value} | {then} | {f'`{counter}`' if counter else ''} |")
    return "\n".join(lines) + "\n"


def _size(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


# The cluster file --------------------------------------------------------------------------------


def _example() -> Cluster:
    """A good cluster file, the same each time."""
    new = Cluster.template(3, DEFAULT_BASE_PORT, cluster_id=_CLUSTER_ID)
    places = {"n1": "10.0.0.1", "n2": "10.0.0.2", "n3": "10.0.0.3"}
    return placed(replace(new, secret="file"), places, DEFAULT_BASE_PORT)


def _rows_of_keys(table: str) -> str:
    rows = ["| key | allowed | default | meaning |", "|---|---|---|---|"]
    for key in keys(table):
        rows.append(f"| `{key.name}` | {key.allowed} | {key.default} | {key.meaning} |")
    return "\n".join(rows) + "\n"


def keys(table: str) -> list[Key]:
    """The keys of a table, as the code that reads it knows them."""
    known = set(re.findall(r"[\w-]+", _complaint(table, {_NO_KEY: 1}, r"known are (.*)$")))
    told = MEANINGS[table]
    if known != set(told):
        raise LookupError(f"[{table}]: the code has {sorted(known)}, told of are {sorted(told)}")
    return [
        Key(name, _complaint(table, {name: []}, r"allowed is (.*?); "), _default(table, name), why)
        for name, why in told.items()
    ]


def _complaint(table: str, change: Mapping[str, object], pattern: str) -> str:
    """What a change of the first such table of a good file is complained about, the part wanted."""
    try:
        _read_with(table, change)
    except ConfigError as error:
        found = re.search(pattern, str(error))
        if found is not None:
            return found[1].replace("|", "\\|")
        raise LookupError(f"{change} of [{table}]: nothing like {pattern!r} in: {error}") from None
    raise LookupError(f"{change} of [{table}] is not complained about")


def _default(table: str, name: str) -> str:
    """What holds when the key is left out."""
    try:
        _read_with(table, {name: None})
    except ConfigError:
        return "must be given"
    place: Any = {"cluster": Cluster, "timing": Timing, "clients": Limits}.get(table)
    for field in fields(place) if place is not None else ():
        if field.name == name and field.default is not MISSING:
            value = field.default
            return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"
    return "none"


def _read_with(table: str, change: Mapping[str, object]) -> None:
    """Reads a good file with some keys of its first such table changed; None removes one."""
    data: dict[str, Any] = parse_toml(_example().to_toml(), "<example>")
    chosen = data[table][0] if table in LISTS else data.setdefault(table, {})
    chosen.update(change)
    parts = [
        write_table(f"[[{name}]]" if name in LISTS else f"[{name}]", each, {})
        for name, content in data.items()
        for each in (content if name in LISTS else [content])
    ]
    cluster = Cluster.parse("\n".join(parts), "<example>")
    endpoints(cluster)
    client_rules(cluster)


# Command lines -----------------------------------------------------------------------------------


def _verbs(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, verb in action.choices.items():
                yield f"{parser.prog} {name}", verb, helps.get(name, "")


def _verb(name: str, parser: argparse.ArgumentParser, told: str) -> str:
    sentence = told[:1].upper() + told[1:].rstrip(".") + "."
    rows = [f"#### {name}\n\n{sentence}\n"]
    actions = [a for a in parser._actions if not isinstance(a, argparse._HelpAction)]
    if actions:
        rows.append("| argument | meaning |\n|---|---|")
        rows += [f"| {_shown(action)} | {_meaning(action)} |" for action in actions]
        rows.append("")
    return "\n".join(rows)


def _shown(action: argparse.Action) -> str:
    """A flag with its value, or a plain argument."""
    value = str(action.metavar or action.dest.upper())
    if action.choices is not None:
        value = "\\|".join(map(str, action.choices))
    if not action.option_strings:
        return f"`{value}`"
    flags = ", ".join(action.option_strings)
    return f"`{flags}`" if action.nargs == 0 else f"`{flags} {value}`"


def _meaning(action: argparse.Action) -> str:
    told = (action.help or "") % vars(action)
    return f"{told} (must be given)" if action.required and action.option_strings else told


def main() -> int:
    """Writes the page where it belongs."""
    FILE.write_text(text(), encoding="utf-8")
    print(f"{FILE} is made from the code")
    return 0


if __name__ == "__main__":
    sys.exit(main())
