"""`shard` in the kernel: an implementation that negotiation finds, where this machine can run it.

The server's program stands on the interface that has its address: clients that know of no shards
have each of their messages brought to the shard that has its key, and no process of the server sees
them. Where something is missing, `explain()` says what, and the server relays.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from p4xos.chunnels import steering
from p4xos.chunnels.errors import Unable
from p4xos.chunnels.implementations import Ends, Implementation, Serving
from p4xos.chunnels.places import Scope
from p4xos.chunnels.sharding import SHARD, Sharding
from p4xos.chunnels.stack import Layer
from p4xos.tables import Address
from switch.xdp import attaching
from switch.xdp.errors import XdpUnavailable
from switch.xdp.steering import SteeringProgram

_EVERY_ADDRESS = "0.0.0.0"


@asynccontextmanager
async def _listen(serving: Serving, layer: Layer) -> AsyncIterator[Mapping[str, object]]:
    sharding = layer.arguments
    if not isinstance(sharding, Sharding) or not sharding.targets:
        yield {}  # who says what is wrong is `relay`
        return
    if not isinstance(sharding.by, str):
        raise Unable("a function finds the key; give the name of a field")
    shards = [Address(*target) for target in sharding.targets if not callable(target)]
    if len(shards) != len(sharding.targets):
        raise Unable("a shard is a function of this program; give addresses")
    if serving.address[0] == _EVERY_ADDRESS:
        raise Unable("the server listens at all addresses; give it that of one interface")
    program: SteeringProgram | None = None
    try:
        try:
            SteeringProgram.check_first(sharding.by, shards)
            attaching.interface_with(serving.address[0])
            program = SteeringProgram(Address(*serving.address), sharding.by, shards)
            program.attach()
            here = steering.Steering(serving, sharding, shards, program)
        except XdpUnavailable as refusal:
            raise Unable(f"{refusal.reason}; {refusal.mend}") from None
        except OSError as error:
            raise Unable(str(error)) from None
        serving.nursery.start_soon(here.watch)
        try:
            yield {"_steering": here}
        finally:
            here.count()
    finally:
        if program is not None:
            program.close()


xdp = Implementation(
    SHARD, "xdp", steering.wrap, ends=Ends.SERVER, scope=Scope.HOST, apart=Scope.LOCAL_NETWORK,
    priority=30, over=steering.OVER, listen=_listen, admit=steering.admit,
)  # fmt: skip
