"""The few packets the engine reads and writes, right ones and damaged ones."""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import time
from collections.abc import Callable

import pytest
from support.frames import every
from support.fuzz import LONG
from support.networld import OUTSIDE4, World, digest_then_echo
from support.packets import (
    FAR4,
    FAR6,
    IDENTIFIER,
    OPTIONS,
    ZONE4,
    ZONE6,
    answer,
    corpus,
    damaged,
    echo,
    ends,
    icmp,
    ip,
    pieces,
    plain_sum,
    pseudo,
    syn,
)

from runtime.net import bpf, sockets
from runtime.net.addresses import plan_addresses
from runtime.net.engine import fragments, packet
from runtime.net.engine.packet import Trouble

BOTH = pytest.mark.parametrize("v6", [False, True])
GATEWAY4, GATEWAY6 = plan_addresses(7).gateway4, plan_addresses(7).gateway6


def test_checksum_is_that_of_the_rfc() -> None:
    dice = random.Random(1)
    for _ in range(2000):
        data = dice.randbytes(dice.randrange(1, 99))
        assert packet.checksum(data) % 0xFFFF == plain_sum(data) % 0xFFFF
    assert packet.checksum(b"\xff\xff") == 0


@BOTH
@pytest.mark.parametrize("data", [b"", b"x", b"early data"])
def test_syn_is_read_and_passed_on_unchanged(v6: bool, data: bytes) -> None:
    sent = syn(v6=v6, data=data)
    read = packet.read_syn(sent)
    assert read is not None
    assert (read.packet, read.host, read.port, read.hops) == (sent, FAR6 if v6 else FAR4, 443, 64)
    assert read.sequence == b"\x01\x02\x03\x04"
    zone, far = ends(v6)
    assert read.key == zone + far + struct.pack("!HH", 40000, 443)
    names = socket.inet_ntop(read.family, zone), socket.inet_ntop(read.family, far)
    assert packet.key_of((names[0], 40000), (names[1], 443)) == read.key


@BOTH
def test_syn_whose_checksum_was_left_to_the_card_gets_one_and_no_other_change(v6: bool) -> None:
    read = packet.read_syn(syn(v6=v6, partial=True) + b"\0\0")  # and padding of a short frame
    assert read is not None
    assert read.packet == syn(v6=v6)


@BOTH
@pytest.mark.parametrize("flags", [0, 1, 4, 0x10, 0x12, 3, 6, 0x3F])
def test_only_a_bare_syn_is_one(v6: bool, flags: int) -> None:
    assert packet.read_syn(syn(v6=v6, flags=flags)) is None


@BOTH
def test_syn_with_congestion_flags_is_one(v6: bool) -> None:
    assert packet.read_syn(syn(v6=v6, flags=0xC2)) is not None


@pytest.mark.parametrize("at", [0, 1, 2, 3, 6, 8, 9, 10, 13, 22, 32, 33, 36, 39, 41, 50])
def test_damaged_syn_is_none(at: int) -> None:
    sent = bytearray(syn())
    sent[at] ^= 0x21
    assert packet.read_syn(bytes(sent)) is None


@BOTH
def test_truncated_packets_are_none_at_every_length(v6: bool) -> None:
    for whole, read in ((syn(v6=v6), packet.read_syn), (echo(v6=v6), packet.read_echo)):
        assert [read(whole[:size]) for size in range(len(whole))] == [None] * len(whole)


@BOTH
@pytest.mark.parametrize("data", [b"", b"early"])
def test_reset_acknowledges_the_syn_and_all_it_brought(v6: bool, data: bytes) -> None:
    read = packet.read_syn(syn(v6=v6, data=data))
    assert read is not None
    sent = packet.reset_of(read)
    zone, far = ends(v6)
    head = 40 if v6 else 20
    segment = sent[head:]
    assert sent[head - len(zone) * 2 : head] == far + zone
    assert len(segment) == 20 and plain_sum(pseudo(far, zone, 20, 6) + segment) == 0
    source, destination, sequence, acknowledged, offset, flags = struct.unpack_from("!HHIIBB", segment)
    assert (source, destination, sequence, offset >> 4, flags) == (443, 40000, 0, 5, 0x14)
    assert acknowledged == 0x01020304 + 1 + len(data)


