"""What fails: an address that cannot be had is explained, what cannot leave is counted."""

from __future__ import annotations

import errno
import logging
import socket
from typing import Any

import pytest

from p4xos.errors import P4xosError
from p4xos.net import COUNTERS, UdpEndpoint
from p4xos.receiving import RECEIVE_CALLS_MAX
from p4xos.udp_socket import SO_RCVBUFFORCE, BindFailed, grant, probe_segments
from tests.net.loopback import LOCAL, FailingSocket, collect, some_rows, wait

IP_RECVERR = 11


def test_a_port_in_use_is_named_with_its_mend() -> None:
    with UdpEndpoint.bind(LOCAL) as first:
        host, port = first.address
        with pytest.raises(BindFailed, match=f"{host} port {port}: the port is in use; stop its"):
            UdpEndpoint.bind(first.address)
    UdpEndpoint.bind(first.address).close()


def test_an_address_of_no_interface_is_named_with_its_mend() -> None:
    with pytest.raises(P4xosError, match=r"192\.0\.2\.1 port 0: no interface here.*choose one"):
        UdpEndpoint.bind(("192.0.2.1", 0))


def test_a_host_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "planned")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(BindFailed, match=r"'nowhere' does not resolve \(planned\); give an IPv4"):
        UdpEndpoint.bind(("nowhere", 0))


def test_required_offload_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p4xos.net.probe_segments", lambda: 0)
    with pytest.raises(BindFailed, match="no UDP_SEGMENT"):
        UdpEndpoint.bind(LOCAL, offload=True)
    with UdpEndpoint.bind(LOCAL) as endpoint:
        assert not endpoint.offload


@pytest.mark.parametrize(
    ("address", "sizes"),
    [
        (("127.0.0.1", 65_536), {}),
        (("127.0.0.1", -1), {}),
        (LOCAL, {"receive_buffer_bytes": 0}),
        (LOCAL, {"arena_bytes": 65_528}),
        (LOCAL, {"arena_bytes": 65_537}),
    ],
)
def test_a_callers_mistake_is_a_value_error(address: Any, sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"outside|give"):
        UdpEndpoint.bind(address, **sizes)


@pytest.mark.parametrize("address", [("localhost", 9), ("::1", 9), ("127.0.0.1", 70_000)])
def test_an_address_that_would_need_a_look_up_is_refused(address: tuple[str, int]) -> None:
    with UdpEndpoint.bind(LOCAL) as endpoint, pytest.raises(ValueError, match=address[0]):
        endpoint.send(some_rows(1, 64), [address])


def test_the_receive_buffer_is_what_was_granted() -> None:
    with UdpEndpoint.bind(LOCAL, receive_buffer_bytes=100_000) as endpoint:
        assert endpoint.receive_buffer_bytes == 100_000


def test_without_privileges_the_buffer_is_asked_for() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inner:

        def unprivileged(level: int, option: int, value: int) -> None:
            if option == SO_RCVBUFFORCE:
                raise PermissionError(errno.EPERM, "planned")
            inner.setsockopt(level, option, value)

        refused: Any = FailingSocket(inner, setsockopt=unprivileged)
        assert grant(refused, SO_RCVBUFFORCE, socket.SO_RCVBUF, 50_000) == 50_000


def test_counters_have_fixed_keys_from_the_start() -> None:
    with UdpEndpoint.bind(LOCAL) as endpoint:
        assert endpoint.counters == dict.fromkeys(COUNTERS, 0)
        endpoint.send(some_rows(5, 64), [endpoint.address])
        collect(endpoint, 5)
        assert tuple(endpoint.counters) == COUNTERS


def test_a_closed_peer_disturbs_nothing() -> None:
    with UdpEndpoint.bind(LOCAL) as closed:
        pass
    with UdpEndpoint.bind(LOCAL) as sender, UdpEndpoint.bind(LOCAL) as peer:
        for _ in range(5):
            sender.send(some_rows(3, 64), [closed.address, peer.address])
        peer.send(some_rows(2, 64), [sender.address])
        assert len(collect(peer, 15)) == 15
        assert len(collect(sender, 2)) == 2


def test_icmp_refusals_that_are_reported_are_counted() -> None:
    with UdpEndpoint.bind(LOCAL) as closed:
        pass
    with UdpEndpoint.bind(LOCAL) as sender:
        # A system can be made to report them to unconnected sockets too.
        sender._socket.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        sender.send(some_rows(1, 64), [closed.address])
        wait(sender)
        assert sender.receive_nowait() == []
        assert sender.counters["receive_refused"] == 1
        sender.send(some_rows(1, 64), [closed.address])
    # Its error queue keeps that socket readable, so the other half takes a new one.
    with UdpEndpoint.bind(LOCAL) as sender:
        sender._socket.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        sender.send(some_rows(1, 64), [closed.address])
        wait(sender)
        sender.send(some_rows(1, 64), [closed.address])
        assert sender.counters["send_refused"] == 1


