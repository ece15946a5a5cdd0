"""What a zone network is made of, as text: `ip -batch` lines, sysctls and the nft ruleset. Decides, does nothing.

                        namespace of the network                            | host's namespace
    zone -- vif -- bridge zw0 -- guard --+-- SYN, copied -----> packet socket ==|=> engine: gate => outer connect
                                         |   echo request, copied --> the same =|=> engine => raw ICMP socket
                                         |                                      |     |
                                         |   listener <- TPROXY <- lo <- SYN <==|= connected
                                         +-- rest of TCP -> its connection =====|=> engine => outer socket
                                         +-- UDP -> TPROXY or its flow =========|=> engine => outer socket
                   gateway addresses (ping, DNS by the kernel)                  |

All routing and filters are in the private namespace; the host's are not touched. In it every address that is not on the
zone's own link is local: the kernel takes the zone's packets to whatever destination as its own, and a program without
any privilege may use any address as its own. IP forwarding is off; `divert` names all that is let in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_network
from typing import NamedTuple

from runtime.net.addresses import ZoneAddresses
from runtime.net.errors import NetworkFault

BRIDGE = "zw0"
LINK_LOCAL = "fe80::1"
DNS_PORT = 53
# netback takes at most 65517 bytes, netfront a little less; IPv6 needs 1280. Source: network.md section 3, RFC 8200.
MTU_MIN = 1280
MTU_MAX = 65000


class Doors(NamedTuple):
    """Ports of the engine's TPROXY listeners on 127.0.0.1 and ::1."""

    tcp4: int
    tcp6: int
    udp4: int
    udp6: int


def check_mtu(name: str, mtu: int) -> None:
    """Raises NetworkFault for an MTU that a vif cannot have."""
    if not MTU_MIN <= mtu <= MTU_MAX:
        raise NetworkFault(f"network of zone {name}", expected=f"an MTU from {MTU_MIN} to {MTU_MAX}", got=str(mtu))


def netns_name(zone: str) -> str:
    """The namespace of a zone's private network. Raises NetworkFault for a name that is no file name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", zone):
        raise NetworkFault(
            f"network of zone {zone!r}", expected="a zone name of letters, digits, _ . -", got=repr(zone)
        )
    return f"zw-{zone}"


def ip_lines(addresses: ZoneAddresses, mtu: int) -> list[str]:
    """The lines for one `ip -batch -` in the new namespace: bridge and gateway."""
    return [
        "link set lo up",
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
    """What a zone's unfinished fragments may take of this host's memory: 1 MiB in each family, for the usual 30 s."""
    low, high = str(768 << 10), str(1 << 20)
    return [
        ("ipv4/ipfrag_low_thresh", low),
        ("ipv4/ipfrag_high_thresh", high),
        ("netfilter/nf_conntrack_frag6_low_thresh", low),
        ("netfilter/nf_conntrack_frag6_high_thresh", high),
        ("netfilter/nf_conntrack_frag6_timeout", "30"),
    ]


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
    """
    return [
        *((f"bridge/bridge-nf-call-{table}", "0") for table in ("iptables", "ip6tables", "arptables")),
        ("ipv4/tcp_syncookies", "0"),
    ]


def nft_ruleset(addresses: ZoneAddresses, doors: Doors) -> str:
    """The ruleset of the namespace: `guard` lets in only what this zone may send, `divert` says where it goes.

    The guard sits at the ingress of the bridge device, which sees every frame that leaves the one port for this host,
    so it can be loaded before the vif exists; packet sockets come after it.
    A SYN of the zone ends in `divert`: the engine has its copy, and sends it again, on `lo`, when the outer connect has
    succeeded. So does an echo request to the outside. The rest of TCP finds its connection by itself; what has none
    gets the kernel's RST.
    At the gateway's own addresses the kernel answers pings, and has the sockets for DNS. What else is sent there means
    the host's loopback, and is the engine's to judge.
    Fragments of UDP come in here; put together again by the kernel before `divert`, which sees only whole packets.
    Source:    nft(8), Documentation/networking/tproxy.rst.
    """
    zone4, zone6, gateway4, gateway6 = addresses.zone4, addresses.zone6, addresses.gateway4, addresses.gateway6
    neighbours = f"{{ {zone6}, {addresses.zone_link_local} }}"
    return f"""\
table netdev guard {{
 chain ingress {{
  type filter hook ingress device "{BRIDGE}" priority 0; policy drop;
  ether saddr != {addresses.zone_mac} counter drop
  ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation {{ request, reply }} \
arp saddr ether {addresses.zone_mac} arp saddr ip {zone4} accept
  ether daddr != {addresses.gateway_mac} jump discovery
  ether type ip jump zone_ip4
  ether type ip6 jump zone_ip6
  counter
 }}
 chain discovery {{
  ip6 saddr {neighbours} icmpv6 type nd-neighbor-solicit ip6 hoplimit 255 accept
  drop
 }}
 chain zone_ip4 {{
  ip saddr != {zone4} counter drop
  ip hdrlength != 5 drop
  ip protocol udp accept
  ip frag-off & 0x3fff != 0 drop
  ip protocol tcp accept
  icmp type echo-request accept
  ip daddr {gateway4} icmp type echo-reply accept
  drop
 }}
 chain zone_ip6 {{
  ip6 saddr {neighbours} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} ip6 hoplimit 255 accept
  ip6 saddr != {zone6} counter drop
  ip6 nexthdr {{ tcp, udp }} accept
  ip6 nexthdr ipv6-frag frag nexthdr udp accept
  icmpv6 type echo-request accept
  ip6 daddr {gateway6} icmpv6 type echo-reply accept
  drop
 }}
}}
table inet divert {{
 chain prerouting {{
  type filter hook prerouting priority mangle; policy drop;
  iifname "lo" jump resent
  iifname != "{BRIDGE}" drop
  ip daddr {gateway4} jump gateway
  ip6 daddr {gateway6} jump gateway
  icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
  tcp flags & (syn | ack) == syn drop
  meta l4proto tcp accept
  meta l4proto udp socket wildcard 0 accept
  meta nfproto ipv4 meta l4proto udp tproxy ip to 127.0.0.1:{doors.udp4} accept
  meta nfproto ipv6 meta l4proto udp tproxy ip6 to [::1]:{doors.udp6} accept
 }}
 chain gateway {{
  meta l4proto {{ tcp, udp }} th dport != {DNS_PORT} return
  accept
 }}
 chain resent {{
  meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:{doors.tcp4} accept
  meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:{doors.tcp6} accept
  drop
 }}
 chain forward {{
  type filter hook forward priority filter; policy drop;
 }}
}}
"""


def describe(zone: str, addresses: ZoneAddresses, mtu: int, ports: Sequence[tuple[str, int, int]] = ()) -> str:
    """The plan of a network as text, for people and failing tests; listeners' ports are chosen when it is made."""
    sysctls = [f"{key} = {value}" for key, value in (*early_sysctls(), *optional_sysctls(), *late_sysctls())]
    published = [f"{address}:{port} -> {zone_port}" for address, port, zone_port in ports]
    return "\n".join(
        [
            f"# netns {netns_name(zone)}",
            *sysctls,
            *ip_lines(addresses, mtu),
            *route_lines(addresses),
            nft_ruleset(addresses, Doors(0, 0, 0, 0)),
            *published,
        ]
    )
