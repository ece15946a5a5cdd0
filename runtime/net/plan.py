"""What a network is made of, as text: `ip -batch` lines, sysctls; the rules are in rules.py. Decides, does nothing.

                        namespace of the network                            | host's namespace
    zone -- vif -- guard -- bridge zw0 --+-- SYN, copied -----> packet socket ==|=> engine: gate => outer connect
                     |                   |   echo request, copied --> the same =|=> engine => raw ICMP socket
    zone -- vif -- guard                 |                                      |     |
    (another of the network)             |   listener <- TPROXY <- lo <- SYN <==|= connected
                                         +-- rest of TCP -> its connection =====|=> engine => outer socket
                                         +-- UDP -> TPROXY or its flow =========|=> engine => outer socket
                   gateway addresses (ping by the kernel, DNS by TPROXY)        |

All routing and filters are in the private namespace; the host's are not touched. In it every address that is not on the
zones' own link is local: the kernel takes their packets to whatever destination as its own, and a program without
any privilege may use any address as its own. IP forwarding is off; `divert` names all that is let in.
A zone is known by the group number of its vif, which is its host number, and has listeners of its own.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import NamedTuple

from runtime.net.addresses import ZoneAddresses
from runtime.net.errors import NetworkFault

BRIDGE = "zw0"
LINK_LOCAL = "fe80::1"
DNS_PORT = 53
# netback takes at most 65517 bytes, netfront a little less; IPv6 needs 1280. Source: network.md section 3, RFC 8200.
MTU_MIN = 1280
LARGEST_PACKET = 40 + 65535  # of IPv6, put together from fragments
LO_LINE = f"link set lo mtu {LARGEST_PACKET} up"
MTU_MAX = 65000


class Doors(NamedTuple):
    """Ports of a zone's TPROXY listeners on 127.0.0.1 and ::1."""

    tcp4: int
    tcp6: int
    udp4: int
    udp6: int


class Place(NamedTuple):
    """A zone's place in a network. isolated: it and the network's other zones do not reach each other."""

    addresses: ZoneAddresses
    doors: Doors
    isolated: bool = False

    @property
    def group(self) -> int:
        """Of its vif."""
        return self.addresses.host


def check_mtu(whose: str, mtu: int) -> None:
    """Raises NetworkFault for an MTU that a vif cannot have."""
    if not MTU_MIN <= mtu <= MTU_MAX:
        raise NetworkFault(f"network of {whose}", expected=f"an MTU from {MTU_MIN} to {MTU_MAX}", got=str(mtu))


def netns_name(name: str) -> str:
    """The namespace of a network. Raises NetworkFault for a name that is no file name.

    name:  the zone's whose private one it is, or @ and the name of a shared one, which no zone can have.
    """
    if not re.fullmatch(r"@?[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", name):
        raise NetworkFault(f"network {name!r}", expected="a name of letters, digits, _ . -", got=repr(name))
    return f"zw-{name}"


def ip_lines(addresses: ZoneAddresses, mtu: int) -> list[str]:
    """The lines for one `ip -batch -` in the new namespace: bridge and gateway."""
    return [
        LO_LINE,
        # mcast_snooping 0: neighbour discovery would depend on the zone's multicast reports.
        f"link add {BRIDGE} address {addresses.gateway_mac} mtu {mtu}"
        " type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        f"link set {BRIDGE} addrgenmode none",
        f"address add {addresses.gateway4}/{addresses.prefix4} dev {BRIDGE}",
        f"address add {addresses.gateway6}/{addresses.prefix6} dev {BRIDGE} nodad",
        # A fixed link-local address. Without any, the kernel finds no source for the solicitation that should find the
        # zone for an answer in the name of an outside address (net/ipv6/ndisc.c, ndisc_solicit), and sends none.
        f"address add {LINK_LOCAL}/64 dev {BRIDGE} nodad",
        f"link set {BRIDGE} up",
    ]