@pytest.mark.parametrize("offload", [None, False])
@pytest.mark.parametrize(
    ("error", "counter"),
    [
        (errno.EAGAIN, "send_full"),
        (errno.ENOBUFS, "send_full"),
        (errno.EPERM, "send_forbidden"),
        (errno.ENETUNREACH, "send_unreachable"),
        (errno.EHOSTUNREACH, "send_unreachable"),
        (errno.ECONNREFUSED, "send_refused"),
        (errno.EINVAL, "send_failed"),
        (errno.EPROTO, "send_failed"),
    ],
)
def test_what_cannot_leave_is_counted_as_lost(
    monkeypatch: pytest.MonkeyPatch, offload: bool | None, error: int, counter: str
) -> None:
    with UdpEndpoint.bind(LOCAL, offload=offload) as endpoint:
        real = endpoint._socket
        failing = FailingSocket(real, sendmsg=error, sendto=error)
        monkeypatch.setattr(endpoint._sender, "socket", failing)
        endpoint.send(some_rows(10, 64), [endpoint.address, endpoint.address])
        assert endpoint.counters[counter] == 20
        assert endpoint.counters["sent"] == 0
        assert endpoint.offload == bool(endpoint.segments_max)


def test_port_0_of_a_source_loses_datagrams_and_not_the_offload() -> None:
    with UdpEndpoint.bind(LOCAL) as endpoint:
        endpoint.send(some_rows(10, 64), [("127.0.0.1", 0)])
        assert endpoint.counters["send_failed"] == 10
        assert endpoint.offload == bool(probe_segments())


@pytest.mark.parametrize("stride", [65_512, 70_000])
def test_too_large_is_counted_and_logged_once_a_stride(
    caplog: pytest.LogCaptureFixture, stride: int
) -> None:
    with UdpEndpoint.bind(LOCAL) as endpoint, caplog.at_level(logging.ERROR, "p4xos.sending"):
        for _ in range(2):
            endpoint.send(some_rows(2, stride), [endpoint.address])
        assert endpoint.counters["send_too_large"] == 4
        assert [record.args for record in caplog.records] == [(stride,)]


@pytest.mark.parametrize(
    ("error", "wide", "narrow"),
    [(errno.EIO, False, False), (errno.EINVAL, False, True), (errno.EMSGSIZE, False, True)],
)
def test_an_interface_that_refuses_segmentation_gets_single_datagrams(
    monkeypatch: pytest.MonkeyPatch, error: int, wide: bool, narrow: bool
) -> None:
    """EIO is for good; the others say that the stride is above the interface's MTU."""
    if not probe_segments():
        pytest.skip("this kernel has no UDP_SEGMENT and UDP_GRO")
    with UdpEndpoint.bind(LOCAL) as sender, UdpEndpoint.bind(LOCAL) as receiver:
        real = sender._socket
        monkeypatch.setattr(sender._sender, "socket", FailingSocket(real, sendmsg=error))
        rows = some_rows(10, 128)
        sender.send(rows, [receiver.address])
        assert [row for row, _ in collect(receiver, 10)] == [row.tobytes() for row in rows]
        assert sender.counters["offload_fallback"] == 1
        assert sender.offload == narrow
        monkeypatch.setattr(sender._sender, "socket", real)
        for stride, segmented in ((136, wide), (128, wide), (64, narrow)):
            before = sender.counters["send_calls"]
            sender.send(some_rows(10, stride), [receiver.address])
            assert len(collect(receiver, 10)) == 10
            assert sender.counters["send_calls"] == before + (1 if segmented else 10)


@pytest.mark.parametrize("flag", [socket.MSG_TRUNC, socket.MSG_CTRUNC])
def test_truncated_receives_are_dropped_and_a_drain_is_bounded(
    monkeypatch: pytest.MonkeyPatch, flag: int
) -> None:
    with UdpEndpoint.bind(LOCAL) as endpoint:

        def truncated(*_: object) -> tuple[int, list[object], int, tuple[str, int]]:
            return 64, [], flag, ("127.0.0.1", 9)

        failing = FailingSocket(endpoint._socket, recvmsg_into=truncated)
        monkeypatch.setattr(endpoint._receiver, "socket", failing)
        assert endpoint.receive_nowait() == []
        assert endpoint.counters["receive_truncated"] == RECEIVE_CALLS_MAX


def test_other_receive_errors_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    with UdpEndpoint.bind(LOCAL) as endpoint:
        failing = FailingSocket(endpoint._socket, recvmsg_into=errno.ENETDOWN)
        monkeypatch.setattr(endpoint._receiver, "socket", failing)
        assert endpoint.receive_nowait() == []
        assert endpoint.counters["receive_failed"] == RECEIVE_CALLS_MAX


def test_use_after_close_is_our_bug() -> None:
    endpoint = UdpEndpoint.bind(LOCAL)
    address = endpoint.address
    endpoint.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        endpoint.receive_nowait()
    with pytest.raises(OSError, match="Bad file descriptor"):
        endpoint.send(some_rows(1, 64), [address])


def test_overflow_of_the_receive_buffer_is_known() -> None:
    with (
        UdpEndpoint.bind(LOCAL, receive_buffer_bytes=4096) as receiver,
        UdpEndpoint.bind(LOCAL, offload=False) as sender,
    ):
        assert receiver.overflow() == 0
        for _ in range(100):
            sender.send(some_rows(20, 1024), [receiver.address])
        assert sender.counters["sent"] == 2000
        assert receiver.overflow() > 0
