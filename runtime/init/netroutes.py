"""Requests that change a zone's routes and neighbours while it runs; those of its boot are in netlink.py."""

import _struct
from _socket import AF_INET6

from runtime.init import abi, netlink


def set_route(index: int, destination: str, gateway: str, source: str, sequence: int) -> bytes:
    """A route of the main table, in the place of the one to the same destination; on the link without a gateway."""
    family, packed, prefix = netlink.split_address(destination)
    scope = abi.RT_SCOPE_UNIVERSE if gateway or family == AF_INET6 else abi.RT_SCOPE_LINK
    fixed = (prefix, 0, 0, abi.RT_TABLE_MAIN, abi.RTPROT_STATIC, scope, abi.RTN_UNICAST, 0)
    body = _struct.pack("=BBBBBBBBI", family, *fixed)
    body += netlink.attribute(abi.RTA_DST, packed) if prefix else b""
    for kind, text in ((abi.RTA_GATEWAY, gateway), (abi.RTA_PREFSRC, source)):
        if text:
            body += netlink.attribute(kind, netlink.split_address(text)[1])
    body += netlink.attribute(abi.RTA_OIF, _struct.pack("=i", index))
    return netlink.message(abi.RTM_NEWROUTE, abi.NLM_F_CREATE | abi.NLM_F_REPLACE, sequence, body)


def set_neighbor(index: int, address: str, mac: bytes, state: int, sequence: int) -> bytes:
    """Who has an address on the link, in the place of what was known of it. Raises ValueError."""
    family, packed, _ = netlink.split_address(address)
    if len(mac) != 6:
        raise ValueError(f"{mac.hex(':')!r} is no MAC address")
    body = _struct.pack("=BxxxiHBB", family, index, state, 0, 0)
    body += netlink.attribute(abi.NDA_DST, packed) + netlink.attribute(abi.NDA_LLADDR, mac)
    return netlink.message(abi.RTM_NEWNEIGH, abi.NLM_F_CREATE | abi.NLM_F_REPLACE, sequence, body)
