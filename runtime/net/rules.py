"""A network's nft ruleset: `guard` lets in what each zone may send, `divert` says where it goes. Text, does nothing.

The guard is the bridge's: it sees every frame that a port takes in, whether it is for this host or for another zone.
Which zone sent it is told by the port, by the group number that was set on the vif before it became one; what a zone
may call itself stands in that zone's own chain. So no zone can speak with another's MAC, IPv4 or IPv6 address, nor say
of an address that is not its own where it is (ARP, neighbour discovery), nor act as a router.
What is neither for a zone nor for the gateway's MAC is refused: a vif has a MAC too, and what is sent there is for this
host's kernel, past all that is said of the gateway (net/bridge/br_fdb.c, br_fdb_add_local).
Packet sockets and `divert` are at the bridge device, behind the guard. A SYN of the zone ends in `divert`: the engine
has its copy, and sends it again, on `lo`, when the outer connect has succeeded. So does an echo request to the outside.
The rest of TCP finds its connection by itself; what has none gets the kernel's RST.
At the gateway's own addresses the kernel answers pings, and each zone's own sockets DNS. What else is sent there means
the host's loopback, and is the engine's to judge, by the rules of the zone that sent it.
A zone's UDP goes through TPROXY, which gives it to the engine's socket that is connected to the zone's port, or to the
zone's listener. No short cut by `socket wildcard 0` before it: that finds a new flow's socket between bind and connect
as well, for datagrams from any port; connected by the time they are delivered, it does not take them, and the zone is
told that nobody listens.
TODO: the one behind TPROXY, which skips what is not transparent, goes with the last engine whose sockets are not.
Fragments of UDP and of echo requests come in, and end before the kernel would put them together: the engine does, which
has copies of them (engine/fragments.py), and sends what is whole again on `lo`, as it does a SYN.
Source:    nft(8), Documentation/networking/tproxy.rst, RFC 826, RFC 4861 section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address

from runtime.net import plan
from runtime.net.addresses import GATEWAY_MAC, ZoneAddresses
from runtime.net.guardcounter import chain_of
from runtime.net.plan import BRIDGE, DNS_PORT, Doors, Place

_BEFORE_DEFRAGMENTING = -450  # linux/netfilter_ipv4.h, NF_IP_PRI_RAW_BEFORE_DEFRAG

_MULTICAST = "ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00"


def nft_ruleset(network: ZoneAddresses, places: Sequence[Place]) -> str:
    """The rules of a network with these zones; of none, it lets nothing in. network: any address of it."""
    return _guard(network, places) + _divert(network, places)


def _guard(network: ZoneAddresses, places: Sequence[Place]) -> str:
    to_zones = _vmap("meta iifgroup", ((str(place.group), place) for place in places))
    isolated = ", ".join(str(place.group) for place in places if place.isolated)
    for_zones = f"ether daddr & ff:ff:ff:ff:ff:00 == {network.zone_mac[:-2]}00"
    apart = f"  meta iifgroup {{ {isolated} }} drop\n  meta oifgroup {{ {isolated} }} drop\n" if isolated else ""
    return f"""\
table bridge guard {{
 chain prerouting {{
  type filter hook prerouting priority filter; policy drop;
  ether type != {{ ip, ip6, arp }} drop
{to_zones} }}
 chain forward {{
  type filter hook forward priority filter; policy accept;
{apart} }}
 chain from_zone4 {{
  {_MULTICAST} return
  {for_zones} accept
  ether daddr != {GATEWAY_MAC} return
  ip hdrlength != 5 return
  ip protocol udp accept
  ip protocol icmp ip frag-off & 0x1fff != 0 accept
  ip frag-off & 0x3fff != 0 icmp type echo-request accept
  ip frag-off & 0x3fff != 0 return
  ip protocol tcp accept
  icmp type echo-request accept
  ip daddr {network.gateway4} icmp type echo-reply accept
  return
 }}
 chain from_zone6 {{
  {_MULTICAST} return
  {for_zones} goto to_zone6
  ether daddr != {GATEWAY_MAC} return
  ip6 nexthdr {{ tcp, udp }} accept
  ip6 nexthdr ipv6-frag frag nexthdr udp accept
  ip6 nexthdr ipv6-frag frag nexthdr ipv6-icmp goto ping6
  ip6 nexthdr ipv6-icmp icmpv6 type echo-request accept
  ip6 daddr {network.gateway6} ip6 nexthdr ipv6-icmp icmpv6 type echo-reply accept
  return
 }}
 chain ping6 {{
  frag frag-off != 0 accept
  icmpv6 type echo-request accept
  return
 }}
 chain to_zone6 {{
  ip6 nexthdr {{ 0, 43, 60, 135 }} return
  ip6 nexthdr ipv6-frag frag nexthdr {{ 0, 43, 44, 60, 135 }} return
  icmpv6 type {{ nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect }} return
  accept
 }}
{"".join(map(zone_guard, places))}}}
"""


def zone_guard(place: Place) -> str:
    """What one zone may call itself.

    A solicitation or an advertisement is taken whole or not at all: with its one option, which names the zone's MAC,
    or without. Offsets are those of ICMPv6: target 8, option 24. What comes back from the common chains is refused, and
    counted for the zone.
    """
    refused = chain_of(place.group)
    zone, mac = place.addresses, place.addresses.zone_mac
    own = f"0x{mac.replace(':', '')}"
    ours = f"{{ {zone.zone6}, {zone.zone_link_local} }}"
    targets = "".join(
        f"  icmpv6 type nd-neighbor-advert @th,64,128 {_hexadecimal(address)} goto advertise_{place.group}\n"
        for address in (zone.zone6, zone.zone_link_local)
    )
    return f"""\
 chain zone_{place.group} {{
  ether saddr != {mac} goto {refused}
  arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation {{ request, reply }} \
arp saddr ether {mac} arp saddr ip {zone.zone4} accept
  ip saddr {zone.zone4} jump from_zone4
  ip6 saddr {ours} ip6 nexthdr ipv6-icmp ip6 hoplimit 255 jump discover_{place.group}
  ip6 saddr {zone.zone6} jump from_zone6
  goto {refused}
 }}
 chain discover_{place.group} {{
  icmpv6 type nd-neighbor-solicit ip6 length 24 accept
  icmpv6 type nd-neighbor-solicit ip6 length 32 @th,192,16 0x0101 @th,208,48 {own} accept
{targets} }}
 chain advertise_{place.group} {{
  ip6 length 24 accept
  ip6 length 32 @th,192,16 0x0201 @th,208,48 {own} accept
  goto {refused}
 }}
 chain {refused} {{
  counter drop
 }}
