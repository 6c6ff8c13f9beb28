"""What is asked of one generator."""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple, Self, get_args

from bench.load.workloads import MIXES
from p4xos.tables import Address

Distribution = Literal["uniform", "zipfian", "latest"]
Arrivals = Literal["constant", "poisson"]

LAG_LIMIT_MS = 20.0
"""A generator whose p99 lag is above it did not offer what it was asked to: the run is void.

On a machine that generator and nodes share, a process waits for a core for a few time slices of
the scheduler (3 to 4 ms each). What is beyond that is a generator that does not keep up.
"""


class Plan(NamedTuple):
    """One run of one generator. `rate` decides: None is a closed loop, a number an open one."""

    addresses: tuple[Address, ...]
    """Clients are dealt out to them in turn."""
    workload: str = "A"
    """A name in `workloads.MIXES`."""
    distribution: Distribution = "zipfian"
    records: int = 10_000
    """Keys 0 to records - 1 are there before the run."""
    value_bytes: int = 1000
    clients: int = 64
    """Connections."""
    pipeline: int = 1
    """Operations that a client of a closed loop has on the way; an open loop has no such bound."""
    rate: float | None = None
    """Operations a second, of all clients."""
    arrivals: Arrivals = "poisson"
    """Of an open loop: at equal distances, or as independent users send."""
    seconds: float = 2.0
    """Measured, after the warm-up."""
    warm_up_s: float = 0.5
    operations: int | None = None
    """A closed loop ends after so many operations, if that is earlier."""
    drain_s: float = 5.0
    """How long answers are waited for after the end."""
    lag_limit_ms: float = LAG_LIMIT_MS
    part: int = 0
    """Which of several generators of one load this is: they draw and insert different keys."""
    parts: int = 1
    seed: int = 1

    def check(self) -> Self:
        """Itself.

        Raises:
          ValueError: something in it makes no sense.
        """
        if not self.addresses:
            raise ValueError("no addresses: name at least one node")
        if self.workload not in MIXES:
            raise ValueError(f'no workload "{self.workload}"; known are {", ".join(MIXES)}')
        for name, known in (("distribution", Distribution), ("arrivals", Arrivals)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(f'{name} is "{getattr(self, name)}", known: {get_args(known)}')
        for name in ("records", "value_bytes", "clients", "pipeline", "parts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, allowed is 1 or more")
        if self.rate is not None and not self.rate > 0:
            raise ValueError(f"rate is {self.rate:g}, allowed is more than 0")
        if self.rate is not None and self.operations is not None:
            raise ValueError("operations bounds a closed loop; an open one has seconds and rate")
        if not self.seconds > 0 or self.warm_up_s < 0 or self.drain_s < 0:
            raise ValueError("seconds must be more than 0, warm_up_s and drain_s not less")
        if not 0 <= self.part < self.parts:
            raise ValueError(f"part is {self.part}, allowed is 0 to {self.parts - 1}")
        return self

    def as_json(self) -> str:
        """One line."""
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `as_json` gave.

        Raises:
          ValueError: something in it makes no sense.
        """
        fields: dict[str, Any] = json.loads(text)
        fields["addresses"] = tuple(Address(*address) for address in fields["addresses"])
        return cls(**fields).check()
