"""From a REQUEST to the votes of a quorum, by a plain socket in the learner's place.

A learner with its proposer, in Python, takes some hundred microseconds a value; here nobody but
coordinator and acceptors does anything, so that theirs show. The socket hears heartbeats, asks the
coordinator that sends them, and tells checkpoints, or the window would fill.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.processes import Child
from p4xos import wire
from p4xos.config import Cluster
from p4xos.tables import Address
from p4xos.wire import HEADER_BYTES, HEADER_STRUCT, Type

CHECKPOINT_EVERY = 64
WARM_UP_SHARE = 0.1
_ANSWER_S = 1.0
_LIMIT_S = 60.0


class Asker:
    """In the place of learner 0 and its proposer, until it is closed."""

    def __init__(self, cluster: Cluster, voters: Sequence[Child], payload_bytes: int) -> None:
        """Binds its socket, in the calling thread's network namespace.

        Args:
          cluster: of which everybody else runs.
          voters: the processes of acceptors and coordinators.
          payload_bytes: of each value.
        """
        self._cluster = cluster
        self._voters = voters
        self._quorum = len(cluster.acceptors) // 2 + 1
        self._own = cluster.learners[0]
        self._request = self._packet(Type.REQUEST, 0, bytes(payload_bytes))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(self._own.address)
        self._socket.settimeout(_ANSWER_S)
        self._highest = 0  # of the instances that a quorum has voted for

    def latencies_us(self, values: int) -> NDArray[np.float64]:
        """What each value took, one after the other; the first tenth is warm-up, and left out.

        Raises:
          BenchError: a process ended, or nobody answers.
        """
        coordinator = self._serving()
        taken = np.zeros(values)
        for k in range(values):
            taken[k] = self._asked_s(coordinator) * 1e6
            if k % CHECKPOINT_EVERY == 0:
                self._socket.sendto(self._packet(Type.CHECKPOINT, self._highest), coordinator)
        return taken[int(values * WARM_UP_SHARE) :]

    def close(self) -> None:
        """Lets go of its address."""
        self._socket.close()

    def _serving(self) -> Address:
        """The coordinator that beats; BenchError where none does."""
        limit = time.monotonic() + _LIMIT_S
        while time.monotonic() < limit:
            type, _, sender = self._heard()
            if type == Type.HEARTBEAT:
                return self._cluster.member("coordinator", sender).address
        raise BenchError(f"no coordinator served within {_LIMIT_S:g} s")

    def _asked_s(self, coordinator: Address) -> float:
        """From sending a REQUEST until a quorum has voted for one more instance."""
        votes: dict[int, set[int]] = {}
        limit = time.monotonic() + _LIMIT_S
        while time.monotonic() < limit:
            began = time.perf_counter()
            self._socket.sendto(self._request, coordinator)
            while True:
                type, instance, sender = self._heard()
                if type == 0:
                    break  # lost, or the coordinator knows its acceptors not yet: once more
                if type != Type.PHASE2B or instance <= self._highest:
                    continue
                of = votes.setdefault(instance, set())
                of.add(sender)
                if len(of) == self._quorum:
                    self._highest = instance
                    return time.perf_counter() - began
        raise BenchError(f"no quorum voted within {_LIMIT_S:g} s")

    def _heard(self) -> tuple[int, int, int]:
        """Type, instance and sender of the next datagram; type 0: none came."""
        try:
            data = self._socket.recv(2048)
        except TimeoutError:
            for voter in self._voters:
                if not voter.running:
                    told = f"{voter.name} ended; its last lines:\n{voter.last_lines()}"
                    raise BenchError(told) from None
            return 0, 0, 0
        if len(data) < HEADER_BYTES:
            return 0, 0, 0
        _, type, _, _, instance, _, _, sender, *_ = HEADER_STRUCT.unpack_from(data)
        return type, instance, sender

    def _packet(self, type: Type, instance: int, value: bytes = b"") -> bytes:
        cluster = self._cluster
        rows = wire.encode(
            cluster.id, cluster.group, type, instance=instance, sender=self._own.id, value=value
        )
        return rows.tobytes()
