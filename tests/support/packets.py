"""Packets of a zone and of the outside, right ones and damaged ones."""

from __future__ import annotations

import random
import socket
import struct

ZONE4, ZONE6 = "10.75.7.2", "fd5a:6f6e:6577:7::2"
FAR4, FAR6 = "203.0.113.2", "2001:db8:1::2"
IDENTIFIER = 0x5A57
# MSS 1460, SACK permitted, timestamps, window scale 7: what Linux sends.
OPTIONS = bytes.fromhex("020405b40402080a0000000100000000") + b"\x01\x03\x03\x07"


def plain_sum(data: bytes) -> int:
    """The Internet checksum as RFC 1071 section 4.1 has it, word by word."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo(source: bytes, destination: bytes, length: int, protocol: int) -> bytes:
    if len(source) == 4:
        return source + destination + struct.pack("!BBH", 0, protocol, length)
    return source + destination + struct.pack("!IHBB", length, 0, 0, protocol)


def ends(v6: bool) -> tuple[bytes, bytes]:
    """Zone and outside."""
    if v6:
        return socket.inet_pton(socket.AF_INET6, ZONE6), socket.inet_pton(socket.AF_INET6, FAR6)
    return socket.inet_aton(ZONE4), socket.inet_aton(FAR4)


def ip(source: bytes, destination: bytes, protocol: int, payload: bytes, *, hops: int = 64) -> bytes:
    if len(source) == 16:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops) + source + destination + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, 0x4000, hops, protocol, 0) + source + destination
    return head[:10] + struct.pack("!H", plain_sum(head)) + head[12:] + payload


def syn(
    *,
    v6: bool = False,
    flags: int = 2,
    options: bytes = OPTIONS,
    data: bytes = b"",
    partial: bool = False,
    sequence: int = 0x01020304,
) -> bytes:
    """A SYN from port 40000 to 443; partial: its checksum is left to a card that is not there."""
    source, destination = ends(v6)
    offset = (20 + len(options)) // 4 << 4
    segment = struct.pack("!HHIIBBHHH", 40000, 443, sequence, 0, offset, flags, 64240, 0, 0) + options + data
    head = pseudo(source, destination, len(segment), 6)
    value = ~plain_sum(head) & 0xFFFF if partial else plain_sum(head + segment)
    return ip(source, destination, 6, segment[:16] + struct.pack("!H", value) + segment[18:])


def icmp(kind: int, code: int, rest: bytes, source: bytes, destination: bytes) -> bytes:
    """A message with its checksum."""
    message = struct.pack("!BBH", kind, code, 0) + rest
    head = pseudo(source, destination, len(message), 58) if len(source) == 16 else b""
    return message[:2] + struct.pack("!H", plain_sum(head + message)) + message[4:]


def echo(*, v6: bool = False, data: bytes = b"zonewright", hops: int = 64) -> bytes:
    """An echo request with identifier 7, sequence number 9."""
    source, destination = ends(v6)
    message = icmp(128 if v6 else 8, 0, struct.pack("!HH", 7, 9) + data, source, destination)
    return ip(source, destination, 58 if v6 else 1, message, hops=hops)


def answer(*, v6: bool = False, trouble: tuple[int, int, int] | None = None) -> bytes:
    """What a raw socket of the host gets: the reply to request 77 of IDENTIFIER, or an error about it."""
    source, destination = ends(v6)
    ours = struct.pack("!HH", IDENTIFIER, 77)
    if trouble is None:
        message = icmp(129 if v6 else 0, 0, ours + b"data", destination, source)
    else:
        request = icmp(128 if v6 else 8, 0, ours + b"data", source, destination)
        quoted = ip(source, destination, 58 if v6 else 1, request)
        kind, code, info = trouble
        message = icmp(kind, code, struct.pack("!I", info) + quoted, destination, source)
    return message if v6 else ip(destination, source, 1, message)


def piece(whole: bytes, at: int, end: int, *, number: int = 7, more: bool | None = None) -> bytes:
    """A fragment of a packet: what of it stands from `at` to `end` behind the IP header."""
    v6 = whole[0] >> 4 == 6
    start = 40 if v6 else 20
    data = whole[start:][at:end]
    more = start + end < len(whole) if more is None else more
    if v6:
        head = struct.pack("!BBHI", whole[6], 0, at | more, number) + data
        return ip(whole[8:24], whole[24:40], 44, head, hops=whole[7])
    place = at >> 3 | more << 13
    head = whole[:2] + struct.pack("!HHHBBH", 20 + len(data), number, place, whole[8], whole[9], 0) + whole[12:20]
    return head[:10] + struct.pack("!H", plain_sum(head)) + head[12:] + data


def pieces(*, v6: bool, size: int = 100, step: int = 48, number: int = 7) -> list[bytes]:
    """An echo request in fragments."""
    whole = echo(v6=v6, data=random.Random(size).randbytes(size), hops=5)
    return [piece(whole, at, at + step, number=number) for at in range(0, 8 + size, step)]


def corpus() -> list[bytes]:
    """One of each kind."""
    packets = [answer(), answer(trouble=(3, 4, 1300)), answer(v6=True), answer(v6=True, trouble=(2, 0, 1300))]
    for v6 in (False, True):
        packets += [syn(v6=v6), syn(v6=v6, partial=True), syn(v6=v6, data=b"early", options=b""), echo(v6=v6)]
        packets += pieces(v6=v6, size=48)
    return packets


def damaged(packet: bytes, dice: random.Random) -> bytes:
    """The packet with some bytes changed, cut off, added, doubled or exchanged for telling ones."""
    body = bytearray(packet)
    for _ in range(dice.randrange(1, 5)):
        at = dice.randrange(len(body)) if body else 0
        match dice.randrange(6):
            case 0 if body:
                body[at] ^= 1 << dice.randrange(8)
            case 1 if body:
                body[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
            case 2:
                del body[at:]
            case 3:
                body += dice.randbytes(dice.randrange(40))
            case 4:
                body[at:at] = body[at : at + dice.randrange(20)]
            case _:
                del body[at : at + dice.randrange(8)]
    return bytes(body)
