"""What a zone may put on its wire, by the frame: what is wrong gets neither behind the guard nor out of this host."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import struct
from collections.abc import Iterator

import pytest
from support.frames import IP4, IP6, MAC, MARK_PORT, REFUSED, TCP, UDP, USELESS, frame, packet4, packet6, udp
from support.networld import OUTSIDE4, OUTSIDE6, World, digest_then_echo, receive_all
from support.packets import ends, ip, plain_sum, pseudo, syn

pytestmark = pytest.mark.root


# The bridge itself, or the guard by the EtherType alone, before anybody asks whose they are.
UNCOUNTED = {"VLAN", "QinQ", "VLAN that ends there", "unknown EtherType", "length for an EtherType"}
UNCOUNTED |= {"multicast MAC as source"}


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


def test_frames_that_the_guard_refuses_reach_nobody_and_are_counted(wire: Wire) -> None:
    counted = wire.world.network.counters()["refused"]
    for name, sent in REFUSED.items():
        assert sent not in wire.behind(sent)[0], name
        now = wire.world.network.counters()["refused"]
        # The zone's own kernel says things to everybody, too.
        assert now > counted or name in UNCOUNTED, name
        counted = now
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
    # What is right does: no mark behind it, as the marks' flow is there already and may be served before a new one.
    wire.zone.send(frame(packet4()))
    while not of_the_zones([wire.left.recv(65536)]):
        pass


@pytest.mark.parametrize("v6", [False, True])
def test_datagram_from_port_0_takes_nobody_elses_place(wire: Wire, v6: bool) -> None:
    """A socket that is connected to port 0 is connected to any, as the kernel has it: net/ipv4/udp.c, compute_score."""
    address, family = (OUTSIDE6, socket.AF_INET6) if v6 else (OUTSIDE4, socket.AF_INET)
    world = wire.world
    with world.of(world.outside, lambda: socket.socket(family, socket.SOCK_DGRAM)) as server:
        server.settimeout(10)
        server.bind((address, 0))
        port = server.getsockname()[1]
        datagram = udp(b"from nowhere", v6=v6, origin=0, port=port)
        wire.behind(frame(packet6(UDP, datagram), kind=IP6) if v6 else frame(packet4(UDP, datagram)))
        with world.in_zone(lambda: socket.socket(family, socket.SOCK_DGRAM)) as client:
            client.settimeout(10)
            client.connect((address, port))
            client.send(b"from somebody")
            data, sender = server.recvfrom(99)
            server.sendto(b"answer", sender)
            assert (data, client.recv(99)) == (b"from somebody", b"answer")
    assert world.network.counters()["malformed"] == 1


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


@pytest.mark.parametrize(("address", "via"), [("192.0.2.9", OUTSIDE4), ("2001:db8:9::9", OUTSIDE6)])
def test_stream_passes_a_link_that_is_narrower_than_the_zones(world: World, address: str, via: str) -> None:
    """The path MTU of a connection is the host's to learn, from a router's ICMP while the stream runs."""
    world.behind_a_narrow_link(address)
    world.ip(world.host, f"route add {address} via {via}")
    # The far end offers what fits its own link; a segment of a host that believed more would not pass the router.
    world.ip(
        world.beyond,
        "route replace default via 192.0.2.1 advmss 1460",
        "route replace ::/0 via 2001:db8:9::1 advmss 1440",
    )
    world.up()
    world.meet()
    data = random.Random(7).randbytes(1_000_003)
    port = world.serve(world.beyond, address, 0, digest_then_echo)
    with world.connect(address, port) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection) == hashlib.sha256(data).digest() + data
    learned = world.shell(world.host, f"ip {'-6 ' if ':' in address else ''}route get {address}")
    assert "mtu 1300" in learned, "it was told so, and went on"
