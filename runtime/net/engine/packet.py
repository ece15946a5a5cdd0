"""The packets the engine reads and writes itself: SYN, RST, ICMP and ICMPv6. Pure: bytes in, bytes out.

Everything read comes from a zone or from anybody on the internet: what is not exactly as it should be is None, never
an exception. Addresses stay packed (4 or 16 bytes); an IP packet starts at its IP header.
Source: RFC 791, 8200, 9293, 792, 4443; checksums RFC 1071.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
_FIN_SYN_RST_ACK = 0x17
_SYN = 0x02
_RST_ACK = b"\x14"
_TTL = b"\x40"
_QUOTE4_BYTES = 548  # an ICMP error is at most 576 bytes: RFC 1812 section 4.3.2.3
_QUOTE6_BYTES = 1232  # an ICMPv6 error fits the least MTU, 1280: RFC 4443 section 2.4


class Syn(NamedTuple):
    """A zone's wish to connect.

    packet:  the whole of it, with a valid checksum.
    key:     source, destination, source port, destination port: bytes as they stand in the packet.
    """

    packet: bytes
    key: bytes
    host: str
    port: int
    hops: int

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return socket.AF_INET if len(self.key) == 12 else socket.AF_INET6


class Trouble(NamedTuple):
    """What an ICMP or ICMPv6 error says: type, code and the four bytes after the checksum."""

    kind: int
    code: int
    info: int = 0


def checksum(data: bytes) -> int:
    """The Internet checksum of data in which the checksum's own field is zero; 0 where it stands there and is right."""
    if len(data) & 1:
        data += b"\0"
    # Adding with the carry carried around is counting modulo 65535.
    return -int.from_bytes(data, "big") % 0xFFFF


def _pseudo(addresses: bytes, length: int, protocol: int) -> bytes:
    # The same sum for both families: the fields' places in the pseudo header differ, not their values.
    return addresses + length.to_bytes(4, "big") + protocol.to_bytes(4, "big")


def read_syn(packet: bytes) -> Syn | None:
    """A bare SYN of either version, or None. Fragments, extension headers and IP options are not for the gate."""
    if len(packet) < 40:
        return None
    first = packet[0]
    if first == 0x45:
        end = int.from_bytes(packet[2:4], "big")
        packet = packet[:end]
        sound = len(packet) == end and not (packet[6] & 0x3F or packet[7]) and packet[9] == TCP
        if not sound or checksum(packet[:20]):
            return None
        start, addresses, hops = 20, packet[12:20], packet[8]
        family, destination = socket.AF_INET, packet[16:20]
    elif first >> 4 == 6:
        end = 40 + int.from_bytes(packet[4:6], "big")
        packet = packet[:end]
        if len(packet) != end or packet[6] != TCP:
            return None
        start, addresses, hops = 40, packet[8:40], packet[7]
        family, destination = socket.AF_INET6, packet[24:40]
    else:
        return None
    segment = packet[start:]
    if len(segment) < 20 or not 20 <= segment[12] >> 2 & 0x3C <= len(segment):
        return None
    port = int.from_bytes(segment[2:4], "big")
    if segment[13] & _FIN_SYN_RST_ACK != _SYN or not port:
        return None
    pseudo = _pseudo(addresses, len(segment), TCP)
    if checksum(pseudo + segment):
        # Left to the network card, which a zone does not have: the field holds the pseudo header's sum. Anything else
        # is damage. Source: linux/skbuff.h, CHECKSUM_PARTIAL.
        if (int.from_bytes(segment[16:18], "big") + checksum(pseudo)) % 0xFFFF:
            return None
        value = checksum(pseudo + segment[:16] + b"\0\0" + segment[18:])
        packet = b"".join((packet[: start + 16], value.to_bytes(2, "big"), packet[start + 18 :]))
    return Syn(packet, addresses + segment[:4], socket.inet_ntop(family, destination), port, hops)


def key_of(peer: tuple[str, int], local: tuple[str, int]) -> bytes:
    """The key of the SYN that an accepted connection began with."""
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    source, destination = (socket.inet_pton(family, end[0].partition("%")[0]) for end in (peer, local))
    return b"".join((source, destination, peer[1].to_bytes(2, "big"), local[1].to_bytes(2, "big")))


def ip_header(source: bytes, destination: bytes, protocol: int, size: int) -> bytes:
    """The header of an IP packet with `size` bytes behind it."""
    if len(source) == 16:
        return b"".join((b"\x60\0\0\0", size.to_bytes(2, "big"), bytes([protocol]), _TTL, source, destination))
    head = b"".join((b"\x45\0", (20 + size).to_bytes(2, "big"), bytes(4), _TTL, bytes([protocol])))
    value = checksum(head + source + destination)
    return b"".join((head, value.to_bytes(2, "big"), source, destination))


def ip_packet(source: bytes, destination: bytes, protocol: int, payload: bytes) -> bytes:
    """An IP packet."""
    return ip_header(source, destination, protocol, len(payload)) + payload


def udp_quote(key: bytes, size: int) -> bytes:
    """The headers of a datagram of the zone's with `size` bytes in it, for an ICMP error about it.

    key:  as in Syn.
    """
    width = (len(key) - 4) // 2
    size = min(size + 8, 0xFFFF - 20)
    head = ip_header(key[:width], key[width : 2 * width], UDP, size)
    return b"".join((head, key[2 * width :], size.to_bytes(2, "big"), bytes(2)))


def reset_of(syn: Syn) -> bytes:
    """The RST that refuses a SYN. Source: RFC 9293 section 3.10.7.1."""
    size = (len(syn.key) - 4) // 2
    source, destination, ports = syn.key[:size], syn.key[size : 2 * size], syn.key[2 * size :]
    start = 20 if size == 4 else 40
    segment = syn.packet[start:]
    taken = 1 + len(segment) - (segment[12] >> 2 & 0x3C)
    acknowledged = (int.from_bytes(segment[4:8], "big") + taken) & 0xFFFFFFFF
    head = b"".join((ports[2:], ports[:2], bytes(4), acknowledged.to_bytes(4, "big"), b"\x50", _RST_ACK, bytes(2)))
    value = checksum(_pseudo(source + destination, 20, TCP) + head)
    return ip_packet(destination, source, TCP, head + value.to_bytes(2, "big") + bytes(2))


def error_about(quoted: bytes, trouble: Trouble, source: bytes) -> bytes:
    """The ICMP or ICMPv6 error about a packet, sent in the name of `source` to the packet's sender."""
    if len(source) == 4:
        destination, limit, protocol, pseudo_of = quoted[12:16], _QUOTE4_BYTES, ICMP, None
    else:
        destination, limit, protocol, pseudo_of = quoted[8:24], _QUOTE6_BYTES, ICMPV6, source + quoted[8:24]
    return ip_packet(source, destination, protocol, _icmp(trouble, quoted[:limit], protocol, pseudo_of))


def _icmp(head: Trouble, body: bytes, protocol: int, addresses: bytes | None) -> bytes:
    message = b"".join((bytes([head.kind, head.code]), bytes(2), head.info.to_bytes(4, "big"), body))
    pseudo = _pseudo(addresses, len(message), protocol) if addresses is not None else b""
    return message[:2] + checksum(pseudo + message).to_bytes(2, "big") + message[4:]
