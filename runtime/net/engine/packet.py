"""The packets the engine reads and writes itself: SYN, RST, ICMP and ICMPv6. Pure: bytes in, bytes out.

Everything read comes from a zone or from anybody on the internet: what is not exactly as it should be is None, never
an exception. Addresses stay packed (4 or 16 bytes); an IP packet starts at its IP header.
Source: RFC 791, 8200, 9293, 792, 4443; checksums RFC 1071.
"""

from __future__ import annotations

import socket
from functools import lru_cache
from typing import NamedTuple

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
FRAGMENT = 44
_FIN_SYN_RST_ACK = 0x17
_SYN = 0x02
_RST_ACK = b"\x14"
_HOPS = 64
_QUOTE4_BYTES = 548  # an ICMP error is at most 576 bytes: RFC 1812 section 4.3.2.3
_QUOTE6_BYTES = 1232  # an ICMPv6 error fits the least MTU, 1280: RFC 4443 section 2.4


class Syn(NamedTuple):
    """A zone's wish to connect.

    packet:    the whole of it, with a valid checksum.
    key:       source, destination, source port, destination port: bytes as they stand in the packet.
    sequence:  the initial sequence number: the same in a SYN sent again, another one in the port's next connection.
    """

    packet: bytes
    key: bytes
    sequence: bytes
    host: str
    port: int
    hops: int

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return socket.AF_INET if len(self.key) == 12 else socket.AF_INET6


class Echo(NamedTuple):
    """A zone's echo request. mark: identifier and sequence number. head: what an error about it quotes.

    gathered:  it came in fragments, and may go on as such.
    """

    family: int
    source: bytes
    destination: bytes
    host: str
    hops: int
    mark: bytes
    data: bytes
    head: bytes
    gathered: bool = False


class Answer(NamedTuple):
    """What came back for an echo request of ours: a reply with its data, or trouble.

    destination:  of the request that trouble is about, as it is quoted.
    """

    sequence: int
    data: bytes
    trouble: Trouble | None
    destination: bytes = b""


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


class _Header(NamedTuple):
    """An IP header of the only shape that is taken, and where what is behind it starts. packet: without any padding."""

    packet: bytes
    start: int
    protocol: int
    hops: int
    addresses: bytes


def _read_header(packet: bytes) -> _Header | None:
    """Fragments, extension headers and IP options are not for the engine: the kernel has them, or nobody."""
    if len(packet) < 20:
        return None
    if packet[0] == 0x45:
        end = int.from_bytes(packet[2:4], "big")
        if not 20 <= end <= len(packet) or packet[6] & 0x3F or packet[7] or checksum(packet[:20]):
            return None
        return _Header(packet[:end], 20, packet[9], packet[8], packet[12:20])
    if packet[0] >> 4 == 6 and len(packet) >= 40:
        end = 40 + int.from_bytes(packet[4:6], "big")
        if end > len(packet):
            return None
        return _Header(packet[:end], 40, packet[6], packet[7], packet[8:40])
    return None


def protocol_of(packet: bytes) -> int:
    """What an IP packet carries, as far as the first header knows; -1 where there is none."""
    if len(packet) < 20:
        return -1
    return packet[9] if packet[0] >> 4 == 4 else packet[6]


