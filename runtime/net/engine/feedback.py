"""What a zone is told of a destination that does not take it: RST, or the ICMP error a router would send.

Sent as whole IP packets by raw sockets of the network's namespace. An error that came from the outside keeps its type,
code and sender; one that the host's kernel found out (no route, no neighbour) comes from the gateway.
Source: linux/errqueue.h, include/net/icmp.h (icmp_err_convert), RFC 1812 section 5.2.7, RFC 4443 section 3.
"""

from __future__ import annotations

import errno
import socket
import struct
import time

from runtime.net.engine.packet import Syn, Trouble, error_about, fragments, reset_of
from runtime.net.netlink import Routes

IP_RECVERR, IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h
_EXTENDED_ERROR = struct.Struct("=IBBBxII")  # struct sock_extended_err: errno, origin, type, code, pad, info, data
_ORIGIN_LOCAL, _ORIGINS_ICMP = 1, (2, 3)
_ANCILLARY_BYTES = 512

ByFamily = dict[int, Trouble]
PROHIBITED: ByFamily = {socket.AF_INET: Trouble(3, 13), socket.AF_INET6: Trouble(1, 1)}
EXPIRED: ByFamily = {socket.AF_INET: Trouble(11, 0), socket.AF_INET6: Trouble(3, 0)}
PORT_UNREACHABLE: ByFamily = {socket.AF_INET: Trouble(3, 3), socket.AF_INET6: Trouble(1, 4)}
# What an errno of the host's kernel means, where no packet says it better.
_TROUBLES: dict[int, ByFamily] = {
    errno.ENETUNREACH: {socket.AF_INET: Trouble(3, 0), socket.AF_INET6: Trouble(1, 0)},
    errno.EHOSTUNREACH: {socket.AF_INET: Trouble(3, 1), socket.AF_INET6: Trouble(1, 3)},
    errno.ECONNREFUSED: PORT_UNREACHABLE,
    errno.EACCES: PROHIBITED,
    errno.EPERM: PROHIBITED,
}


def too_big(family: int, mtu: int) -> Trouble:
    """ "Fragmentation needed" or "packet too big"."""
    return Trouble(3, 4, mtu) if family == socket.AF_INET else Trouble(2, 0, mtu)


def trouble_of(code: int, family: int) -> Trouble | None:
    """What an errno of a connect or send means to the zone; None when it says nothing about the destination."""
    troubles = _TROUBLES.get(code)
    return troubles[family] if troubles is not None else None


def queue_errors(connection: socket.socket, family: int, *, wanted: bool) -> None:
    """Let a socket keep the ICMP errors that reach it, or no longer. Source: ip(7), IP_RECVERR."""
    if family == socket.AF_INET:
        connection.setsockopt(socket.IPPROTO_IP, IP_RECVERR, wanted)
    else:
        connection.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, wanted)


def next_error(connection: socket.socket) -> tuple[Trouble, bytes | None] | None:
    """The next error in a socket's queue, and who sent it; None when the queue is empty.

    Shape:   sender packed, or None where the host's own kernel found it out.
    """
    try:
        _, ancillary, _, _ = connection.recvmsg(0, _ANCILLARY_BYTES, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
    except OSError:
        return None
    for level, kind, data in ancillary:
        if (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
            return _read_error(data, connection.family)
    return None


def _read_error(data: bytes, family: int) -> tuple[Trouble, bytes | None] | None:
    if len(data) < _EXTENDED_ERROR.size:
        return None
    code, origin, kind, subcode, info, _ = _EXTENDED_ERROR.unpack_from(data)
    if origin in _ORIGINS_ICMP:
        # The offender follows as a struct sockaddr_in or sockaddr_in6.
        at, size = (4, 4) if family == socket.AF_INET else (8, 16)
        sender = data[_EXTENDED_ERROR.size + at :][:size]
        if (kind, subcode) != too_big(family, 0)[:2]:
            info = 0
        return Trouble(kind, subcode, info), sender if len(sender) == size and any(sender) else None
    if origin == _ORIGIN_LOCAL and code == errno.EMSGSIZE:
        return too_big(family, info), None
    found = trouble_of(code, family)
    return (found, None) if found is not None else None


class Feedback:
    """Sends to the zone, at most `errors_per_s` errors: a flood of datagrams to nowhere is not answered by another."""

    def __init__(
        self,
        raw4: socket.socket,
        raw6: socket.socket,
        gateways: tuple[str, str],
        routes: Routes,
        *,
        errors_per_s: int,
    ) -> None:
        gateway4, gateway6 = gateways
        self._identification = 0
        self._raw: dict[int, socket.socket] = {socket.AF_INET: raw4, socket.AF_INET6: raw6}
        self._gateway: dict[int, bytes] = {
            socket.AF_INET: socket.inet_pton(socket.AF_INET, gateway4),
            socket.AF_INET6: socket.inet_pton(socket.AF_INET6, gateway6),
        }
        self._routes = routes
        self._rate, self._left, self._filled = errors_per_s, float(errors_per_s), time.monotonic()
        for raw in self._raw.values():
            raw.setblocking(False)

    def send(self, family: int, packet: bytes, destination: str) -> None:
        """Send a whole IP packet within the namespace; one that cannot be sent is lost, as packets may be."""
        try:
            self._raw[family].sendto(packet, (destination, 0))
        except OSError:
            pass

    def send_in_fragments(self, family: int, packet: bytes, destination: str, mtu: int) -> None:
        """`send`, where a packet may be larger than the zone's link takes."""
        self._identification = self._identification % 0xFFFF + 1
        for piece in fragments(packet, mtu, self._identification):
            self.send(family, piece, destination)

    def refuse(self, syn: Syn) -> None:
        """Answer a SYN with a RST."""
        packet = reset_of(syn)
        self.send(syn.family, packet, _destination(packet))

    def error(self, family: int, quoted: bytes, trouble: Trouble, sender: bytes | None = None) -> bool:
        """Answer a packet of the zone with an ICMP error; False when there were too many of late."""
        now = time.monotonic()
        self._left = min(self._rate, self._left + (now - self._filled) * self._rate)
        self._filled = now
        if self._left < 1:
            return False
        self._left -= 1
        # The host's own addresses are nothing a zone need know: for it the gateway is this host.
        if sender is None or self._routes.route_type(sender) != "unicast":
            sender = self._gateway[family]
        packet = error_about(quoted, trouble, sender)
        self.send(family, packet, _destination(packet))
        return True


def _destination(packet: bytes) -> str:
    if packet[0] >> 4 == 4:
        return socket.inet_ntop(socket.AF_INET, packet[16:20])
    return socket.inet_ntop(socket.AF_INET6, packet[24:40])
