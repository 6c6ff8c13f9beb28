"""kill -9 of nodes drawn at random, whatever they do at that moment, while clients write.

Mostly one of three, sometimes two at once or the whole cluster: then nothing can be acknowledged
meanwhile, and what was must be there when they come back. Each run is one kill.
"""

from __future__ import annotations

import random
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.appenders import appending, wait_for_more
from bench.results import Metric, Sample
from bench.store_cluster import StoreCluster
from bench.takeover import CLIENTS_PER_NODE, account, bring_back, survivors

LOAD_S = 0.5
"""At most so long from one node's return to the next kill; sometimes nothing."""
DOWN_S = 0.6
"""At most so long until what was killed is started again; sometimes within a takeover."""
TOGETHER = (1, 1, 1, 1, 1, 1, 1, 1, 2, 3)
"""How many nodes are killed at once."""

KILLED = Metric("kills", "nodes killed at once", "nodes")
ACKNOWLEDGED = Metric("kills", "acknowledged", "writes")
UNKNOWN = Metric("kills", "writes with unknown outcome", "writes")
LOST = Metric("kills", "acknowledged writes lost", "writes", at_most=0)
TWICE = Metric("kills", "writes applied twice", "writes", at_most=0)


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample]:
    """Yields how many each kill hit, then what became of all writes."""
    seed = secrets.randbits(32)
    print(f"kills: drawn with seed {seed}", file=sys.stderr)
    chance = random.Random(seed)
    with StoreCluster(scratch / "kills") as cluster:
        cluster.start()
        cluster.wait_until_writable()
        addresses = [cluster.endpoint(name) for name in cluster.names]
        with appending(addresses * CLIENTS_PER_NODE) as appenders:
            wait_for_more(appenders, 5)
            for _ in range(runs):
                time.sleep(LOAD_S * scale * chance.random())
                victims = chance.sample(cluster.names, chance.choice(TOGETHER))
                cluster.kill(*victims)
                yield Sample(KILLED, len(victims))
                time.sleep(DOWN_S * chance.random())
                if len(victims) == 1:
                    wait_for_more(survivors(appenders, cluster, *victims), 2)
                bring_back(cluster, appenders, *victims)
        acknowledged, unknown, lost, twice = account(cluster, appenders)
    yield Sample(ACKNOWLEDGED, acknowledged)
    yield Sample(UNKNOWN, unknown)
    yield Sample(LOST, lost)
    yield Sample(TWICE, twice)
