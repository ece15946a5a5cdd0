"""Frames of a zone, by what is right or wrong with them."""

from __future__ import annotations

import socket
import struct

from runtime.net.addresses import GATEWAY_MAC, plan_addresses
from support.packets import corpus, ends, icmp, ip, plain_sum, pseudo, syn

OURS = plan_addresses(7)
MAC, GATEWAY = (bytes.fromhex(text.replace(":", "")) for text in (OURS.zone_mac, GATEWAY_MAC))
BROADCAST = b"\xff" * 6
IP4, IP6, ARP, VLAN, QINQ = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8
TCP, UDP, ICMP, ICMP6, HOP_BY_HOP, ROUTING, FRAGMENT, OPTIONS = 6, 17, 1, 58, 0, 43, 44, 60
MARK_PORT = 7000


def frame(payload: bytes, *, kind: int = IP4, source: bytes = MAC, to: bytes = GATEWAY) -> bytes:
    return to + source + struct.pack("!H", kind) + payload


def udp(
    data: bytes = b"datagram",
    *,
    v6: bool = False,
    origin: int = 40000,
    port: int = 9,
    length: int | None = None,
    checksum: int | None = None,
) -> bytes:
    """A UDP header and its data, from a port of the zone's."""
    source, far = ends(v6)
    size = 8 + len(data)
    head = struct.pack("!HHH", origin, port, size if length is None else length)
    right = plain_sum(pseudo(source, far, size, UDP) + head + bytes(2) + data) or 0xFFFF
    return head + struct.pack("!H", right if checksum is None else checksum) + data


