"""What COMMAND tells beside the table's fields: key specifications, categories, tips.

Most follow from a command's flags, group and keys; where Redis says more, a table here does.
Redis documents them: https://redis.io/topics/key-specs and https://redis.io/topics/command-tips
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kvstore.commands.table import Entry
from kvstore.resp import Command

_READ = "RO access"
_LOOK = "RO"
_CHANGE = "RW access update"
_OVERWRITE = "OW update"
_INSERT = "OW insert"
_REMOVE = "RM delete"
_TAKE = "RW access delete"


class KeySpec(NamedTuple):
    """Where keys are among the words, and what happens to them."""

    first: int
    """Words from the command's name."""
    last: int
    """Counted from the first key, or negative from the last word."""
    step: int
    flags: tuple[str, ...]
    counted: bool = False
    """The word at `first` says how many keys follow it; `last` says nothing."""

    def positions(self, words: Command) -> range:
        """Of the keys in a command of the right length; none where the count is no good."""
        if self.counted:
            text = words[self.first]
            count = int(text) if text.isdigit() and len(text) < 10 else 0
            first = self.first + 1
            return range(first, first + (count if first + count <= len(words) else 0))
        last = self.first + self.last if self.last >= 0 else len(words) + self.last
        return range(self.first, last + 1, self.step)


_FLAGS: dict[bytes, str] = {
    **dict.fromkeys((b"exists", b"touch", b"type", b"strlen", b"watch", b"encoding", b"freq",
                     b"idletime", b"refcount"), _LOOK),
    **dict.fromkeys((b"expire", b"pexpire", b"expireat", b"pexpireat", b"persist", b"setrange"),
                    "RW update"),
    **dict.fromkeys((b"setex", b"psetex", b"mset", b"restore"), _OVERWRITE),
    **dict.fromkeys((b"setnx", b"msetnx"), _INSERT),
    **dict.fromkeys((b"del", b"unlink"), _REMOVE),
    **dict.fromkeys((b"set", b"bitfield"), f"{_CHANGE} variable_flags"),
    b"append": "RW insert",
    b"getdel": _TAKE,
}  # fmt: skip
_SPECS: dict[bytes, list[KeySpec]] = {
    name: [KeySpec(first, last, 1, tuple(flags.split())) for first, last, flags in specs]
    for name, specs in {
        b"rename": [(1, 0, _TAKE), (2, 0, _OVERWRITE)],
        b"renamenx": [(1, 0, _TAKE), (2, 0, _INSERT)],
        b"copy": [(1, 0, _READ), (2, 0, _OVERWRITE)],
        b"bitop": [(2, 0, _OVERWRITE), (3, -1, _READ)],
    }.items()
}
"""Commands whose keys differ in what happens to them, or are counted by a word."""
_SPECS[b"eval"] = _SPECS[b"evalsha"] = [KeySpec(2, 0, 1, tuple(_CHANGE.split()), counted=True)]


def _set_flags(words: Command) -> str:
    gets = any(word.lower() == b"get" for word in words[3:])
    return _CHANGE if gets else _OVERWRITE


def _bitfield_flags(words: Command) -> str:
    writes = any(word.lower() in (b"set", b"incrby") for word in words[2:])
    return _CHANGE if writes else _READ


_VARIABLE: dict[bytes, Callable[[Command], str]] = {
    b"set": _set_flags,
    b"bitfield": _bitfield_flags,
}


def key_specs(entry: Entry) -> Sequence[KeySpec]:
    """A command's key specifications; none when it has no keys."""
    found = _SPECS.get(entry.name)
    if found is not None:
        return found
    first, last, step = entry.keys
    if not first:
        return ()
    default = _READ if "readonly" in entry.flags else _CHANGE
    flags = tuple(_FLAGS.get(entry.name, default).split())
    return (KeySpec(first, last if last < 0 else last - first, step, flags),)


