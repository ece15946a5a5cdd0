"""rtnetlink messages: pure bytes in and out.

Source:  include/uapi/linux/netlink.h, rtnetlink.h, if_addr.h; man 7 rtnetlink.
"""

import _struct
from _socket import AF_INET, AF_INET6, inet_pton

from runtime.init import abi

_HEADER = "=IHHII"  # nlmsghdr: length, type, flags, sequence, port
_HEADER_BYTES = 16


def split_address(text: str) -> tuple[int, bytes, int]:
    """`10.75.1.2/24` as (family, packed address, prefix length). Raises ValueError."""
    address, slash, prefix = text.partition("/")
    family = AF_INET6 if ":" in address else AF_INET
    try:
        packed = inet_pton(family, address)
    except OSError:
        raise ValueError(f"{text!r} is no IP address") from None
    bits = len(packed) * 8
    if slash and not (prefix.isdigit() and int(prefix) <= bits):
        raise ValueError(f"{text!r} has no prefix length of 0 to {bits}")
    return family, packed, int(prefix) if slash else bits


def same_network(one: bytes, other: bytes, prefix: int) -> bool:
    """Do two packed addresses agree in their first `prefix` bits?"""
    shift = len(one) * 8 - prefix
    return len(one) == len(other) and int.from_bytes(one) >> shift == int.from_bytes(other) >> shift


def attribute(kind: int, payload: bytes) -> bytes:
    """One rtattr, padded to 4."""
    return _struct.pack("=HH", len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """One request that asks for an acknowledgement."""
    flags |= abi.NLM_F_REQUEST | abi.NLM_F_ACK
    return _struct.pack(_HEADER, _HEADER_BYTES + len(body), kind, flags, sequence, 0) + body


def link_up(index: int, mtu: int | None, sequence: int) -> bytes:
    """Set a link up, with an MTU where one is given."""
    body = _struct.pack("=BxHiII", 0, 0, index, abi.IFF_UP, abi.IFF_UP)
    if mtu is not None:
        body += attribute(abi.IFLA_MTU, _struct.pack("=I", mtu))
    return message(abi.RTM_NEWLINK, 0, sequence, body)


def add_address(index: int, address: str, sequence: int) -> bytes:
    """Give a link an address; an IPv6 one skips duplicate address detection and is usable at once."""
    family, packed, prefix = split_address(address)
    flags = abi.IFA_F_PERMANENT | (abi.IFA_F_NODAD if family == AF_INET6 else 0)
    body = _struct.pack("=BBBBi", family, prefix, flags & 0xFF, abi.RT_SCOPE_UNIVERSE, index)
    body += attribute(abi.IFA_LOCAL, packed) + attribute(abi.IFA_ADDRESS, packed)
    if family == AF_INET and prefix < 31:
        broadcast = int.from_bytes(packed) | (1 << (32 - prefix)) - 1
        body += attribute(abi.IFA_BROADCAST, broadcast.to_bytes(4))
    body += attribute(abi.IFA_FLAGS, _struct.pack("=I", flags))
    return message(abi.RTM_NEWADDR, abi.NLM_F_CREATE | abi.NLM_F_EXCL, sequence, body)


def add_default_route(index: int, gateway: str, addresses: list[str], sequence: int, rto_min_ms: int = 0) -> bytes:
    """The default route of the gateway's family; one outside every address's network is taken as on the link.

    rto_min_ms:  the least that TCP waits before it sends again; 0 for what the kernel has.
    """
    family, packed, _ = split_address(gateway)
    networks = [split_address(address) for address in addresses]
    inside = any(fam == family and same_network(packed, net, prefix) for fam, net, prefix in networks)
    flags = 0 if inside else abi.RTNH_F_ONLINK
    scope = (0, 0, 0, abi.RT_TABLE_MAIN, abi.RTPROT_STATIC, abi.RT_SCOPE_UNIVERSE, abi.RTN_UNICAST, flags)
    body = _struct.pack("=BBBBBBBBI", family, *scope)
    body += attribute(abi.RTA_GATEWAY, packed) + attribute(abi.RTA_OIF, _struct.pack("=i", index))
    if rto_min_ms:
        # Milliseconds; TCP heeds it only where it is locked (dst_metric_rtt and tcp_rto_min of the kernel).
        lock = attribute(abi.RTAX_LOCK, _struct.pack("=I", 1 << abi.RTAX_RTO_MIN))
        body += attribute(abi.RTA_METRICS, lock + attribute(abi.RTAX_RTO_MIN, _struct.pack("=I", rto_min_ms)))
    return message(abi.RTM_NEWROUTE, abi.NLM_F_CREATE | abi.NLM_F_EXCL, sequence, body)


def acknowledgement(reply: bytes) -> tuple[int, int]:
    """(sequence, errno) of the acknowledgement in a reply; errno 0 is success. Raises ValueError."""
    if len(reply) < _HEADER_BYTES + 4:
        raise ValueError(f"a netlink reply of {len(reply)} bytes")
    _, kind, _, sequence, _ = _struct.unpack_from(_HEADER, reply)
    if kind != abi.NLMSG_ERROR:
        raise ValueError(f"a netlink reply of type {kind}")
    (error,) = _struct.unpack_from("=i", reply, _HEADER_BYTES)
    return sequence, -error