def _text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def read_syn(packet: bytes) -> Syn | None:
    """A bare SYN of either version, or None."""
    header = _read_header(packet)
    if header is None or header.protocol != TCP:
        return None
    packet, start, addresses = header.packet, header.start, header.addresses
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
    host = _text(addresses[len(addresses) // 2 :])
    return Syn(packet, addresses + segment[:4], segment[4:8], host, port, header.hops)


def key_of(peer: tuple[str, int], local: tuple[str, int]) -> bytes:
    """The key of the SYN that an accepted connection began with."""
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    source, destination = _packed(family, peer[0]), _packed(family, local[0])
    return b"".join((source, destination, peer[1].to_bytes(2, "big"), local[1].to_bytes(2, "big")))


@lru_cache(maxsize=1024)  # a zone talks to few addresses, and to each often
def _packed(family: int, text: str) -> bytes:
    return socket.inet_pton(family, text.partition("%")[0])


def ends_of(key: bytes) -> tuple[tuple[str, int], tuple[str, int]]:
    """Addresses and ports of a key: the zone's end, the outside's."""
    family = socket.AF_INET6 if len(key) > 12 else socket.AF_INET
    size = (len(key) - 4) // 2
    hosts = (socket.inet_ntop(family, key[at : at + size]) for at in (0, size))
    ports = (int.from_bytes(key[at : at + 2], "big") for at in (2 * size, 2 * size + 2))
    source, destination = zip(hosts, ports, strict=True)
    return source, destination


def ip_header(source: bytes, destination: bytes, protocol: int, size: int, *, hops: int = _HOPS) -> bytes:
    """The header of an IP packet with `size` bytes behind it."""
    if len(source) == 16:
        kind = bytes([protocol, hops])
        return b"".join((b"\x60\0\0\0", size.to_bytes(2, "big"), kind, source, destination))
    head = b"".join((b"\x45\0", (20 + size).to_bytes(2, "big"), bytes(4), bytes([hops, protocol])))
    value = checksum(head + source + destination)
    return b"".join((head, value.to_bytes(2, "big"), source, destination))


def ip_packet(source: bytes, destination: bytes, protocol: int, payload: bytes) -> bytes:
    """An IP packet."""
    return ip_header(source, destination, protocol, len(payload)) + payload


def fragments(packet: bytes, mtu: int, identification: int) -> list[bytes]:
    """A packet of ip_packet's as it is, or in pieces that fit the MTU.

    identification:  tells the pieces of one packet from those of others. Not 0, for which the kernel puts its own.
    Source:  RFC 791 section 3.2, RFC 8200 section 4.5.
    """
    if len(packet) <= mtu:
        return [packet]
    v6 = packet[0] >> 4 == 6
    start = 40 if v6 else 20
    size = (mtu - start - (8 if v6 else 0)) & ~7
    made = []
    for at in range(0, len(packet) - start, size):
        piece = packet[start + at : start + at + size]
        more = start + at + size < len(packet)
        if v6:
            place = (at | more).to_bytes(2, "big")
            head = b"".join((packet[:4], (8 + len(piece)).to_bytes(2, "big"), bytes([FRAGMENT]), packet[7:40]))
            made.append(b"".join((head, packet[6:7], b"\0", place, identification.to_bytes(4, "big"), piece)))
        else:
            place = (at >> 3 | more << 13).to_bytes(2, "big")
            whole = (20 + len(piece)).to_bytes(2, "big")
            # The kernel makes the checksum: raw(7), IP_HDRINCL.
            head = b"".join((packet[:2], whole, (identification & 0xFFFF).to_bytes(2, "big"), place, packet[8:10]))
            made.append(b"".join((head, bytes(2), packet[12:20], piece)))
    return made


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


_ECHO_REQUEST = {4: 8, 16: 128}  # by the size of an address
_ECHO_REPLY = {4: 0, 16: 129}
_ERRORS = {4: (3, 11, 12), 16: (1, 2, 3, 4)}
_ECHO_HEAD_BYTES = 128


def read_echo(packet: bytes) -> Echo | None:
    """An echo request of either version, or None."""
    header = _read_header(packet)
    if header is None:
        return None
    size = len(header.addresses) // 2
    message = header.packet[header.start :]
    if header.protocol != (ICMP if size == 4 else ICMPV6) or len(message) < 8:
        return None
    pseudo = _pseudo(header.addresses, len(message), ICMPV6) if size == 16 else b""
    if message[0] != _ECHO_REQUEST[size] or message[1] or checksum(pseudo + message):
        return None
    return Echo(
        family=socket.AF_INET if size == 4 else socket.AF_INET6,
        source=header.addresses[:size],
        destination=header.addresses[size:],
        host=_text(header.addresses[size:]),
        hops=header.hops,
        mark=message[4:8],
        data=message[8:],
        head=header.packet[:_ECHO_HEAD_BYTES],
    )


def echo_request(family: int, identifier: int, sequence: int, data: bytes) -> bytes:
    """The message alone, for a raw socket: for ICMPv6 the kernel adds the checksum."""
    kind = b"\x08\0" if family == socket.AF_INET else b"\x80\0"
    rest = b"".join((identifier.to_bytes(2, "big"), sequence.to_bytes(2, "big"), data))
    value = checksum(kind + rest) if family == socket.AF_INET else 0
    return b"".join((kind, value.to_bytes(2, "big"), rest))


def echo_reply(source: bytes, destination: bytes, mark: bytes, data: bytes) -> bytes:
    """A whole packet with the reply to an Echo with this mark."""
    size = len(source)
    protocol = ICMP if size == 4 else ICMPV6
    message = b"".join((bytes([_ECHO_REPLY[size], 0, 0, 0]), mark, data))
    pseudo = _pseudo(source + destination, len(message), protocol) if size == 16 else b""
    value = checksum(pseudo + message)
    return ip_packet(source, destination, protocol, message[:2] + value.to_bytes(2, "big") + message[4:])


def read_answer(family: int, received: bytes, identifier: int) -> Answer | None:
    """What a raw ICMP socket received, if it answers an echo request with this identifier.

    Shape:  IPv4 with its IP header, IPv6 without: raw(7), RFC 3542 section 3.
    """
    size, inner = (4, 20) if family == socket.AF_INET else (16, 40)
    message = received
    if size == 4:
        start = (received[0] & 0x0F) * 4 if received else 0
        message = received[start:]
        if start < 20 or checksum(message):
            return None
    if len(message) < 8:
        return None
    ours = identifier.to_bytes(2, "big")
    if message[0] == _ECHO_REPLY[size] and message[4:6] == ours:
        return Answer(int.from_bytes(message[6:8], "big"), message[8:], None)
    quoted = message[8:]
    request = quoted[inner : inner + 8]
    if message[0] not in _ERRORS[size] or len(request) < 8 or quoted[0] >> 4 != (4 if size == 4 else 6):
        return None
    if protocol_of(quoted) not in (ICMP, ICMPV6) or request[0] != _ECHO_REQUEST[size] or request[4:6] != ours:
        return None
    if (message[0], message[1]) == (3, 4) and size == 4:
        info = int.from_bytes(message[6:8], "big")  # the MTU; the first half is for other uses: RFC 4884
    else:
        info = int.from_bytes(message[4:8], "big") if (message[0], size) == (2, 16) else 0
    trouble = Trouble(message[0], message[1], info)
    return Answer(int.from_bytes(request[6:8], "big"), b"", trouble, quoted[inner - size : inner])


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
