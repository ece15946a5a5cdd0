"""What a zone network is made of, as text: `ip -batch` lines, sysctls and the nft ruleset. Decides, does nothing.

                      namespace of the network                  | host's namespace
    zone -- vif -- bridge zw0 -- guard -- TPROXY -> listener ===|=> engine => outer socket
                   gateway addresses (ping, DNS by the kernel)  |

All routing rules and filters are in the private namespace; the host's are not touched. IP forwarding is off: a packet
that is not taken by TPROXY or by the gateway itself has nowhere to go.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from runtime.net.addresses import ZoneAddresses
from runtime.net.errors import NetworkFault

BRIDGE = "zw0"
LINK_LOCAL = "fe80::1"
MARK = 1
TABLE = 100
DNS_PORT = 53
# netback takes at most 65517 bytes, netfront a little less; IPv6 needs 1280. Source: network.md section 3, RFC 8200.
MTU_MIN = 1280
MTU_MAX = 65000


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
    """The lines for one `ip -batch -` in the new namespace: bridge, gateway, what is local.

    The rules `fwmark MARK lookup TABLE` are not here: a batch has one address family, see netlink.add_mark_rule.
    """
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
        f"route add local 0.0.0.0/0 dev lo table {TABLE}",
        f"route add local ::/0 dev lo table {TABLE}",
    ]


def early_sysctls() -> list[tuple[str, str]]:
    """Settings below /proc/sys/net that must be there before the first device is: devices copy `default` when made."""
    return [
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


def late_sysctls() -> list[tuple[str, str]]:
    """Settings for devices that come after the bridge: a vif is a port only and speaks no IPv6 of its own."""
    return [("ipv6/conf/default/disable_ipv6", "1")]


def optional_sysctls() -> list[tuple[str, str]]:
    """Settings that exist only where br_netfilter is in the kernel (docker loads it).

    It would run the rules on the bridge's way, where TPROXY's choice of a socket gets lost, and skip them after it.
    """
    return [(f"bridge/bridge-nf-call-{table}", "0") for table in ("iptables", "ip6tables", "arptables")]


def nft_ruleset(addresses: ZoneAddresses, *, tproxy4: int, tproxy6: int, outside6: bool = True) -> str:
    """The ruleset of the namespace: `guard` lets in only what this zone may send, `divert` says where it goes.

    The guard sits at the ingress of the bridge device, which sees every frame that leaves the one port for this host,
    so it can be loaded before the vif exists.
    tproxy4/6: ports of the engine's listeners on 127.0.0.1 and ::1.
    outside6:  False when the host has no IPv6 beyond its own links; the kernel then answers a zone's IPv6 connection
               with "no route", so that a program with addresses of both families goes on to IPv4 at once.
    Source:    nft(8), Documentation/networking/tproxy.rst.
    """
    zone4, zone6, gateway4, gateway6 = addresses.zone4, addresses.zone6, addresses.gateway4, addresses.gateway6
    neighbours = f"{{ {zone6}, {addresses.zone_link_local} }}"
    to_outside6 = f"meta mark set {MARK} tproxy ip6 to [::1]:{tproxy6} accept" if outside6 else "accept"
    # Without a route of its own the kernel answers with ICMPv6 "no route", without help from here.
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
  ip frag-off & 0x3fff != 0 drop
  ip protocol tcp accept
  ip daddr != {gateway4} drop
  icmp type {{ echo-request, echo-reply }} accept
  udp dport {DNS_PORT} accept
  drop
 }}
 chain zone_ip6 {{
  ip6 saddr {neighbours} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} ip6 hoplimit 255 accept
  ip6 saddr != {zone6} counter drop
  ip6 nexthdr tcp accept
  ip6 daddr != {gateway6} drop
  icmpv6 type {{ echo-request, echo-reply }} accept
  udp dport {DNS_PORT} accept
  drop
 }}
}}
table inet divert {{
 chain prerouting {{
  type filter hook prerouting priority mangle; policy accept;
  iifname != "{BRIDGE}" accept
  ip daddr {gateway4} accept
  ip6 daddr {gateway6} accept
  meta nfproto ipv4 meta l4proto tcp meta mark set {MARK} tproxy ip to 127.0.0.1:{tproxy4} accept
  meta nfproto ipv6 meta l4proto tcp {to_outside6}
 }}
 chain forward {{
  type filter hook forward priority filter; policy drop;
 }}
}}
"""


def has_outside6(ipv6_route: str) -> bool:
    """Does this host reach anything by IPv6 beyond link-local? Takes the text of /proc/net/ipv6_route.

    Source: net/ipv6/route.c, rt6_info_route: destination, prefix length, ..., flags, device. 0x0200 is RTF_REJECT.
    """
    for line in ipv6_route.splitlines():
        fields = line.split()
        destination, flags, device = fields[0], int(fields[8], 16), fields[9]
        if device != "lo" and not flags & 0x0200 and not destination.startswith(("fe8", "ff")):
            return True
    return False


def describe(zone: str, addresses: ZoneAddresses, mtu: int, ports: Sequence[tuple[str, int, int]] = ()) -> str:
    """The plan of a network as text, for people and failing tests; listeners' ports are chosen when it is made."""
    sysctls = [f"{key} = {value}" for key, value in (*early_sysctls(), *optional_sysctls(), *late_sysctls())]
    published = [f"{address}:{port} -> {zone_port}" for address, port, zone_port in ports]
    return "\n".join(
        [
            f"# netns {netns_name(zone)}",
            *sysctls,
            *ip_lines(addresses, mtu),
            nft_ruleset(addresses, tproxy4=0, tproxy6=0),
            *published,
        ]
    )
