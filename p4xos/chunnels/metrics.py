"""What a runtime's connections carry, as Prometheus metrics.

A node has them among its own:      node.collectors.append(lambda: families(runtime))
a program that runs none serves:    HttpServer({"/metrics": metrics_page([...])})

Labels have few values: endpoints of this program (`metering.ENDPOINTS_MAX`), and the layers and
implementations that it knows; never a peer's name or address.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric

from p4xos.chunnels.metering import SAMPLE
from p4xos.chunnels.runtime import Runtime
from p4xos.metrics import Families

_MESSAGES = "Messages at the upper side of a layer: given to it, and taken from it."
_BYTES = "Their bytes, where messages are bytes."
_ERRORS = "Calls of a layer that failed; one at the wire fails at each layer above, too."
_SECONDS = f"How long a layer and all below took to send; measured for one in {SAMPLE} or more."


def families(runtime: Runtime) -> Iterable[Metric]:
    """All metrics of a runtime's connections."""
    out = Families()
    tally = runtime.tally
    for (endpoint, side), count in tally.opened.items():
        out.counter(
            "p4xos_chunnel_connections_opened", count, "Connections that have begun.",
            endpoint=endpoint, side=side,
        )  # fmt: skip
        out.gauge(
            "p4xos_chunnel_connections", tally.open[endpoint, side], "Connections that are open.",
            endpoint=endpoint, side=side,
        )  # fmt: skip
    for kind, carried in tally.carried().items():
        labels = kind._asdict()
        ways = (
            ("sent", carried.sent, carried.sent_bytes),
            ("received", carried.received, carried.received_bytes),
        )
        for direction, count, size in ways:
            out.counter(
                "p4xos_chunnel_messages", count, _MESSAGES, **labels, direction=direction
            )
            if size:
                out.counter("p4xos_chunnel_bytes", size, _BYTES, **labels, direction=direction)
        out.counter("p4xos_chunnel_errors", carried.errors, _ERRORS, **labels)
        if carried.seconds.count:
            out.histogram(
                "p4xos_chunnel_send_seconds", carried.seconds.state(), _SECONDS, **labels
            )
    for event, count in runtime.counters.items():
        out.counter("p4xos_chunnel_events", count, "What happened, by what it was.", event=event)
    for (endpoint, event), count in tally.events().items():
        out.counter(
            "p4xos_chunnel_server_events", count,
            "What servers were sent beside messages, and made of it.",
            endpoint=endpoint, event=event,
        )  # fmt: skip
    return out
