"""How many frames of a zone the guard has dropped: a named counter of its rules, asked for by netlink.

Source: linux/netfilter/nf_tables.h, NFT_MSG_GETOBJ; linux/netfilter/nfnetlink.h. An `nft` process would cost more than
all that is asked beside it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from runtime.net.netlink import NLM_F_REQUEST, attribute

NETLINK_NETFILTER = 12
NFPROTO_BRIDGE = 7
NFT_MSG_NEWOBJ, NFT_MSG_GETOBJ = (10 << 8 | kind for kind in (18, 19))  # NFNL_SUBSYS_NFTABLES
NFTA_OBJ_TABLE, NFTA_OBJ_NAME, NFTA_OBJ_TYPE, NFTA_OBJ_DATA = 1, 2, 3, 4
NFT_OBJECT_COUNTER = 1
NFTA_COUNTER_PACKETS = 2
_HEADERS = struct.Struct("=IHHII BBH")  # struct nlmsghdr, struct nfgenmsg
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF
_TIMEOUT_S = 5.0


def name_of(group: int) -> str:
    """The counter of the zone whose vif has this group."""
    return f"refused_{group}"


def refused(group: int) -> int:
    """Frames dropped since the rules of the calling thread's namespace were loaded; 0 where there is no such counter.

    Raises:  OSError.
    """
    payload = b"".join(
        (
            attribute(NFTA_OBJ_TABLE, b"guard\0"),
            attribute(NFTA_OBJ_NAME, name_of(group).encode() + b"\0"),
            attribute(NFTA_OBJ_TYPE, struct.pack("!I", NFT_OBJECT_COUNTER)),
        )
    )
    head = _HEADERS.pack(_HEADERS.size + len(payload), NFT_MSG_GETOBJ, NLM_F_REQUEST, 1, 0, NFPROTO_BRIDGE, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as asked:
        asked.settimeout(_TIMEOUT_S)
        asked.send(head + payload)
        answer = asked.recv(65536)
    length, kind = struct.unpack_from("=IH", answer)
    if kind != NFT_MSG_NEWOBJ:  # an error: rules of an earlier version have none of that name
        return 0
    for of, data in _attributes(answer[_HEADERS.size : length]):
        if of == NFTA_OBJ_DATA:
            for inner, value in _attributes(data):
                if inner == NFTA_COUNTER_PACKETS:
                    return int.from_bytes(value, "big")
    return 0


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
