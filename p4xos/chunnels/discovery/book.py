"""What the discovery service knows: holds with leases; pure, the caller owns the clock.

A hold is an implementation that somebody has set up, an instance of a server that is announced
under a name, or a claim of resources. A lease is renewed by its owner, and a hold that is not
renewed ends, and its teardown is to be run. A claim lasts as long as its owner's connection.
Capacities come from the service's start and from implementations that are held. A claim may be
reserved at first: room is kept for it, and it is not yet told as taken, since its owner soon says
what of it is needed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import msgpack

from p4xos.chunnels.errors import Busy
from p4xos.errors import P4xosError

Kind = Literal["implementation", "instance", "claim"]
HOLDS_MAX = 20_000
HELD_BYTES_MAX = 16 << 20
"""Of all that is told of holds: what runtimes are told is one frame (`framing.BODY_BYTES_MAX`)."""
HOLD_BYTES = 64
"""Of a hold, beside what its data take."""


class Full(P4xosError):
    """The service holds as much as it may."""

    def __init__(self) -> None:
        super().__init__(
            f"{HOLDS_MAX} holds, or {HELD_BYTES_MAX} bytes of them, are the most there may be; "
            "release some, then try again"
        )


@dataclass
class Hold:
    """One thing that somebody holds."""

    kind: Kind
    ttl_s: float
    expires_at: float | None
    """None: while its connection lasts."""
    data: dict[str, Any] = field(default_factory=dict)
    """implementation: type, name, parameters, capacities; instance: name, address, place;
    claim: resources."""
    teardown: list[str] = field(default_factory=list)
    """A command, with its arguments; none: nothing is to be done."""
    reserved: bool = False
    """Of a claim: whether its owner does not know yet if it is needed."""
    size: int = 0
    """About what it takes where it is told, in bytes; a book sets it."""


class Book:
    """All holds, by lease."""

    def __init__(self, capacities: Mapping[str, int] | None = None) -> None:
        """Holds nothing; `capacities` are those that are always there."""
        self.version = 0
        """Grows with every change."""
        self.holds: dict[str, Hold] = {}
        self._fixed = dict(capacities or {})

    def hold(self, hold: Hold, lease: str | None = None) -> str:
        """Adds a hold, or replaces the one of a lease; returns its lease.

        Raises:
          Busy: a claim asks for more than is free.
          Full: there are too many.
        """
        if lease is None or lease not in self.holds:
            if len(self.holds) >= HOLDS_MAX:
                raise Full
            lease = lease or secrets.token_hex(16)
        before = self.holds.get(lease)
        hold.size = HOLD_BYTES + len(msgpack.packb(hold.data))
        if sum([each.size for each in self.holds.values() if each is not before]) + hold.size > (
            HELD_BYTES_MAX
        ):
            raise Full
        if hold.kind == "claim":
            free = self.free(but=before)
            for name, wanted in sorted(hold.data["resources"].items()):
                if free.get(name, 0) < wanted:
                    raise Busy(name, free.get(name, 0), wanted)
        self.holds[lease] = hold
        if not hold.reserved and (before is None or before.data != hold.data):
            self.version += 1
        return lease

    def settle(self, lease: str, resources: Mapping[str, int]) -> None:
        """Makes a reservation into a claim of what is needed of it."""
        hold = self.holds[lease]
        hold.data = {"resources": dict(resources)}
        hold.reserved = False
        self.version += 1

    def renew(self, lease: str, now: float) -> bool:
        """Begins a lease's time anew; False where it is not held, or no more."""
        hold = self.holds.get(lease)
        if hold is None:
            return False
        if hold.expires_at is not None:
            hold.expires_at = now + hold.ttl_s
        return True

    def release(self, lease: str) -> None:
        """Ends a hold whose owner has cleared up by itself."""
        if self.holds.pop(lease, None) is not None:
            self.version += 1

    def lost(self, leases: Iterable[str]) -> None:
        """The connection of these has ended: claims end with it, the others have their time."""
        for lease in leases:
            hold = self.holds.get(lease)
            if hold is not None and hold.expires_at is None:
                self.release(lease)

    def expire(self, now: float) -> list[Hold]:
        """Ends what was not renewed; returns it, for its teardown."""
        ended = [
            lease
            for lease, hold in self.holds.items()
            if hold.expires_at is not None and hold.expires_at <= now
        ]
        found = [self.holds.pop(lease) for lease in ended]
        self.version += bool(found)
        return found

    def deadline(self) -> float | None:
        """When `expire` next matters."""
        times = [hold.expires_at for hold in self.holds.values() if hold.expires_at is not None]
        return min(times, default=None)

    def in_question(self, resources: Mapping[str, int]) -> bool:
        """Whether there is no room for these, and would be without what is only reserved."""
        now, then = self.free(), self.free(reserved=False)
        return any(now.get(name, 0) < wanted for name, wanted in resources.items()) and all(
            then.get(name, 0) >= wanted for name, wanted in resources.items()
        )

    def free(self, *, reserved: bool = True, but: Hold | None = None) -> dict[str, int]:
        """What is left of each capacity.

        Args:
          reserved: whether what is reserved counts as taken.
          but: a hold that does not count.
        """
        left = dict(self._fixed)
        for hold in self.holds.values():
            if hold.kind == "implementation":
                for name, amount in hold.data["capacities"].items():
                    left[name] = left.get(name, 0) + amount
        for hold in self.holds.values():
            if hold.kind == "claim" and hold is not but and (reserved or not hold.reserved):
                for name, amount in hold.data["resources"].items():
                    left[name] = left.get(name, 0) - amount
        return left

    def picture(self) -> dict[str, Any]:
        """What runtimes are told."""
        registered = []
        names: dict[str, list[object]] = {}
        for hold in self.holds.values():
            if hold.kind == "implementation":
                data = hold.data
                registered.append([data["type"], data["name"], data["parameters"]])
            elif hold.kind == "instance":
                data = hold.data
                names.setdefault(data["name"], []).append([*data["address"], data["place"]])
        free = self.free(reserved=False)
        return {"registered": registered, "free": free, "names": names}

    # Over a restart of the service ---------------------------------------------------------------

    def lasting(self) -> dict[str, Any]:
        """Holds with a teardown: what must not be forgotten."""
        kept = {lease: asdict(hold) for lease, hold in self.holds.items() if hold.teardown}
        for told in kept.values():
            del told["reserved"], told["size"]  # no claim lasts
        return kept

    def restore(self, lasting: Mapping[str, Any], now: float) -> None:
        """Takes up what `lasting` told; owners have one lease's time to come back."""
        for lease, told in lasting.items():
            hold = Hold(**told)
            hold.expires_at = now + hold.ttl_s
            hold.size = HOLD_BYTES + len(msgpack.packb(hold.data))
            self.holds[lease] = hold
        self.version += 1
