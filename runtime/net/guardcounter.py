"""How many frames of a zone the guard has dropped: the counter of a chain of its rules, asked for by netlink.

Source: linux/netfilter/nf_tables.h, NFT_MSG_GETRULE; linux/netfilter/nfnetlink.h. An `nft` process would cost more than
all that is asked beside it. A counter with a name would be simpler to read, but needs nft_objref, which kernels before
6.2 have as a module that nothing loads by itself.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from runtime.net.netlink import NLM_F_DUMP, NLM_F_REQUEST, attribute, attributes

NETLINK_NETFILTER = 12
NFPROTO_BRIDGE = 7
NFT_MSG_NEWRULE, NFT_MSG_GETRULE = (10 << 8 | kind for kind in (6, 7))  # NFNL_SUBSYS_NFTABLES
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS = 1, 2, 4
NFTA_LIST_ELEM = 1
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTA_COUNTER_PACKETS = 2
_HEADERS = struct.Struct("=IHHII BBH")  # struct nlmsghdr, struct nfgenmsg
_TIMEOUT_S = 5.0


def chain_of(group: int) -> str:
    """The chain that drops what the zone whose vif has this group may not send."""
    return f"refused_{group}"


def refused(group: int) -> int:
    """Frames dropped since the rules of the calling thread's namespace were loaded; 0 where there is no such chain.

    Raises:  OSError.
    """
    payload = b"".join(
        (attribute(NFTA_RULE_TABLE, b"guard\0"), attribute(NFTA_RULE_CHAIN, chain_of(group).encode() + b"\0"))
    )
    length = _HEADERS.size + len(payload)
    head = _HEADERS.pack(length, NFT_MSG_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, 1, 0, NFPROTO_BRIDGE, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as asked:
        asked.settimeout(_TIMEOUT_S)
        asked.send(head + payload)
        answer = asked.recv(65536)
    length, kind = struct.unpack_from("=IH", answer)
    if kind != NFT_MSG_NEWRULE:  # done at once, or an error: rules of an earlier version have no such chain
        return 0
    for expression in _inner(attributes(answer[_HEADERS.size : length]), NFTA_RULE_EXPRESSIONS, NFTA_LIST_ELEM):
        parts = dict(attributes(expression))
        if parts.get(NFTA_EXPR_NAME) == b"counter\0":
            return int.from_bytes(dict(attributes(parts[NFTA_EXPR_DATA]))[NFTA_COUNTER_PACKETS], "big")
    return 0


def _inner(outside: Iterator[tuple[int, bytes]], of: int, kind: int) -> Iterator[bytes]:
    """What lies in the attributes of one kind inside those of another."""
    for outer, data in outside:
        if outer == of:
            yield from (inner for found, inner in attributes(data) if found == kind)
