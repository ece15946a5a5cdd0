"""Capture files, and which frames go into one. Decides, does nothing.

Source: draft-ietf-opsawg-pcap ("PCAP Capture File Format"), https://www.tcpdump.org/linktypes.html.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from runtime.net import bpf

# A frame of a zone's is at most 65535 bytes of IP (a superframe, before its segmentation) behind its header and a tag.
MOST_SNAP_BYTES = 65535 + 18
LINKTYPE_ETHERNET = 1
_MAGIC_NANOSECONDS = 0xA1B23C4D
_FILE = struct.Struct("<IHHiIII")  # magic, version, UTC offset, accuracy, snap length, link type
_RECORD = struct.Struct("<IIII")  # seconds, nanoseconds, bytes kept, bytes there were
RECORD_BYTES = _RECORD.size  # of a frame, beside what is kept of it
_ETHERTYPE, _IP4, _ARP, _IP6 = 12, 0x0800, 0x0806, 0x86DD
_WITH_PORTS = (socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_SCTP)


def file_header(snap_bytes: int) -> bytes:
    """What a capture file begins with."""
    return _FILE.pack(_MAGIC_NANOSECONDS, 2, 4, 0, 0, snap_bytes, LINKTYPE_ETHERNET)


def record(seconds: int, nanoseconds: int, kept: bytes | memoryview, was_bytes: int) -> bytes:
    """One frame; `kept` is as much of it as there is."""
    return _RECORD.pack(seconds, nanoseconds, len(kept), was_bytes) + kept


def frame_filter(host: str = "", port: int = 0) -> bytes:
    """A program for a packet socket that takes frames from or to an address and a port; any for "" and 0.

    A host's ARP is its own, too; what has no ports (ICMP, later fragments, IPv6 behind extension headers) has none.
    Raises:  ValueError for a host that is no address.
    """
    address = ip_address(host) if host else None
    other = "ip6" if not isinstance(address, IPv4Address) else bpf.DROP
    lines: list[bpf.Line] = [("ldh", _ETHERTYPE)]
    if not isinstance(address, IPv6Address):
        lines += [("jeq", _IP4, "ip4", "")]
    lines += [("jeq", _IP6, other, "")]
    if isinstance(address, IPv4Address) and not port:
        lines += [("jeq", _ARP, "", bpf.DROP), *_ip4_host(address, 28, 38, bpf.TAKE)]
    elif address is None and not port:
        lines += [("jeq", 0, bpf.TAKE, bpf.TAKE)]
    else:
        lines += [("jeq", 0, bpf.DROP, bpf.DROP)]
    if not isinstance(address, IPv6Address):
        lines += ["ip4", *_of_host(address, "ports4"), "ports4", *_ports4(port)]
    if not isinstance(address, IPv4Address):
        lines += ["ip6", *_of_host(address, "ports6"), "ports6", *_ports6(port)]
    return bpf.assemble(lines)


def _of_host(address: IPv4Address | IPv6Address | None, then: str) -> list[bpf.Line]:
    if address is None:
        return []
    if isinstance(address, IPv4Address):
        return _ip4_host(address, 26, 30, then)
    words = struct.unpack("!4I", address.packed)
    lines: list[bpf.Line] = []
    for source, begin in ((True, 22), (False, 38)):
        for at, word in enumerate(words):
            found, missed = then if at == 3 else "", "destination6" if source else bpf.DROP
            lines += [("ld", begin + 4 * at), ("jeq", word, found, missed)]
        if source:
            lines.append("destination6")
    return lines


def _ip4_host(address: IPv4Address, source: int, destination: int, then: str) -> list[bpf.Line]:
    number = int(address)
    return [("ld", source), ("jeq", number, then, ""), ("ld", destination), ("jeq", number, then, bpf.DROP)]


def _ports4(port: int) -> list[bpf.Line]:
    if not port:
        return [("jeq", 0, bpf.TAKE, bpf.TAKE)]
    return [
        ("ldb", 23),
        *_one_of(_WITH_PORTS, "whole4"),
        "whole4",
        ("ldh", 20),
        ("jset", 0x1FFF, bpf.DROP, ""),  # not the first fragment
        ("ldx header", 14),
        ("ldh x+", 14),
        ("jeq", port, bpf.TAKE, ""),
        ("ldh x+", 16),
        ("jeq", port, bpf.TAKE, bpf.DROP),
    ]


def _ports6(port: int) -> list[bpf.Line]:
    if not port:
        return [("jeq", 0, bpf.TAKE, bpf.TAKE)]
    return [
        ("ldb", 20),
        *_one_of(_WITH_PORTS, "whole6"),
        "whole6",
        ("ldh", 54),
        ("jeq", port, bpf.TAKE, ""),
        ("ldh", 56),
        ("jeq", port, bpf.TAKE, bpf.DROP),
    ]


def _one_of(protocols: tuple[int, ...], then: str) -> list[bpf.Line]:
    *most, last = protocols
    return [*(("jeq", one, then, "") for one in most), ("jeq", last, then, bpf.DROP)]
