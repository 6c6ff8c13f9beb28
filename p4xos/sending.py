"""The sending half of a UDP endpoint: many datagrams a call, and what cannot leave is counted.

UDP_SEGMENT makes one send of up to 128 rows of one stride, and where a batch makes several sends,
to several addresses, sendmmsg makes one call of those. Where the kernel or an interface cannot do
this the same bytes travel by one call each.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
import struct
from collections.abc import Sequence

import numpy as np

from p4xos import multi_message
from p4xos.multi_message import SendPlan, pack_address
from p4xos.udp_socket import OUR_BUGS, SOL_UDP, UDP_SEGMENT, Address
from p4xos.wire import HEADER_BYTES, Rows

DATAGRAM_BYTES_MAX = 65_507
"""The largest UDP payload over IPv4."""
SEND_BYTES_MAX = 65_536 - 18 - 40 - 8
"""The most that one segmented send carries. With Ethernet (and a VLAN tag), IPv6 and UDP headers it
must stay within an interface's 65,536: the kernel takes more, up to DATAGRAM_BYTES_MAX, but cuts it
into single datagrams on the way, and each then costs the receiver a call."""
TOGETHER = 3
"""Segmented sends from which on they share a call; fewer are sooner made one by one."""
REMEMBERED_MAX = 4096
"""Addresses and plans remembered; past it the memory starts afresh."""
LOST = {
    errno.EAGAIN: "send_full",
    errno.ENOBUFS: "send_full",
    errno.ENOMEM: "send_full",
    errno.EPERM: "send_forbidden",
    errno.EACCES: "send_forbidden",
    errno.ENETUNREACH: "send_unreachable",
    errno.EHOSTUNREACH: "send_unreachable",
    errno.ENETDOWN: "send_unreachable",
    errno.EHOSTDOWN: "send_unreachable",
    errno.EADDRNOTAVAIL: "send_unreachable",
    errno.EMSGSIZE: "send_too_large",
    errno.ECONNREFUSED: "send_refused",
}
SEGMENTATION_REFUSED = (errno.EIO, errno.EINVAL, errno.EMSGSIZE)

assert SEND_BYTES_MAX <= DATAGRAM_BYTES_MAX

Control = list[tuple[int, int, bytes]]

log = logging.getLogger(__name__)


class Sender:
    """Sends batches of rows from a socket."""

    def __init__(
        self, bound: socket.socket, segments_max: int, counters: dict[str, int]
    ) -> None:
        """Ready to send.

        Args:
          bound: not blocking.
          segments_max: datagrams of one segmented send; below 2 each is sent by itself.
          counters: those of the endpoint, increased in place.
        """
        self.socket = bound
        self._segments_max = segments_max
        self._counters = counters
        # Strides at or above this go as single datagrams; it only falls, when an interface refuses.
        self._offload_below = DATAGRAM_BYTES_MAX if segments_max > 1 else 0
        self._controls: dict[int, tuple[int, Control]] = {}  # by stride: rows a call, its control
        self._plans: dict[tuple[int, Sequence[Address]], SendPlan | None] = {}
        self._numeric: set[Address] = set()
        self._strides_too_large: set[int] = set()

    @property
    def offload(self) -> bool:
        """Whether sends still go out segmented; turns False when an interface refuses them."""
        return self._offload_below > HEADER_BYTES

    def send(self, rows: Rows, addresses: Sequence[Address]) -> None:
        """As `UdpEndpoint.send`."""
        count, stride = rows.shape
        for address in addresses:
            if address not in self._numeric:
                self._check_address(address)
        if not rows.flags.c_contiguous:
            rows = np.ascontiguousarray(rows)
        step, control = self._controls.get(stride) or self._control(stride)
        if count <= 1 or step <= 1:
            self._send_single(rows.data, stride, addresses)
            return
        if (count + step - 1) // step * len(addresses) >= TOGETHER:
            plan = self._plan(stride, step, tuple(addresses))
            if plan is not None:
                self._send_together(plan, rows, step, addresses)
                return
        data = rows.data
        chunks = [data]
        if count > step:
            chunks = [data[start : start + step] for start in range(0, count, step)]
        sendmsg = self.socket.sendmsg
        sent = calls = 0
        # Chunks outside, addresses inside: all acceptors start on the first chunk at once.
        for chunk in chunks:
            for address in addresses:
                calls += 1
                try:
                    sendmsg((chunk,), control, 0, address)
                except OSError as error:
                    self._chunk_failed(error, chunk, stride, address)
                else:
                    sent += len(chunk)
        self._counters["sent"] += sent
        self._counters["send_calls"] += calls

    def _send_together(
        self, plan: SendPlan, rows: Rows, step: int, addresses: Sequence[Address]
    ) -> None:
        """The same sends in the same order, as many of them in one call as it takes."""
        stride, width = rows.shape[1], len(addresses)
        for start in range(0, len(rows), plan.chunks_max * step):
            part = rows[start : start + plan.chunks_max * step]
            end = plan.set(part)
            first = lost = 0
            while first < end:
                self._counters["send_calls"] += 1
                try:
                    first = plan.send(self.socket.fileno(), first, end)
                except OSError as error:
                    begin = first // width * step
                    chunk = part[begin : begin + step].data
                    lost += len(chunk)
                    self._chunk_failed(error, chunk, stride, addresses[first % width])
                    first += 1
            plan.reset(end)
            self._counters["sent"] += len(part) * width - lost

    def _plan(
        self, stride: int, step: int, addresses: tuple[Address, ...]
    ) -> SendPlan | None:
        """The headers for a stride and addresses; None where they must go one by one."""
        key = (stride, addresses)
        if key not in self._plans:
            if len(self._plans) >= REMEMBERED_MAX:
                self._plans.clear()
            packable = multi_message.available and all(map(pack_address, addresses))
            self._plans[key] = SendPlan(stride, step, addresses) if packable else None
        return self._plans[key]

    def _control(self, stride: int) -> tuple[int, Control]:
        """How rows of a stride are sent from now on; remembered until an interface refuses."""
        step = min(SEND_BYTES_MAX // stride, self._segments_max)
        if stride >= self._offload_below:
            step = 1
        # Given with each call rather than set on the socket: a segment size on the socket also
        # keeps single datagrams above an interface's MTU from being sent at all.
        control = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", stride))] if step > 1 else []
        self._controls[stride] = (step, control)
        return step, control

    def _send_single(self, data: memoryview, stride: int, addresses: Sequence[Address]) -> int:
        """Sends each row by its own call; returns how many datagrams left."""
        sendto = self.socket.sendto
        sent = calls = 0
        for k in range(len(data)):
            row = data[k : k + 1]
            for address in addresses:
                calls += 1
                try:
                    sendto(row, address)
                except OSError as error:
                    self._lost(error, 1, stride)
                else:
                    sent += 1
        self._counters["sent"] += sent
        self._counters["send_calls"] += calls
        return sent

    def _chunk_failed(
        self, error: OSError, chunk: memoryview, stride: int, address: Address
    ) -> None:
        """Counts a chunk as lost; or, if it is the segmentation that failed, does without it."""
        if error.errno not in SEGMENTATION_REFUSED:
            self._lost(error, len(chunk), stride)
            return
        # EINVAL is also what an address with port 0 gives, which any peer can make us answer: only
        # when single datagrams do leave was segmentation the reason.
        if self._send_single(chunk, stride, (address,)):
            self._counters["offload_fallback"] += 1
            # EIO: the interface cannot do it. The others: not for a stride above its MTU.
            limit = 0 if error.errno == errno.EIO else stride
            self._offload_below = min(self._offload_below, limit)
            self._controls.clear()
            self._plans.clear()
            log.warning(
                "segmented sends of %d bytes each refused by the interface towards %s (%s); "
                "sending such datagrams one by one from now on",
                stride,
                address[0],
                error.strerror,
            )

    def _lost(self, error: OSError, datagrams: int, stride: int) -> None:
        if error.errno in OUR_BUGS:
            raise error
        reason = LOST.get(error.errno or 0, "send_failed")
        self._counters[reason] += datagrams
        if reason == "send_too_large" and stride not in self._strides_too_large:
            # Once a stride: no retry will ever deliver such a datagram.
            self._strides_too_large.add(stride)
            log.error(
                "datagrams of %d bytes are too large for UDP or the path and never arrive; "
                "lower the largest value, or raise the MTU",
                stride,
            )

    def _check_address(self, address: Address) -> None:
        """Raises ValueError unless `sendto` takes the address without a look-up; remembers it."""
        host, port = address
        try:
            version = ipaddress.ip_address(host).version
        except ValueError:
            raise ValueError(f"{host!r} is not a numeric address: resolve it first") from None
        if (version == 6) != (self.socket.family == socket.AF_INET6):
            own = self.socket.getsockname()[0]
            raise ValueError(f"{host} is of another address family than {own}")
        if not 0 <= port <= 0xFFFF:
            raise ValueError(f"port {port} of {host} is outside 0 to 65535")
        if len(self._numeric) >= REMEMBERED_MAX:
            self._numeric.clear()
        self._numeric.add(address)
