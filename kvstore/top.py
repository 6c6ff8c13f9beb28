"""`kvstore top`: all nodes of a cluster, live on a terminal, or as JSON for scripts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kvstore.status import Look, look, table
from p4xos.config import Cluster

_CONSENSUS = {
    "state": "state", "coordinator": "coordinator", "round": "round", "delivered": "delivered",
    "lag": "lag", "low": "low", "in_flight": "in flight",
}  # fmt: skip
_STORE = {
    "clients": "clients", "keys": "keys", "ops_per_s": "ops/s",
    "reads_p50_ms": "read p50", "reads_p99_ms": "p99",
    "writes_p50_ms": "write p50", "writes_p99_ms": "p99",
    "sync_p99_ms": "sync p99", "disk_bytes": "disk",
}  # fmt: skip
Lines = Mapping[str, Mapping[str, Any]]


def run(cluster: Cluster, *, interval_s: float, once: bool, as_json: bool) -> None:
    """Looks again and again until Ctrl-C; once: at what happens in one interval."""
    console = Console()
    with suppress(KeyboardInterrupt):  # how it is meant to end
        if once or as_json or not console.is_terminal:
            _print(cluster, console, interval_s, once=once, as_json=as_json)
        else:
            _show(cluster, console, interval_s)


def _print(
    cluster: Cluster, console: Console, interval_s: float, *, once: bool, as_json: bool
) -> None:
    earlier = look(cluster)
    while True:
        time.sleep(interval_s)
        later = look(cluster)
        if as_json:
            print(json.dumps(as_data(later, earlier)), flush=True)
        else:
            console.print(drawn(later, earlier))
        if once:
            return
        earlier = later


def _show(cluster: Cluster, console: Console, interval_s: float) -> None:
    earlier = look(cluster)
    with Live(drawn(earlier, None), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval_s)
            later = look(cluster)
            live.update(drawn(later, earlier), refresh=True)
            earlier = later


def as_data(later: Look, earlier: Look | None) -> dict[str, object]:
    """One line of `--json`."""
    return {
        "cluster": later.cluster,
        "leader": later.leader,
        "interval_s": None if earlier is None else round(later.at - earlier.at, 3),
        "nodes": table(later, earlier),
    }


def drawn(later: Look, earlier: Look | None) -> RenderableType:
    """The picture for people; times in milliseconds."""
    lines: Lines = table(later, earlier)
    parts: list[RenderableType] = [
        Text(f"cluster {later.cluster}   leader: {later.leader}   {datetime.now():%H:%M:%S}"),
        _drawn_table(lines, _CONSENSUS),
        _drawn_table(lines, _STORE),
        _drops(lines),
    ]
    for name, line in lines.items():
        parts += [Text(f"{name}: {problem}", style="bold red") for problem in line["problems"]]
    return Group(*parts)


def _drawn_table(lines: Lines, columns: Mapping[str, str]) -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    drawn.add_column("node", no_wrap=True)
    for key, title in columns.items():
        textual = key in ("state", "coordinator")
        drawn.add_column(title, justify="left" if textual else "right", no_wrap=True)
    for name, line in lines.items():
        drawn.add_row(name, *_cells(line, columns), style=None if _is_well(line) else "red")
    return drawn


def _is_well(line: Mapping[str, Any]) -> bool:
    return bool(line["state"] == "ready")


def _cells(line: Mapping[str, Any], columns: Iterable[str]) -> Sequence[str]:
    return [_cell(key, line.get(key)) for key in columns]


def _cell(key: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and key.endswith("_bytes"):
        return _size(value)
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _drops(lines: Lines) -> Text:
    """By reason, of the last interval."""
    said = []
    for name, line in lines.items():
        found = line.get("drops") or {}
        if found:
            said.append(f"{name} " + " ".join(f"{why}={n}" for why, n in sorted(found.items())))
    return Text("dropped: " + ("; ".join(said) or "nothing"))
