"""What the command line asks of running nodes: `p4xos status`, `recover` and `reconfigure`."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from p4xos import reconfiguring, secret
from p4xos.config import NUMPY, Cluster, Movable
from p4xos.dialing import ConnectionLost, Dialed, Unreachable, ask_untrusted, dial
from p4xos.errors import NotDelivered, P4xosError, Trimmed
from p4xos.framing import Frame
from p4xos.interface import read_chosen
from p4xos.reconfiguring import Reconfigured

ANSWER_S = 3.0


def status(cluster: Cluster) -> dict[str, object]:
    """How every node is, as data: what it tells about itself, or why it cannot be asked."""
    return trio.run(_status, cluster)


def recover(cluster: Cluster, instance: int) -> dict[str, object]:
    """What was chosen in an instance, as data, from the first node that still has it.

    Raises:
      Trimmed, NotDelivered: no node that answers has it.
      Unreachable: none answers.
      ValueError: there is no such instance.
    """
    if not 1 <= instance < 2**64:
        raise ValueError(f"instance is {instance}, allowed are whole numbers from 1")
    return trio.run(_recover, cluster, instance)


def reconfigure(cluster: Cluster, data_plane: str, roles: Sequence[Movable]) -> Reconfigured:
    """Moves a running group to another data plane; raises as `reconfiguring.reconfigure`."""
    return trio.run(reconfiguring.reconfigure, cluster, data_plane, roles)


def moves(found: Reconfigured) -> dict[str, str]:
    """What has moved, for people: a line a role, and what clients waited for."""
    lines: dict[str, str] = {}
    for m in found.moved:
        what = f"stopped for {m.pause_s * 1e3:.1f} ms"
        if m.role == "acceptor":
            what += f", {m.outstanding} votes with it"
        elif m.pause_s:
            what += f", {m.outstanding} instances proposed again, {m.waited} requests waited"
        else:
            what = "it did not serve"
        lines[f"{m.role} {m.id} of {m.node}"] = f"from {m.before} to {m.after}, {what}"
    if not lines:
        return {"nothing to do": f"all is on {found.data_plane}"}
    return lines | {"nothing numbered requests for": f"{found.pause_s * 1e3:.1f} ms"}


def described(status: Mapping[str, object]) -> dict[str, str]:
    """A status for people: a line a node, and who leads."""
    lines: dict[str, str] = {}
    for name, told in status.items():
        if not isinstance(told, dict):
            lines[name] = str(told)
        elif "unreachable" in told:
            lines[name] = f"unreachable: {told['unreachable']}"
        else:
            lines[name] = ", ".join(_words(told))
    return lines


def _words(told: Mapping[str, object]) -> list[str]:
    words = []
    learner, coordinator = told.get("learner"), told.get("coordinator")
    if isinstance(learner, dict):
        words.append(
            f"delivered {learner.get('delivered')} (lag {learner.get('lag')}, "
            f"low {learner.get('low')}{', behind' if learner.get('behind') else ''})"
        )
    if isinstance(coordinator, dict):
        words.append(
            f"coordinator {coordinator.get('phase')}, round {coordinator.get('round')}, "
            f"next {coordinator.get('next')}"
        )
        if coordinator.get("blocked"):
            words.append(str(coordinator["blocked"]))
    planes = told.get("data_planes")
    if isinstance(planes, dict):
        words += [f"{role} on {name}" for role, name in planes.items() if name != NUMPY]
    group = told.get("group")
    if isinstance(group, dict):
        words += [f"not on {name}: {why}" for name, why in group.get("declined", {}).items()]
    if isinstance(told.get("catching_up"), dict):
        words.append(_catching_up(told["catching_up"]))  # type: ignore[arg-type]  # looked at above
    if told.get("compiled_modules"):
        words.append("compiled")
    silent = told.get("silent")
    words += map(str, silent) if isinstance(silent, list) else []
    return words


def _catching_up(told: Mapping[str, object]) -> str:
    """How far a node is that fetches from another what the acceptors have forgotten."""
    words = f"catching up, {told.get('instances_missing')} instances missing"
    if "from" in told:
        words += f", from {told['from']}"
    if "percent" in told:
        total, rate = told.get("bytes_total"), told.get("bytes_per_s")
        words += f", copied {told['percent']} % of {total} bytes, {rate} bytes/s"
    return words


async def _status(cluster: Cluster) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, answer in (await ask_each(cluster, {"ask": "status", "id": 1})).items():
        if isinstance(answer, Frame):
            found[name] = answer.head.get("status", {})
        elif isinstance(answer, Unreachable):
            found[name] = {"unreachable": "; ".join(answer.problems.values())}
        else:
            found[name] = {"unreachable": str(answer)}
    nodes = {node.name: found[node.name] for node in cluster.nodes}
    _add_lags(nodes)
    return {"cluster": f"{cluster.id:08x}", "leader": _leader(cluster, nodes), **nodes}


def _add_lags(nodes: Mapping[str, object]) -> None:
    """How far each learner is behind the farthest that anyone has heard of."""
    learners = [
        told["learner"]
        for told in nodes.values()
        if isinstance(told, dict) and isinstance(told.get("learner"), dict)
    ]
    highest = max((int(learner.get("heard", 0)) for learner in learners), default=0)
    for learner in learners:
        learner["lag"] = max(highest - int(learner.get("delivered", 0)), 0)


def _leader(cluster: Cluster, nodes: Mapping[str, object]) -> str:
    """The node whose coordinator serves, by the highest round that a reachable one tells."""
    told = [
        (int(coordinator.get("round") or 0), coordinator.get("leader"))
        for status in nodes.values()
        if isinstance(status, dict) and isinstance(coordinator := status.get("coordinator"), dict)
    ]
    leader = max(told, key=lambda pair: pair[0], default=(0, None))[1]
    for member in cluster.coordinators:
        if member.id == leader:
            return f"coordinator {member.id} on {member.node}"
    return "none known"


async def ask_each(
    cluster: Cluster, question: Mapping[str, object], patience_s: float = ANSWER_S
) -> dict[str, Frame | P4xosError]:
    """Asks all nodes at once; the answer of each, or why there is none.

    Raises:
      ConfigError, OSError: the secret of the cluster cannot be read; nobody was asked.
    """
    shared = secret.of(cluster)
    found: dict[str, Frame | P4xosError] = {}

    async def ask(name: str) -> None:
        try:
            found[name] = await _with_node(
                cluster, shared, name, lambda dialed: ask_untrusted(dialed, dict(question)),
                patience_s,
            )  # fmt: skip
        except P4xosError as error:
            found[name] = error

    async with trio.open_nursery() as nursery:
        for node in cluster.nodes:
            nursery.start_soon(ask, node.name)
    return {node.name: found[node.name] for node in cluster.nodes}


async def _with_node(
    cluster: Cluster,
    shared: secret.Secret | None,
    name: str,
    one: Callable[[Dialed], Awaitable[Frame]],
    patience_s: float = ANSWER_S,
) -> Frame:
    """One question to a node, within so long."""
    dialed = await dial(cluster.node(name).peer, cluster.id, shared)
    try:
        with trio.move_on_after(patience_s):
            return await one(dialed)
        raise ConnectionLost(name, f"no answer within {patience_s:g} s")
    finally:
        await dialed.frames.aclose()


async def _recover(cluster: Cluster, instance: int) -> dict[str, object]:
    shared = secret.of(cluster)
    problems: dict[str, str] = {}
    answer: P4xosError | None = None
    for learner in cluster.learners:
        ask = {"ask": "recover", "id": 1, "instance": instance}
        try:
            frame = await _with_node(
                cluster,
                shared,
                learner.node,
                lambda dialed, ask=ask: ask_untrusted(dialed, ask),  # type: ignore[misc]  # a default is no argument
            )
        except (Trimmed, NotDelivered) as error:
            answer = error
        except P4xosError as error:
            problems[learner.node] = str(error)
        else:
            found = read_chosen(instance, frame.body)
            told: dict[str, object] = {**found._asdict(), "node": learner.node}
            told["payload"] = found.payload.decode("utf-8", "backslashreplace")
            told["payload_base64"] = base64.b64encode(found.payload).decode()
            return told
    raise answer or Unreachable(problems)