def defragment_sysctls() -> list[tuple[str, str]]:
    """What unfinished fragments may take of the host's memory in a network's namespace: 1 MiB in each family, for 10 s.

    Only the engine's own come that far, on their way to a zone; the zones' are put together by engine/fragments.py.
    """
    low, high = str(768 << 10), str(1 << 20)
    return [
        ("ipv4/ipfrag_low_thresh", low),
        ("ipv4/ipfrag_high_thresh", high),
        ("netfilter/nf_conntrack_frag6_low_thresh", low),
        ("netfilter/nf_conntrack_frag6_high_thresh", high),
        ("ipv4/ipfrag_time", "10"),
        ("netfilter/nf_conntrack_frag6_timeout", "10"),
    ]


def queue_sysctls() -> list[tuple[str, str]]:
    """How long the queues of connections towards the zones may become, where engine/queues.py lets them grow.

    The engine takes up to 1 MiB at once, and what is taken stays in its queue's account until it has been passed on:
    less than 4 MiB slows a single stream down. What a queue has in the beginning is half of the usual.
    """
    return [("ipv4/tcp_rmem", "4096 65536 4194304"), ("ipv4/tcp_wmem", "4096 16384 4194304")]


def route_lines(addresses: ZoneAddresses) -> list[str]:
    """The lines that make the whole world local, but for the zone's link; harmless where they were done before.

    All in the table `local`, which is looked up first: so the link's own prefixes have to be there, too.
    Source: ip-route(8), type local.
    """
    return [
        f"route replace {ip_network((addresses.gateway4, addresses.prefix4), strict=False)} dev {BRIDGE}"
        f" src {addresses.gateway4} table local",
        f"route replace {ip_network((addresses.gateway6, addresses.prefix6), strict=False)} dev {BRIDGE} table local",
        f"route replace fe80::/64 dev {BRIDGE} table local",
        "route replace local 0.0.0.0/0 dev lo table local",
        "route replace local ::/0 dev lo table local",
    ]


# Of a new namespace, before all else: the host may have it off, and new namespaces as the host has it.
IPV6_ON = ("ipv6/conf/all/disable_ipv6", "0")


def early_sysctls() -> list[tuple[str, str]]:
    """Settings below /proc/sys/net that must be there before the first device is: devices copy `default` when made."""
    devices = [
        (f"{family}/conf/{scope}/{key}", value)
        for scope in ("all", "default")
        for family, key, value in (
            ("ipv4", "forwarding", "0"),
            ("ipv4", "rp_filter", "1"),
            ("ipv4", "route_localnet", "0"),
            ("ipv4", "accept_redirects", "0"),
            ("ipv4", "send_redirects", "0"),
            ("ipv4", "accept_source_route", "0"),
            # Answer for the gateway's address on the bridge, and for nothing else.
            ("ipv4", "arp_ignore", "1"),
            ("ipv6", "forwarding", "0"),
            ("ipv6", "accept_ra", "0"),
            ("ipv6", "autoconf", "0"),
            ("ipv6", "accept_redirects", "0"),
            ("ipv6", "accept_source_route", "0"),
            ("ipv6", "accept_dad", "0"),
        )
    ]
    # The engine, a plain user, speaks for the outside's name servers too.
    return [*devices, ("ipv4/ip_unprivileged_port_start", "0")]


def late_sysctls() -> list[tuple[str, str]]:
    """Settings for devices that come after the bridge: a vif is a port only and speaks no IPv6 of its own."""
    return [("ipv6/conf/default/disable_ipv6", "1")]


def optional_sysctls() -> list[tuple[str, str]]:
    """Settings that exist only with some kernels.

    br_netfilter (docker loads it) would run `divert` on the bridge's way, before packet sockets see the packet.
    SYN cookies make connections of ACKs alone, past the gate.
    The port of a connection to a published port is kept for a minute after its end, where the client ended it. Of one
    address there are 28,232: a client that comes 500 times a second would have used them up. Where both sides have
    timestamps, the next one may have it a second later (ip-sysctl.rst, tcp_tw_reuse).
    """
    return [
        *((f"bridge/bridge-nf-call-{table}", "0") for table in ("iptables", "ip6tables", "arptables")),
        ("ipv4/tcp_syncookies", "0"),
        ("ipv4/tcp_tw_reuse", "1"),
        *queue_sysctls(),
    ]
