"""What a zone may put on its wire, by the frame: what is wrong gets neither behind the guard nor out of this host."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import struct
from collections.abc import Iterator

import pytest
from support.networld import OUTSIDE4, OUTSIDE6, World, digest_then_echo, receive_all
from support.packets import ends, icmp, ip, plain_sum, pseudo, syn

from runtime.net.addresses import GATEWAY_MAC, plan_addresses

pytestmark = pytest.mark.root

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
    port: int = 9,
    length: int | None = None,
    checksum: int | None = None,
) -> bytes:
    """A UDP header and its data, from port 40000 of the zone."""
    source, far = ends(v6)
    size = 8 + len(data)
    head = struct.pack("!HHH", 40000, port, size if length is None else length)
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


class Wire:
    """The zone's end of its link, and what is seen behind it: at the bridge, and where the host's packets leave."""

    def __init__(self, world: World, netns: str) -> None:
        self.world, self._marks = world, 0
        self.zone = self._tap(world.zone, "eth0")
        self.bridge = self._tap(netns, "zw0")
        self.left = self._tap(world.host, "up0")

    def _tap(self, name: str, device: str) -> socket.socket:
        made = self.world.of(name, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
        made.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
        made.bind((device, 3))
        made.settimeout(10)
        self.world.stack.callback(made.close)
        return made

    def behind(self, sent: bytes) -> tuple[list[bytes], list[bytes]]:
        """(frames that the bridge was given, frames that left the host) because of one of the zone's."""
        self.zone.send(sent)
        self._marks += 1
        mark = b"mark %d." % self._marks
        self.zone.send(frame(packet4(UDP, udp(mark, port=MARK_PORT))))
        return self._until(self.bridge, mark), self._until(self.left, mark)

    def _until(self, tap: socket.socket, mark: bytes) -> list[bytes]:
        seen: list[bytes] = []
        while True:
            data, origin = tap.recvfrom(65536)
            if mark in data:
                return seen
            outgoing = origin[2] == socket.PACKET_OUTGOING
            if outgoing == (tap is self.left):
                seen.append(data)


@pytest.fixture
def wire(world: World) -> Iterator[Wire]:
    network = world.up()
    world.meet()
    yield Wire(world, network.netns)
    assert network.counters()["faults"] == 0
    port = world.serve(world.outside, OUTSIDE4, 0, digest_then_echo)
    with world.connect(OUTSIDE4, port) as connection:
        connection.sendall(b"still here")
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection)[32:] == b"still here"


def test_frames_that_the_guard_refuses_reach_nobody(wire: Wire) -> None:
    passed = {name for name, sent in REFUSED.items() if sent in wire.behind(sent)[0]}
    assert not passed
    assert wire.behind(frame(packet4()))[0] == [frame(packet4())], "what is right does"


def of_the_zones(frames: list[bytes]) -> list[bytes]:
    """UDP and TCP to the ports that the tables' packets are for; not what host and outside say of themselves."""
    found = []
    for each in frames:
        kind = int.from_bytes(each[12:14], "big")
        protocol, at = (each[23], 34) if kind == IP4 else (each[20], 54) if kind == IP6 else (0, 0)
        if protocol in (TCP, UDP) and each[at + 2 : at + 4] in (struct.pack("!H", 9), struct.pack("!H", 443)):
            found.append(each)
    return found


def test_packets_that_are_none_do_not_leave_the_host(wire: Wire) -> None:
    left = {name for name, sent in USELESS.items() if of_the_zones(wire.behind(sent)[1])}
    assert not left
    assert of_the_zones(wire.behind(frame(packet4()))[1]), "what is right does"


SYN_OPTIONS = {
    "length 0": b"\x02\x00\x05\xb4",
    "length 1": b"\x02\x01\x05\xb4",
    "length 255": b"\x02\xff\x05\xb4",
    "MSS 0": b"\x02\x04\x00\x00",
    "MSS 1": b"\x02\x04\x00\x01",
    "MSS 65,535": b"\x02\x04\xff\xff",
    "window scale 14": b"\x03\x03\x0e\x00",
    "window scale 255": b"\x03\x03\xff\x00",
    "nothing but padding": bytes(40),
    "forty of one byte": b"\x01" * 40,
    "the same, again and again": b"\x02\x04\x05\xb4" * 10,
    "unknown": b"\xfd\x28" + bytes(38),
}


