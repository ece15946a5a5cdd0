"""The rtnetlink requests that are cheaper than a process: move a link, enslave it, ask for a route.

An `ip` process costs 0.1 to 1.5 s in an emulated dom0, and attaching the vif lies on the way of every boot.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from runtime.net.errors import NetworkFault

# Source: linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_bridge.h
NETLINK_ROUTE = 0
NLMSG_ERROR = 2
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_ECHO = 0x8
NLM_F_DUMP = 0x300
NLA_F_NESTED = 0x8000
RTM_SETLINK = 19
RTM_NEWROUTE = 24
RTM_GETROUTE = 26
RTM_NEWNEIGH = 28
NLM_F_REPLACE, NLM_F_CREATE = 0x100, 0x400
NUD_NOARP = 0x40  # for a bridge: an entry that stays, static
NTF_MASTER = 0x04
NDA_LLADDR = 2
RTA_DST, RTA_PREFSRC = 1, 7
IFLA_MTU = 4
IFLA_MASTER = 10
IFLA_PROTINFO = 12
IFLA_GROUP = 27
IFLA_NET_NS_FD = 28
IFLA_BRPORT_LEARNING = 8
IFLA_BRPORT_UNICAST_FLOOD = 9
IFF_UP = 0x1
AF_BRIDGE = 7
ROUTE_TYPES = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
}
# Links, addresses, routes and rules of both families; next hops. Source: linux/rtnetlink.h, RTMGRP_*, RTNLGRP_*.
_CHANGES = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18 | 1 << 31
_SO_MEMINFO = 55  # asm-generic/socket.h; of what it gives, the first is what waits to be received (linux/sock_diag.h)
_NEWS_BYTES = 16  # of a message the rest is lost, and nothing of it is looked at
_REMEMBERED = 1024
_ATTRIBUTE = struct.Struct("=HH")  # length, kind
_TYPE_MASK = 0x3FFF
_NLMSGHDR = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_IFINFOMSG = struct.Struct("=BxHiII")  # family, device type, index, flags, change mask
_NDMSG = struct.Struct("=BxxxiHBB")  # family, interface, state, flags, type
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and payload of each attribute."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def link_request(index: int, *attributes: bytes, family: int = 0, up: bool = False) -> bytes:
    """The body of a RTM_SETLINK: an ifinfomsg and its attributes."""
    flag = IFF_UP if up else 0
    return _IFINFOMSG.pack(family, 0, index, flag, flag) + b"".join(attributes)


class Route(NamedTuple):
    """Of the kernel's routing, for one destination.

    kind:    of ROUTE_TYPES; None where there is no route.
    source:  the address of this host that what is sent there comes from, packed.
    """

    kind: str | None
    source: bytes = b""


class Rtnetlink:
    """A socket to the kernel's routing of the network namespace this thread is in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def __enter__(self) -> Rtnetlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, kind: int, body: bytes, *, flags: int = NLM_F_ACK) -> tuple[int, bytes]:
        """Send one request, return type and body of its answer. Raises OSError with the kernel's errno."""
        self._sequence += 1
        length = _NLMSGHDR.size + len(body)
        self._socket.send(_NLMSGHDR.pack(length, kind, NLM_F_REQUEST | flags, self._sequence, 0) + body)
        while True:
            answer = self._socket.recv(65536)
            length, answer_kind, _, sequence, _ = _NLMSGHDR.unpack_from(answer)
            if sequence != self._sequence:
                continue  # the answer to a request whose caller gave up
            payload = answer[_NLMSGHDR.size : length]
            if answer_kind == NLMSG_ERROR:
                (code,) = struct.unpack_from("=i", payload)
                if code:
                    raise OSError(-code, os.strerror(-code))
            return answer_kind, payload

    def route(self, packed: bytes) -> Route:
        """What leads to an address (4 or 16 bytes)."""
        family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        body = _RTMSG.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_DST, packed)
        try:
            kind, payload = self.request(RTM_GETROUTE, body, flags=0)
        except OSError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
                return Route(None)
            if error.errno in (errno.EACCES, errno.EINVAL):
                return Route("prohibit")
            raise
        if kind != RTM_NEWROUTE:
            return Route(None)
        route = ROUTE_TYPES.get(_RTMSG.unpack_from(payload)[7], "unknown")
        source = dict(attributes(payload[_RTMSG.size :])).get(RTA_PREFSRC, b"")
        # IPv6 answers with its null route where IPv4 answers ENETUNREACH.
        return Route(None if route == "unreachable" else route, source)

    def route_type(self, packed: bytes) -> str | None:
        """See Route.kind."""
        return self.route(packed).kind