def packet4(protocol: int = UDP, payload: bytes | None = None, **fields: int) -> bytes:
    """An IPv4 packet of the zone's with some fields of its header as they are given, and the checksum for them."""
    payload = udp() if payload is None else payload
    options = bytes(fields.get("options", 0))
    source, far = ends(False)
    version, ihl = fields.get("version", 4), fields.get("ihl", 5 + len(options) // 4)
    total = fields.get("total", 20 + len(options) + len(payload))
    fragment = fields.get("fragment", 0)
    head = (
        struct.pack("!BBHHHBBH", version << 4 | ihl, 0, total, 77, fragment, 64, protocol, 0) + source + far + options
    )
    checksum = fields.get("checksum", plain_sum(head))
    return head[:10] + struct.pack("!H", checksum) + head[12:] + payload


def packet6(protocol: int = UDP, payload: bytes | None = None, *, source: bytes | None = None) -> bytes:
    ours, far = ends(True)
    return ip(source or ours, far, protocol, udp(v6=True) if payload is None else payload)


def arp(
    *, operation: int = 1, mac: bytes = MAC, address: str = OURS.zone4, target: str = OURS.gateway4, sizes: int = 0x0604
) -> bytes:
    ends_of = (mac, socket.inet_aton(address), bytes(6), socket.inet_aton(target))
    return struct.pack("!HHHH", 1, IP4, sizes, operation) + b"".join(ends_of)


def discovery(kind: int, target: str, *, option: bytes = b"", source: str = OURS.zone6) -> bytes:
    """A neighbour solicitation or advertisement."""
    ours, far = (socket.inet_pton(socket.AF_INET6, text) for text in (source, OURS.gateway6))
    body = bytes(4) + socket.inet_pton(socket.AF_INET6, target) + option
    return ip(ours, far, ICMP6, icmp(kind, 0, body, ours, far), hops=255)


def chained(*kinds: int) -> bytes:
    """UDP behind these extension headers, each of 8 bytes."""
    following = [*kinds[1:], UDP]
    heads = b"".join(bytes([after, 0, 1, 4, 0, 0, 0, 0]) for after in following)
    return packet6(kinds[0], heads + udp(v6=True))


def fragment6(offset: int, data: bytes, *, more: bool, protocol: int = UDP) -> bytes:
    return packet6(FRAGMENT, struct.pack("!BBHI", protocol, 0, offset << 3 | more, 7) + data)


def flagged(flags: int, **more: bytes) -> bytes:
    return syn(flags=flags, **more)  # type: ignore[arg-type]


QUOTED = ip(ends(False)[0], ends(False)[1], UDP, udp())
OUR6, FAR6 = ends(True)
# What the guard drops: it never reaches the bridge.
REFUSED = {
    "another MAC": frame(packet4(), source=b"\x02" + MAC[1:]),
    "multicast MAC as source": frame(packet4(), source=b"\x01" + MAC[1:]),
    "source 0.0.0.0": frame(ip(bytes(4), ends(False)[1], UDP, udp())),
    "source ::": frame(packet6(source=bytes(16)), kind=IP6),
    "another IPv4 source": frame(ip(socket.inet_aton("10.75.7.3"), ends(False)[1], UDP, udp())),
    "gateway as IPv4 source": frame(ip(socket.inet_aton(OURS.gateway4), ends(False)[1], UDP, udp())),
    "loopback as IPv4 source": frame(ip(b"\x7f\0\0\1", ends(False)[1], UDP, udp())),
    "another IPv6 source": frame(packet6(source=OUR6[:15] + b"\x09"), kind=IP6),
    "link-local IPv6 source": frame(packet6(source=socket.inet_pton(socket.AF_INET6, OURS.zone_link_local)), kind=IP6),
    "DHCP": frame(ip(bytes(4), BROADCAST[:4], UDP, udp(port=67)), to=BROADCAST),
    "DHCP in the zone's own name": frame(ip(ends(False)[0], BROADCAST[:4], UDP, udp(port=67)), to=BROADCAST),
    "mDNS": frame(ip(ends(False)[0], b"\xe0\0\0\xfb", UDP, udp(port=5353)), to=b"\1\0\x5e\0\0\xfb"),
    "gratuitous ARP for the gateway": frame(arp(address=OURS.gateway4, target=OURS.gateway4), kind=ARP, to=BROADCAST),
    "ARP answer for another": frame(arp(operation=2, address="10.75.7.3"), kind=ARP),
    "ARP with another MAC inside": frame(arp(mac=b"\x02" + MAC[1:]), kind=ARP),
    "ARP, hlen 7": frame(arp(sizes=0x0704), kind=ARP),
    "ARP, plen 16": frame(arp(sizes=0x0610), kind=ARP),
    "ARP, lengths 0": frame(arp(sizes=0), kind=ARP),
    "ARP, operation 3": frame(arp(operation=3), kind=ARP),
    **{f"ARP cut to {size} bytes": frame(arp(), kind=ARP)[:size] for size in (14, 20, 28, 31)},
    "ND for another": frame(discovery(136, "fd5a:6f6e:6577:7::9"), kind=IP6),
    "ND, option length 0": frame(discovery(135, OURS.gateway6, option=b"\1\0" + MAC), kind=IP6),
    "ND, option longer than the packet": frame(discovery(135, OURS.gateway6, option=b"\1\xff" + MAC), kind=IP6),
    "ND, another MAC inside": frame(discovery(135, OURS.gateway6, option=b"\1\1\2" + MAC[1:]), kind=IP6),
    "router advertisement": frame(discovery(134, OURS.gateway6), kind=IP6),
    "redirect": frame(discovery(137, OURS.gateway6), kind=IP6),
    "hop-by-hop options": frame(chained(HOP_BY_HOP), kind=IP6),
    "routing header": frame(chained(ROUTING), kind=IP6),
    "chain of options": frame(chained(*[OPTIONS] * 20), kind=IP6),
    "chain that begins as a fragment": frame(
        packet6(FRAGMENT, struct.pack("!BBHI", OPTIONS, 0, 0, 7) + bytes([UDP, 0, 1, 4, 0, 0, 0, 0]) + udp(v6=True)),
        kind=IP6,
    ),
    "no next header": frame(packet6(59, b""), kind=IP6),
    "SCTP": frame(packet4(132, bytes(32))),
    "IPv6 in IPv4": frame(packet4(41, packet6())),
    "IPv4 options": frame(packet4(options=8)),
    "longest IPv4 header": frame(packet4(options=40)),
    "ihl 4": frame(packet4(ihl=4)),
    "ihl 0": frame(packet4(ihl=0)),
    "ihl beyond the packet": frame(packet4(ihl=15)),
    "TCP in fragments, the first": frame(packet4(TCP, syn()[20:], fragment=0x2000)),
    "TCP in fragments, the tiny first": frame(packet4(TCP, syn()[20:28], fragment=0x2000)),
    "TCP in fragments, a later one": frame(packet4(TCP, bytes(16), fragment=1)),
    "TCP in fragments, IPv6": frame(fragment6(0, syn(v6=True)[40:], more=True, protocol=TCP), kind=IP6),
    "ICMP error with forged packet inside": frame(packet4(ICMP, icmp(3, 3, bytes(4) + QUOTED, *ends(False)))),
    "ICMP redirect": frame(packet4(ICMP, icmp(5, 1, ends(False)[0] + QUOTED, *ends(False)))),
    "ICMPv6 packet too big": frame(packet6(ICMP6, icmp(2, 0, b"\0\0\5\0" + packet6(), OUR6, FAR6)), kind=IP6),
    "VLAN": frame(struct.pack("!HH", 5, IP4) + packet4(), kind=VLAN),
    "QinQ": frame(struct.pack("!HHHH", 5, VLAN, 6, IP4) + packet4(), kind=QINQ),
    "VLAN that ends there": frame(b"", kind=VLAN),
    "unknown EtherType": frame(packet4(), kind=0x1234),
    "length for an EtherType": frame(packet4(), kind=46),
    "nothing but a header": frame(b""),
}
# What the kernel itself has no use for, behind the guard or before it.
USELESS = {
    "version 0": frame(packet4(version=0)),
    "version 6 in an IPv4 frame": frame(packet4(version=6)),
    "version 15": frame(packet4(version=15)),
    "IPv4 in an IPv6 frame": frame(packet4(), kind=IP6),
    "header checksum": frame(packet4(checksum=0x1234)),
    "total length beyond the frame": frame(packet4(total=1400)),
    "total length below the header": frame(packet4(total=19)),
    "total length 0": frame(packet4(total=0)),
    "header cut off": frame(packet4()[:19]),
    "UDP length beyond the packet": frame(packet4(UDP, udp(length=900))),
    "UDP length 7": frame(packet4(UDP, udp(length=7))),
    "UDP checksum": frame(packet4(UDP, udp(checksum=0x1234))),
    "UDP without a checksum in IPv6": frame(packet6(UDP, udp(v6=True, checksum=0)), kind=IP6),
    "UDP header cut off": frame(packet4(UDP, udp()[:5])),
    "UDP from port 0": frame(packet4(UDP, udp(origin=0))),
    "UDP from port 0 in IPv6": frame(packet6(UDP, udp(v6=True, origin=0)), kind=IP6),
    "TCP data offset 0": frame(packet4(TCP, syn()[20:32] + b"\0\2" + syn()[34:])),
    "TCP data offset beyond the packet": frame(packet4(TCP, syn(options=b"")[20:32] + b"\xf0\2" + bytes(6))),
    "TCP without flags": frame(flagged(0)),
    "TCP with all flags": frame(flagged(0xFF)),
    "TCP, FIN alone": frame(flagged(1)),
    "TCP, SYN and FIN": frame(flagged(3)),
    "TCP, SYN and RST": frame(flagged(6)),
    "TCP, SYN and ACK": frame(flagged(0x12)),
    "TCP, an ACK of nothing": frame(flagged(0x10, sequence=0xFFFFFFF0)),  # type: ignore[arg-type]
    "TCP, a RST of nothing": frame(flagged(4)),
    "UDP fragment that is the last of nothing": frame(packet4(UDP, bytes(16), fragment=100)),
    "UDP fragment beyond 65,535": frame(packet4(UDP, bytes(64), fragment=0x1FFF)),
    "UDP fragment that goes on, not in eights": frame(packet4(UDP, bytes(13), fragment=0x2000)),
    "UDP, the tiny first fragment": frame(packet4(UDP, udp()[:8], fragment=0x2000)),
    "UDP fragment of IPv6 that never ends": frame(fragment6(0, udp(v6=True), more=True), kind=IP6),
    "UDP fragment of IPv6 beyond 65,535": frame(fragment6(0x1FFF, bytes(64), more=False), kind=IP6),
}


def right() -> list[bytes]:
    """One of each kind that a zone may send."""
    query = bytes.fromhex("00070100000100000000000003777777076578616d706c6500000100010000291000000000000000")
    whole = udp(bytes(range(64)))
    return [
        *(frame(data, kind=IP6 if data[0] >> 4 == 6 else IP4) for data in corpus()),
        frame(packet4(UDP, udp(query, port=53))),
        frame(packet4(UDP, whole[:40], fragment=0x2000)),
        frame(packet4(UDP, whole[40:], fragment=5)),
        frame(packet6(), kind=IP6),
        frame(fragment6(0, udp(v6=True)[:8], more=True), kind=IP6),
        frame(fragment6(1, udp(v6=True)[8:], more=False), kind=IP6),
        frame(arp(), kind=ARP, to=BROADCAST),
        frame(arp(operation=2), kind=ARP),
        frame(discovery(135, OURS.gateway6, option=b"\1\1" + MAC), kind=IP6),
        frame(discovery(136, OURS.zone6, option=b"\2\1" + MAC), kind=IP6),
    ]


def every() -> list[bytes]:
    """Right ones and wrong ones."""
    return [*right(), *REFUSED.values(), *USELESS.values()]