def keys_of(entry: Entry, words: Command) -> list[tuple[bytes, tuple[str, ...]]]:
    """The keys of a command of the right length, and what happens to each."""
    variable = _VARIABLE.get(entry.name)
    flags_now = tuple(variable(words).split()) if variable else None
    return [
        (words[position], flags_now or spec.flags)
        for spec in key_specs(entry)
        for position in spec.positions(words)
    ]


CATEGORIES = (
    "keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap",
    "hyperloglog", "geo", "stream", "pubsub", "admin", "fast", "slow", "blocking", "dangerous",
    "connection", "transaction", "scripting",
)  # fmt: skip
"""In Redis' order."""
_KEYSPACE = frozenset((b"dbsize", b"flushdb", b"flushall", b"swapdb"))
_DANGEROUS = frozenset((b"keys", b"flushdb", b"flushall", b"swapdb", b"info", b"restore"))


def categories(entry: Entry) -> list[str]:
    """A command's categories of access control."""
    flags = set(entry.flags)
    found = {"fast" if "fast" in flags else "slow"}
    if entry.subcommands:
        # A container has what its bare form has, and only COMMAND has one.
        return ["slow", "connection"] if entry.arity == -1 else ["slow"]
    found |= {category for flag, category in (("readonly", "read"), ("write", "write"))
              if flag in flags}  # fmt: skip
    if "admin" in flags or entry.name == b"role":
        found |= {"admin", "dangerous"}
    if entry.name in _DANGEROUS and not entry.parent:
        found.add("dangerous")
    if entry.name == b"wait" or entry.parent == b"command" or entry.name == b"command":
        found.add("connection")
    elif entry.group == "generic" or (entry.name in _KEYSPACE and not entry.parent):
        found.add("keyspace")
    elif entry.group == "transactions":
        found.add("transaction")
    elif entry.group in ("string", "bitmap", "connection", "scripting"):
        found.add(entry.group)
    return [category for category in CATEGORIES if category in found]


_SHARDS = "request_policy:all_shards"
_MULTI = "request_policy:multi_shard"
_SUM = "response_policy:agg_sum"
_ALL_OK = "response_policy:all_succeeded"
_VARIES = "nondeterministic_output"
_TIPS: dict[bytes, tuple[str, ...]] = {
    **dict.fromkeys((b"ttl", b"pttl", b"time", b"dump", b"object|encoding", b"object|freq",
                     b"object|idletime", b"object|refcount", b"client|info", b"client|list"),
                    (_VARIES,)),
    **dict.fromkeys((b"command", b"command|info", b"command|docs", b"command|list"),
                    ("nondeterministic_output_order",)),
    **dict.fromkeys((b"del", b"unlink", b"exists", b"touch"), (_MULTI, _SUM)),
    **dict.fromkeys((b"flushdb", b"flushall", b"ping"), (_SHARDS, _ALL_OK)),
    b"dbsize": (_SHARDS, _SUM),
    b"randomkey": (_SHARDS, _VARIES),
    b"keys": (_SHARDS, "nondeterministic_output_order"),
    b"scan": (_VARIES, "request_policy:special"),
    b"wait": (_SHARDS, "response_policy:agg_min"),
    b"info": (_VARIES, _SHARDS, "response_policy:special"),
    b"config|set": ("request_policy:all_nodes", _ALL_OK),
    b"mget": (_MULTI,),
    b"mset": (_MULTI, _ALL_OK),
    b"msetnx": (_MULTI, "response_policy:agg_min"),
    b"slowlog|get": ("request_policy:all_nodes", _VARIES),
    b"slowlog|len": ("request_policy:all_nodes", _SUM, _VARIES),
    **dict.fromkeys((b"slowlog|reset", b"script|flush", b"script|load"),
                    ("request_policy:all_nodes", _ALL_OK)),
    b"script|exists": (_SHARDS, "response_policy:agg_logical_and"),
}  # fmt: skip


def tips(entry: Entry) -> tuple[str, ...]:
    """Hints for clients and proxies."""
    return _TIPS.get(entry.full_name, ())
