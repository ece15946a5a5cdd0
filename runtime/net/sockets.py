"""Sockets of the calling thread's network namespace."""

from __future__ import annotations

import socket

from runtime.net import bpf
from runtime.net.engine.datagrams import (
    IP_ORIGDSTADDR,
    IP_PKTINFO,
    IP_TRANSPARENT,
    IPV6_ORIGDSTADDR,
    IPV6_RECVPKTINFO,
    IPV6_TRANSPARENT,
)
from runtime.net.engine.packet import FRAGMENT
from runtime.net.plan import DNS_PORT

BACKLOG = 128
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; what it is given is doubled
_FRAGMENTS_BYTES = 1 << 20
IP_RECVTTL, IPV6_RECVHOPLIMIT = 12, 51
ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD  # linux/if_ether.h


def listen(address: str, port: int, *, transparent: bool = False) -> socket.socket:
    """A TCP listener in the calling thread's network namespace; transparent for TPROXY. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if transparent and family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        elif transparent:
            listener.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def bind_udp(address: str, port: int, *, shared: bool = False) -> socket.socket:
    """A UDP socket in the calling thread's network namespace; shared: others may have the port too. Raises OSError.

    Of each datagram it says which of a host's several addresses was asked, as the answer has to come from there. From
    the beginning: the kernel forgets it of those that came before (net/ipv4/ip_sockglue.c, ipv4_pktinfo_prepare).
    """
    bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        else:
            bound.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, shared)
        bound.bind((address, port))
    except BaseException:
        bound.close()
        raise
    return bound


def catch_udp(address: str) -> socket.socket:
    """A UDP socket for TPROXY, which tells of each datagram where it was meant to go. Raises OSError."""
    caught = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    if ":" in address:
        options = [(socket.IPPROTO_IPV6, option) for option in (IPV6_TRANSPARENT, IPV6_ORIGDSTADDR, IPV6_RECVHOPLIMIT)]
    else:
        options = [(socket.IPPROTO_IP, option) for option in (IP_TRANSPARENT, IP_ORIGDSTADDR, IP_RECVTTL)]
    try:
        for level, option in options:
            caught.setsockopt(level, option, 1)
        caught.bind((address, 0))
    except BaseException:
        caught.close()
        raise
    return caught


def raw_sender(family: int) -> socket.socket:
    """A socket that sends whole IP packets within the calling thread's network namespace. Raises OSError.

    It receives nothing: that is what IPPROTO_RAW means. Source: raw(7).
    """
    return socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)


def tap_filter(gateway: str, zone: str) -> bytes:
    """A zone's bare SYNs and echo requests of one family, but those the kernel takes at the gateway: DNS and pings.

    Fragments and what is behind extension headers are none of them: see rules.py for what becomes of them.
    """
    own, others = _words(zone), _words(gateway)
    if len(own) > 1:
        lines: list[bpf.Line] = [("ldx", 40)]
        protocol, icmp, source, destination, request = 6, socket.IPPROTO_ICMPV6, 8, 24, 128
    else:
        lines = [("ldh", 6), ("jset", 0x3FFF, bpf.DROP, ""), ("ldx header", 0)]
        protocol, icmp, source, destination, request = 9, socket.IPPROTO_ICMP, 12, 16, 8
    for number, word in enumerate(own):
        lines += [("ld", source + 4 * number), ("jeq", word, "", bpf.DROP)]
    for number, word in enumerate(others):
        lines += [("ld", destination + 4 * number), ("jeq", word, "", "elsewhere")]
    lines += [
        *(("ldb", protocol), ("jeq", socket.IPPROTO_TCP, "", bpf.DROP)),
        *(("ldh x+", 2), ("jeq", DNS_PORT, bpf.DROP, "")),
        "elsewhere",
        *(("ldb", protocol), ("jeq", socket.IPPROTO_TCP, "tcp", ""), ("jeq", icmp, "", bpf.DROP)),
        *(("ldb x+", 0), ("jeq", request, bpf.TAKE, bpf.DROP)),
        "tcp",
        *(("ldb x+", 13), ("and", 0x17), ("jeq", 0x02, bpf.TAKE, bpf.DROP)),
    ]
    return bpf.assemble(lines)


def _words(address: str) -> list[int]:
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    return [int.from_bytes(packed[at : at + 4], "big") for at in range(0, len(packed), 4)]


def echo_filter(family: int, identifier: int) -> bytes:
    """Replies to echo requests with this identifier, and errors about them: nobody else's.

    A raw ICMP socket gets all that come to the host. IPv4 with the IP header, IPv6 without: raw(7), RFC 3542.
    """
    if family == socket.AF_INET:
        lines: list[bpf.Line] = [("ldx header", 0)]
        reply, first_error, inner, protocol, request = 0, 3, 20, socket.IPPROTO_ICMP, 8
        of_protocol, errors = 9, [11, 12]
    else:
        lines = [("ldx", 0)]
        reply, first_error, inner, protocol, request = 129, 1, 40, socket.IPPROTO_ICMPV6, 128
        of_protocol, errors = 6, [2, 3, 4]
    lines += [("ldb x+", 0), ("jeq", reply, "reply", "")]
    lines += [("jeq", kind, "error", "") for kind in errors]
    lines += [
        ("jeq", first_error, "error", bpf.DROP),
        "reply",
        *(("ldh x+", 4), ("jeq", identifier, bpf.TAKE, bpf.DROP)),
        "error",
        *(("ldb x+", 8 + of_protocol), ("jeq", protocol, "", bpf.DROP)),
        *(("ldb x+", 8 + inner), ("jeq", request, "", bpf.DROP)),
        *(("ldh x+", 8 + inner + 4), ("jeq", identifier, bpf.TAKE, bpf.DROP)),
    ]
    return bpf.assemble(lines)


def echo_socket(family: int, identifier: int) -> socket.socket:
    """A raw socket of the host for echo requests with one identifier. Raises OSError.

    Not a ping socket: /proc/sys/net/ipv4/ping_group_range, which is the host's, may forbid those even to root.
    """
    v6 = family == socket.AF_INET6
    made = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP)
    try:
        bpf.attach(made, echo_filter(family, identifier))
    except BaseException:
        made.close()
        raise
    return made


def tap(device: str, gateway: str, zone: str) -> socket.socket:
    """A packet socket that takes what tap_filter says from what comes in on a device. Raises OSError.

    On a bridge it sees what the bridge's guard has let through; bound to one protocol, never what leaves.
    Source: packet(7); net/core/dev.c, __netif_receive_skb_core.
    """
    return _packets(device, zone, tap_filter(gateway, zone))


def fragment_filter(zone: str) -> bytes:
    """A zone's fragments of one family, without IP options or other extension headers."""
    own = _words(zone)
    if len(own) > 1:
        lines: list[bpf.Line] = [("ldb", 6), ("jeq", FRAGMENT, "", bpf.DROP)]
        source = 8
    else:
        lines = [("ldh", 6), ("jset", 0x3FFF, "", bpf.DROP)]
        source = 12
    for number, word in enumerate(own):
        lines += [("ld", source + 4 * number), ("jeq", word, "", bpf.DROP)]
    return bpf.assemble(lines)


def fragments_tap(device: str, zone: str) -> socket.socket:
    """See tap, for what fragment_filter says: a few of the largest packets at once. Raises OSError."""
    made = _packets(device, zone, fragment_filter(zone))
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _FRAGMENTS_BYTES // 2)
    return made


def _packets(device: str, zone: str, program: bytes) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)  # 0: nothing arrives before bind
    try:
        bpf.attach(made, program)
        made.bind((device, ETH_P_IPV6 if ":" in zone else ETH_P_IP))
    except BaseException:
        made.close()
        raise
    return made