"""


def _hexadecimal(address: str) -> str:
    return f"0x{int(IPv6Address(address)):032x}"


def _divert(network: ZoneAddresses, places: Sequence[Place]) -> str:
    by4 = _vmap("ip saddr", ((place.addresses.zone4, place) for place in places))
    by6 = _vmap("ip6 saddr", ((place.addresses.zone6, place) for place in places))
    return f"""\
table inet divert {{
 chain fragments {{
  type filter hook prerouting priority {_BEFORE_DEFRAGMENTING}; policy drop;
  iifname != "{BRIDGE}" accept
  ip frag-off & 0x3fff == 0 accept
  ip6 nexthdr != ipv6-frag accept
 }}
 chain prerouting {{
  type filter hook prerouting priority mangle; policy drop;
  iifname "lo" meta l4proto {{ tcp, udp }} goto zones
  iifname "lo" ip daddr {network.gateway4} icmp type echo-request accept
  iifname "lo" ip6 daddr {network.gateway6} icmpv6 type echo-request accept
  iifname != "{BRIDGE}" drop
  ip daddr {network.gateway4} jump gateway
  ip6 daddr {network.gateway6} jump gateway
  icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
  tcp flags & (syn | ack) == syn drop
  meta l4proto tcp accept
  meta l4proto udp jump zones
  meta l4proto udp socket wildcard 0 accept
 }}
 chain gateway {{
  meta l4proto {{ tcp, udp }} th dport {DNS_PORT} goto zones
  meta l4proto {{ tcp, udp }} return
  accept
 }}
 chain zones {{
{by4}{by6}  drop
 }}
{"".join(map(_zone_doors, places))} chain forward {{
  type filter hook forward priority filter; policy drop;
 }}
}}
"""


def _zone_doors(place: Place) -> str:
    doors = place.doors
    return f"""\
 chain zone_{place.group} {{
  meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:{doors.tcp4} accept
  meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:{doors.tcp6} accept
  meta nfproto ipv4 meta l4proto udp tproxy ip to 127.0.0.1:{doors.udp4} accept
  meta nfproto ipv6 meta l4proto udp tproxy ip6 to [::1]:{doors.udp6} accept
 }}
"""


def _vmap(what: str, places: Iterable[tuple[str, Place]]) -> str:
    """The line that leads to each zone's chain; none without zones, as nft takes no empty map."""
    verdicts = ", ".join(f"{key} : goto zone_{place.group}" for key, place in places)
    return f"  {what} vmap {{ {verdicts} }}\n" if verdicts else ""


def describe(zone: str, addresses: ZoneAddresses, mtu: int, ports: Sequence[tuple[str, int, int]] = ()) -> str:
    """The plan of a zone's private network as text, for people and failing tests; its ports are chosen when made."""
    settings = (plan.IPV6_ON, *plan.early_sysctls(), *plan.optional_sysctls(), *plan.late_sysctls())
    return "\n".join(
        [
            f"# netns {plan.netns_name(zone)}",
            *(f"{key} = {value}" for key, value in settings),
            *plan.ip_lines(addresses, mtu),
            *plan.route_lines(addresses),
            nft_ruleset(addresses, [Place(addresses, Doors(0, 0, 0, 0))]),
            *(f"{address}:{port} -> {zone_port}" for address, port, zone_port in ports),
        ]
    )