@BOTH
def test_error_quotes_the_packet_and_has_a_checksum(v6: bool) -> None:
    zone, far = ends(v6)
    sent = packet.error_about(syn(v6=v6), Trouble(3, 4, 1300), far)
    head = 40 if v6 else 20
    message = sent[head:]
    assert plain_sum((pseudo(far, zone, len(message), 58) if v6 else b"") + message) == 0
    assert struct.unpack_from("!BBHI", message)[0::3] == (3, 1300)
    assert message[8:] == syn(v6=v6)
    assert len(packet.error_about(ip(zone, far, 17, bytes(1400)), Trouble(3, 1), far)) <= (1280 if v6 else 576)


@BOTH
def test_datagram_is_quoted_by_its_headers(v6: bool) -> None:
    zone, far = ends(v6)
    quoted = packet.udp_quote(zone + far + struct.pack("!HH", 5000, 53), 1000)
    whole = ip(zone, far, 17, struct.pack("!HHHH", 5000, 53, 1008, 0) + bytes(1000))
    head = 40 if v6 else 20
    assert quoted[head:] == whole[head : head + 8]
    assert quoted[2:6] == whole[2:6] if v6 else quoted[2:4] == whole[2:4]
    assert v6 or plain_sum(quoted[:20]) == 0


@BOTH
def test_echo_goes_out_and_comes_back_with_the_zones_own_mark(v6: bool) -> None:
    asked = packet.read_echo(echo(v6=v6, hops=5))
    assert asked is not None
    zone, far = ends(v6)
    assert (asked.source, asked.destination, asked.hops, asked.data) == (zone, far, 5, b"zonewright")
    request = packet.echo_request(asked.family, IDENTIFIER, 77, b"zonewright")
    if not v6:
        assert plain_sum(request) == 0
    assert struct.unpack_from("!HH", request, 4) == (IDENTIFIER, 77)
    expected = icmp(129 if v6 else 0, 0, struct.pack("!HH", 7, 9) + b"data", far, zone)
    assert packet.echo_reply(far, zone, asked.mark, b"data")[40 if v6 else 20 :] == expected


@pytest.mark.parametrize(
    ("v6", "trouble"),
    [
        (False, None),
        (True, None),
        (False, (3, 4, 1300)),
        (False, (11, 0, 0)),
        (True, (2, 0, 1300)),
        (True, (1, 3, 0)),
        (True, (3, 0, 0)),
    ],
)
def test_answer_is_known_by_identifier_and_number(v6: bool, trouble: tuple[int, int, int] | None) -> None:
    family = socket.AF_INET6 if v6 else socket.AF_INET
    received = answer(v6=v6, trouble=trouble)
    read = packet.read_answer(family, received, IDENTIFIER)
    assert read is not None
    assert (read.sequence, read.trouble) == (77, Trouble(*trouble) if trouble else None)
    assert read.data == (b"" if trouble else b"data")
    assert packet.read_answer(family, received, IDENTIFIER + 1) is None
    assert all(packet.read_answer(family, received[:size], IDENTIFIER) is None for size in range(8))


@BOTH
@pytest.mark.parametrize("size", [0, 1, 1400, 1401, 20000, 65000])
@pytest.mark.parametrize("mtu", [1280, 1500])
def test_fragments_fit_the_link_and_are_the_packet_together(v6: bool, size: int, mtu: int) -> None:
    zone, far = ends(v6)
    whole = packet.ip_packet(far, zone, 58 if v6 else 1, bytes(number % 251 for number in range(size)))
    start, protocol = (40, 6) if v6 else (20, 9)
    pieces = packet.fragments(whole, mtu, 0x1234)
    assert all(len(piece) <= mtu for piece in pieces)
    if len(whole) <= mtu:
        assert pieces == [whole]
        return
    body = b""
    for piece in pieces:
        assert int.from_bytes(piece[4:6] if v6 else piece[2:4], "big") == len(piece) - (40 if v6 else 0)
        assert piece[start - 2 * len(zone) : start] == far + zone
        if v6:
            assert (piece[6], piece[40], piece[41]) == (44, 58, 0) and piece[44:48] == b"\0\0\x12\x34"
            place = int.from_bytes(piece[42:44], "big")
            at, more = place & ~7, place & 1
        else:
            assert piece[protocol] == 1 and piece[4:6] == b"\x12\x34"
            place = int.from_bytes(piece[6:8], "big")
            at, more = (place & 0x1FFF) * 8, place >> 13
        assert at == len(body) and more == (piece is not pieces[-1])
        body += piece[start + 8 * v6 :]
    assert body == whole[start:]