@pytest.mark.parametrize("v6", [False, True])
def test_options_of_a_syn_end_nothing(wire: Wire, v6: bool) -> None:
    """Each is a connect of its own, to a port that refuses: the zone hears the RST, whatever it put there."""
    kind = IP6 if v6 else IP4
    wire.zone.settimeout(10)
    for number, options in enumerate(SYN_OPTIONS.values()):
        source, far = ends(v6)
        offset = (20 + len(options)) // 4 << 4
        head = struct.pack("!HHIIBBHHH", 50000 + number, 443, 7, 0, offset, 2, 64240, 0, 0) + options
        checksum = struct.pack("!H", plain_sum(pseudo(source, far, len(head), TCP) + head))
        wire.zone.send(frame(ip(source, far, TCP, head[:16] + checksum + head[18:]), kind=kind))
        at = 54 if v6 else 34
        while True:
            got = wire.zone.recv(65536)
            back = got[:6] == MAC and int.from_bytes(got[12:14], "big") == kind
            if back and got[at : at + 4] == struct.pack("!HH", 443, 50000 + number):
                assert got[at + 13] & 0x04
                break


def test_reset_outside_the_window_and_a_window_that_stays_closed_end_no_connection(wire: Wire) -> None:
    world = wire.world
    port = world.serve(world.outside, OUTSIDE4, 0, digest_then_echo)
    with world.connect(OUTSIDE4, port) as connection:
        own = connection.getsockname()[1]
        connection.sendall(b"before ")
        for flags, window in ((4, 0), (0x14, 0), (2, 1000), (0x10, 0), (0x12, 9)):
            source, far = ends(False)
            head = struct.pack("!HHIIBBHHH", own, port, 0, 0, 0x50, flags, window, 0, 0)
            checksum = struct.pack("!H", plain_sum(pseudo(source, far, 20, TCP) + head))
            wire.behind(frame(ip(source, far, TCP, head[:16] + checksum + head[18:])))
        connection.sendall(b"after")
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection)[32:] == b"before after"


def test_fragments_that_overlap_do_not_make_a_datagram(wire: Wire) -> None:
    whole = udp(bytes(range(64)))
    for pieces in (
        [(0, whole[:40], True), (2, whole[16:], False)],
        [(0, whole[:24], True), (0, whole[:32], True), (4, whole[32:], False)],
    ):
        left = []
        for offset, data, more in pieces:
            sent = packet4(UDP, data, fragment=offset | (0x2000 if more else 0))
            sent = sent[:4] + struct.pack("!H", 900 + len(pieces)) + sent[6:10] + bytes(2) + sent[12:]
            sent = sent[:10] + struct.pack("!H", plain_sum(sent[:20])) + sent[12:]
            left += of_the_zones(wire.behind(frame(sent))[1])
        assert not left


@pytest.mark.parametrize("flags", [(1, 1), (0, 4), (1, 3), (1, 5), (1, 255), (1, 0x81), (0, 1)])
def test_gso_that_says_what_is_not_so_ends_nothing(wire: Wire, flags: tuple[int, int]) -> None:
    """A frame with the virtio header of a card; what the kernel itself refuses has been stopped even before."""
    raw = wire.world.in_zone(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    with raw:
        raw.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
        raw.bind(("eth0", 0))
        large = frame(packet4(UDP, udp(bytes(4000))))
        for size, sent in ((0, large), (1, large), (1448, frame(syn(data=bytes(3000)))), (65535, large)):
            for start in (0, 34, 60000):
                with contextlib.suppress(OSError):
                    raw.send(struct.pack("=BBHHHH", *flags, 54, size, start, 16) + sent)
    assert wire.behind(frame(packet4()))[0]


@pytest.mark.parametrize("size", [0, 13, 65550])
def test_frames_of_sizes_that_no_link_has_are_refused_by_the_link(wire: Wire, size: int) -> None:
    with pytest.raises(OSError):
        wire.zone.send((frame(packet4()) + bytes(size))[:size])
    assert wire.behind(frame(packet4()))[0]


@pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
def test_large_stream_arrives_byte_by_byte(world: World, address: str) -> None:
    world.network = world.new_network()
    world.up()
    data = random.Random(6).randbytes(24_000_011)
    port = world.serve(world.outside, address, 0, digest_then_echo)
    with world.connect(address, port) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        back = receive_all(connection)
    assert back[:32] == hashlib.sha256(data).digest()
    assert back[32:] == data
