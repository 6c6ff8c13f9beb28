"""libpaxos' C interface by its own names, in Python and trio.

    async with trio.open_nursery() as base:
        learner = evlearner_init("paxos.conf", deliver, None, base)

`base` is the nursery that stands where C has an event base: what is begun runs in it until it is
freed, or the nursery is cancelled. `deliver(iid, value, size, arg)` runs inside of trio; where it
is asynchronous it is waited for, and nothing is delivered meanwhile. An identifier that C has as an
int is one here; a value is bytes. Acceptors and proposers are the cluster's (`p4xos libpaxos`): who
makes one here gets a handle, and nothing runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from os import PathLike

import trio

from p4xos.compat.libpaxos.client import Learning, Submission, Submitting
from p4xos.compat.libpaxos.conf import PaxosConf
from p4xos.packing import Deliveries
from p4xos.tables import Address

Deliver = Callable[[int, bytes, int, object], Awaitable[None] | None]
Path = str | PathLike[str]


class EvLearner:
    """What `evlearner_init` gives."""

    def __init__(self, conf: PaxosConf, deliver: Deliver | None, arg: object) -> None:
        self.learning = Learning(conf)
        self.scope = trio.CancelScope()
        self._deliver, self._arg = deliver, arg

    async def run(self) -> None:
        """Until it is freed."""
        with self.scope:
            await self.learn()

    async def learn(self) -> None:
        """Delivers for ever."""
        async with aclosing(self.learning.batches()) as batches:
            async for batch in batches:
                await self._deliver_batch(batch)

    async def _deliver_batch(self, batch: Deliveries) -> None:
        if self._deliver is None:
            return
        for iid, value in batch:
            waits = self._deliver(iid, value, len(value), self._arg)
            if waits is not None:
                await waits


class EvProposer:
    """A proposer or an acceptor; those that work are the cluster's."""


class EvReplica(EvLearner):
    """What `evpaxos_replica_init` gives: a learner that submits."""

    def __init__(self, conf: PaxosConf, deliver: Deliver | None, arg: object) -> None:
        super().__init__(conf, deliver, arg)
        self.submitting = Submitting(conf)
        self.count = len(conf.acceptors)

    async def run(self) -> None:
        """Until it is freed."""
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.submitting.run)
                nursery.start_soon(self.learn)


def evpaxos_config_read(path: Path) -> PaxosConf:
    """Reads a `paxos.conf`; ConfigError where C returns NULL."""
    return PaxosConf.load(path)


def evpaxos_config_free(config: PaxosConf) -> None:
    """Nothing is to be freed."""


def evpaxos_proposer_address(config: PaxosConf, i: int) -> Address:
    """Host and port of proposer i."""
    return config.proposers[i]


def evpaxos_proposer_listen_port(config: PaxosConf, i: int) -> int:
    """The port of proposer i."""
    return config.proposers[i].port


def evpaxos_acceptor_address(config: PaxosConf, i: int) -> Address:
    """Host and port of acceptor i."""
    return config.acceptors[i]


def evpaxos_acceptor_listen_port(config: PaxosConf, i: int) -> int:
    """The port of acceptor i."""
    return config.acceptors[i].port


def evpaxos_acceptor_count(config: PaxosConf) -> int:
    """How many acceptors there are."""
    return len(config.acceptors)


def evlearner_init(
    config_file: Path, deliver: Deliver, arg: object, base: trio.Nursery
) -> EvLearner:
    """A learner; it delivers from instance 1, or from what comes next (`learner-catch-up no`)."""
    learner = EvLearner(evpaxos_config_read(config_file), deliver, arg)
    base.start_soon(learner.run)
    return learner


def evlearner_free(learner: EvLearner) -> None:
    """Nothing is delivered any more."""
    learner.scope.cancel()


def evlearner_set_instance_id(learner: EvLearner, iid: int) -> None:
    """Delivers instances above this one only; before the nursery's tasks run."""
    learner.learning.next = iid + 1


def evlearner_send_trim(learner: EvLearner, iid: int) -> None:
    """Tells that all through an instance is put aside."""
    learner.learning.trim(iid)


def evproposer_init(id: int, config_file: Path, base: trio.Nursery) -> EvProposer:
    """A handle: the cluster has proposers. IndexError where the file has no such id."""
    evpaxos_proposer_address(evpaxos_config_read(config_file), id)
    return EvProposer()


def evproposer_free(proposer: EvProposer) -> None:
    """Nothing is to be freed."""


def evproposer_set_instance_id(proposer: EvProposer, iid: int) -> None:
    """Nothing: the cluster knows its next instance."""


def evacceptor_init(id: int, config_file: Path, base: trio.Nursery) -> EvProposer:
    """A handle: the cluster has acceptors. IndexError where the file has no such id."""
    evpaxos_acceptor_address(evpaxos_config_read(config_file), id)
    return EvProposer()


def evacceptor_free(acceptor: EvProposer) -> None:
    """Nothing is to be freed."""


def evpaxos_replica_init(
    id: int, config_file: Path, deliver: Deliver | None, arg: object, base: trio.Nursery
) -> EvReplica:
    """A replica: a learner that submits. IndexError where the file has no such id."""
    conf = evpaxos_config_read(config_file)
    evpaxos_acceptor_address(conf, id)
    replica = EvReplica(conf, deliver, arg)
    base.start_soon(replica.run)
    return replica


def evpaxos_replica_free(replica: EvReplica) -> None:
    """Nothing is delivered or submitted any more."""
    evlearner_free(replica)


def evpaxos_replica_set_instance_id(replica: EvReplica, iid: int) -> None:
    """As `evlearner_set_instance_id`."""
    evlearner_set_instance_id(replica, iid)


def evpaxos_replica_send_trim(replica: EvReplica, iid: int) -> None:
    """As `evlearner_send_trim`."""
    evlearner_send_trim(replica, iid)


def evpaxos_replica_submit(replica: EvReplica, value: bytes) -> Submission:
    """Submits a value; it is sent until it is in the log. `wait` of what is returned tells where.

    Raises:
      Overloaded: too much waits; nothing was taken.
    """
    return replica.submitting.submit(value)


def evpaxos_replica_count(replica: EvReplica) -> int:
    """How many replicas there are."""
    return replica.count


def paxos_submit(submitting: Submitting, value: bytes) -> Submission:
    """Submits a value through `Submitting`, which stands where C has a bufferevent."""
    return submitting.submit(value)