class Routes:
    """Routes, remembered until anything of the namespace's routing changes.

    The kernel puts word of a change into the sockets that want it before whoever made it returns; and a look whether
    there is any costs less than half of a question.
    """

    def __init__(self) -> None:
        self._kernel = Rtnetlink()
        self._news = listen_for_changes()
        self._known: dict[bytes, Route] = {}

    def close(self) -> None:
        """Give the sockets back."""
        self._kernel.close()
        self._news.close()

    def forget(self) -> None:
        """Remember none."""
        self._known.clear()

    def route(self, packed: bytes) -> Route:
        """See Rtnetlink.route."""
        if drain(self._news) or len(self._known) >= _REMEMBERED:
            self._known.clear()
        try:
            return self._known[packed]
        except KeyError:
            found = self._known[packed] = self._kernel.route(packed)
            return found

    def route_type(self, packed: bytes) -> str | None:
        """See Route.kind."""
        return self.route(packed).kind


def listen_for_changes() -> socket.socket:
    """A socket that becomes readable when anything of the calling thread's namespace's routing changes."""
    news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    news.setblocking(False)
    news.bind((0, _CHANGES))
    return news


def drain(news: socket.socket) -> bool:
    """Take all that has come of it; was there any?"""
    changed = False
    # Mostly there is none, and that is answered at a fifth of what it costs to be refused.
    while news.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO):
        try:
            news.recv(_NEWS_BYTES)
        except OSError:  # there was more than the queue holds
            pass
        changed = True
    return changed


def move_link(name: str, netns_fd: int) -> None:
    """Move a link of this thread's network namespace into another one. Raises NetworkFault."""
    try:
        index = socket.if_nametoindex(name)
    except OSError:
        raise NetworkFault(f"interface {name}", expected="it in this host's network", got="no such device") from None
    try:
        with Rtnetlink() as kernel:
            kernel.request(RTM_SETLINK, link_request(index, attribute(IFLA_NET_NS_FD, struct.pack("=I", netns_fd))))
    except OSError as error:
        raise NetworkFault(f"interface {name}", expected="it moved to its network", got=str(error)) from error


def enslave_link(name: str, bridge: str, mtu: int, *, group: int, mac: str) -> None:
    """Make a link a port of a bridge, both in this thread's network namespace, and bring it up; done again, a no-op.

    group:  by which rules know the port; set before it is one.
    mac:    of what is behind it. The bridge is told, and learns none by itself: a zone that sends from a million MACs
            would otherwise fill this host's memory with them. Frames for MACs of nobody go to no port.
    Raises:  NetworkFault.
    """
    try:
        with Rtnetlink() as kernel:
            index, master = socket.if_nametoindex(name), socket.if_nametoindex(bridge)
            attributes = (
                attribute(IFLA_MTU, struct.pack("=I", mtu)),
                attribute(IFLA_GROUP, struct.pack("=I", group)),
            )
            kernel.request(RTM_SETLINK, link_request(index, *attributes))
            kernel.request(RTM_SETLINK, link_request(index, attribute(IFLA_MASTER, struct.pack("=I", master))))
            off = attribute(IFLA_BRPORT_LEARNING, b"\0") + attribute(IFLA_BRPORT_UNICAST_FLOOD, b"\0")
            port = attribute(IFLA_PROTINFO | NLA_F_NESTED, off)
            kernel.request(RTM_SETLINK, link_request(index, port, family=AF_BRIDGE))
            entry = _NDMSG.pack(AF_BRIDGE, index, NUD_NOARP, NTF_MASTER, 0)
            entry += attribute(NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
            kernel.request(RTM_NEWNEIGH, entry, flags=NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
            kernel.request(RTM_SETLINK, link_request(index, up=True))
    except OSError as error:
        raise NetworkFault(f"interface {name}", expected=f"it as a port of {bridge}", got=str(error)) from error


def release_link(name: str) -> None:
    """Make a link of this thread's network namespace nobody's port; harmless where it is gone. Raises NetworkFault."""
    index = next((index for index, known in socket.if_nameindex() if known == name), None)
    if index is None:  # if_nametoindex would raise an error without a number
        return
    try:
        with Rtnetlink() as kernel:
            nobody = (attribute(IFLA_GROUP, bytes(4)), attribute(IFLA_MASTER, bytes(4)))
            kernel.request(RTM_SETLINK, link_request(index, *nobody))
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENXIO):
            raise NetworkFault(f"interface {name}", expected="it no port", got=str(error)) from error