def passes(program: bytes) -> Callable[[bytes], bool]:
    """Asks the kernel: a filter looks at datagrams of any kind of socket."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.setblocking(False)
    bpf.attach(receiver, program)

    def ask(data: bytes) -> bool:
        sender.send(data)
        try:
            return receiver.recv(65536) == data
        except BlockingIOError:
            return False

    ask.sockets = sender, receiver  # type: ignore[attr-defined]
    return ask


@BOTH
def test_tap_takes_syns_and_echo_requests_that_are_not_the_gateways(v6: bool) -> None:
    gateway = GATEWAY6 if v6 else GATEWAY4
    taken = passes(sockets.tap_filter(gateway, ZONE6 if v6 else ZONE4))
    zone, far = ends(v6)
    packed = socket.inet_pton(socket.AF_INET6 if v6 else socket.AF_INET, gateway)
    assert taken(syn(v6=v6)) and taken(syn(v6=v6, flags=0xC2)) and taken(echo(v6=v6))
    for flags in (0, 4, 0x10, 0x12, 3):
        assert not taken(syn(v6=v6, flags=flags))
    for whole in (syn(v6=v6), echo(v6=v6)):
        assert taken(whole.replace(far, packed[:-1] + b"\x07"))
        assert not taken(whole[:20])
        assert not taken(whole.replace(zone, zone[:-1] + b"\x03")), "another zone's"
    assert not taken(echo(v6=v6).replace(far, packed)), "the kernel answers it"
    assert taken(syn(v6=v6).replace(far, packed))
    to_dns = bytearray(syn(v6=v6))
    at = (40 if v6 else (to_dns[0] & 15) * 4) + 2
    to_dns[at : at + 2] = (53).to_bytes(2, "big")
    assert taken(bytes(to_dns)) and not taken(bytes(to_dns).replace(far, packed))
    assert not taken(ip(zone, far, 17, bytes(100)))
    assert not taken(ip(zone, far, 58 if v6 else 1, icmp(135 if v6 else 13, 0, bytes(20), zone, far)))
    if not v6:
        fragment = bytearray(syn())
        fragment[6] = 0x20
        assert not taken(bytes(fragment))


@BOTH
def test_fragments_of_a_zone_are_taken_by_the_filter_for_them_and_by_no_other(v6: bool) -> None:
    taken = passes(sockets.fragment_filter(ZONE6 if v6 else ZONE4))
    others = passes(sockets.tap_filter(*((GATEWAY6, ZONE6) if v6 else (GATEWAY4, ZONE4))))
    zone, _ = ends(v6)
    for each in pieces(v6=v6):
        assert taken(each) and not others(each)
        assert not taken(each.replace(zone, zone[:-1] + b"\x03")), "another zone's"
    assert not taken(echo(v6=v6)) and not taken(syn(v6=v6))


@BOTH
def test_raw_socket_of_the_host_gets_its_own_answers_only(v6: bool) -> None:
    family = socket.AF_INET6 if v6 else socket.AF_INET
    taken = passes(sockets.echo_filter(family, IDENTIFIER))
    stranger = passes(sockets.echo_filter(family, IDENTIFIER ^ 1))
    kinds = ((1, 0, 0), (2, 0, 1300), (3, 0, 0), (4, 0, 0)) if v6 else ((3, 1, 0), (3, 4, 1300), (11, 0, 0), (12, 0, 0))
    for received in (answer(v6=v6), *(answer(v6=v6, trouble=kind) for kind in kinds)):
        assert taken(received)
        assert not stranger(received)
    assert not taken(echo(v6=v6)[40:] if v6 else echo())


def test_filter_stays_on_its_socket() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        bpf.attach(held, sockets.tap_filter(GATEWAY4, ZONE4))
        with pytest.raises(PermissionError):
            held.setsockopt(socket.SOL_SOCKET, 27, 0)  # SO_DETACH_FILTER


READERS: tuple[Callable[[bytes], object], ...] = (
    packet.read_syn,
    packet.read_echo,
    fragments.read_piece,
    lambda data: packet.read_answer(socket.AF_INET, data, IDENTIFIER),
    lambda data: packet.read_answer(socket.AF_INET6, data, IDENTIFIER),
)


def check(data: bytes) -> list[bool]:
    """Read a packet by all readers; what one takes for good can be answered. Which of them took it?"""
    results = [read(data) for read in READERS]
    read, asked = packet.read_syn(data), packet.read_echo(data)
    if read is not None:
        head = 20 if read.family == socket.AF_INET else 40
        assert len(read.packet) <= len(data)
        assert len(packet.reset_of(read)) == head + 20
        assert packet.read_syn(read.packet) == read, "what is passed on is a SYN, and its checksum is right"
        assert packet.error_about(read.packet, Trouble(3, 1), read.key[: (len(read.key) - 4) // 2])
    if asked is not None:
        assert len(asked.mark) == 4 and len(asked.head) <= 128
        assert packet.echo_reply(asked.destination, asked.source, asked.mark, asked.data)
    return [result is not None for result in results]


USUAL = 1_000_000


@pytest.mark.parametrize("rounds", [USUAL, pytest.param(10 * USUAL, marks=pytest.mark.soak)])
def test_fuzz_damaged_packets_are_read_or_refused(rounds: int) -> None:
    seed = time.time_ns() if LONG in os.environ or rounds > USUAL else 7
    dice, packets = random.Random(seed), corpus()
    taken, by_any = [0] * len(READERS), 0
    for number in range(rounds):
        data = damaged(packets[number % len(packets)], dice)
        try:
            took = check(data)
        except Exception as error:
            raise AssertionError(f"seed {seed}, round {number}: {data.hex()}") from error
        if True in took:
            by_any += 1
            taken = [before + now for before, now in zip(taken, took, strict=True)]
    # Some damage does no harm: data after the packet, its time to live in IPv6, padding. Else nothing is looked at.
    assert rounds // 100 < by_any < rounds // 2
    assert min(taken) > rounds // 1000, "by each of the readers"


def test_what_a_reader_takes_the_filter_takes_too() -> None:
    dice = random.Random(3)
    for v6 in (False, True):
        takes = passes(sockets.tap_filter(*((GATEWAY6, ZONE6) if v6 else (GATEWAY4, ZONE4))))
        packets = [syn(v6=v6), syn(v6=v6, partial=True, options=OPTIONS), echo(v6=v6)]
        for number in range(20_000):
            data = damaged(packets[number % 3], dice)
            if not (data and (packet.read_syn(data) or packet.read_echo(data)) and data[0] >> 4 == (6 if v6 else 4)):
                continue
            ours = ends(v6)[0] == (data[8:24] if v6 else data[12:16])
            assert takes(data) == ours, data.hex()


@pytest.mark.root
def test_flood_of_damaged_frames_ends_nothing(world: World) -> None:
    """Past the guard, which looks at addresses only: into the kernel and the engine."""
    port = world.serve(world.outside, OUTSIDE4, 0, digest_then_echo)
    network = world.up()
    world.meet()
    assert network.engine is not None
    pid = network.engine.pid

    def flood() -> None:
        dice, frames = random.Random(11), every()
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            for number in range(20_000):
                sent = frames[number % len(frames)]
                # Every other time the addresses stay, so that it comes further.
                whole = 14 if number // len(frames) % 2 else 0
                try:
                    raw.send((sent[:whole] + damaged(sent[whole:], dice) + bytes(14))[:1514])
                except OSError:  # the queue is full
                    select.select([], [raw], [], 1)

    world.in_zone(flood)
    with world.connect(OUTSIDE4, port) as connection:
        connection.sendall(b"still here")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100)
    counters = network.counters()
    assert network.engine.pid == pid and network.alive()
    assert counters["faults"] == 0
    assert counters["malformed"] > 0
