"""What a network whose engine is pasta is made of, as text. Decides, does nothing.

    zone -- vif -- guard -- bridge zw0 -- tap0 -- pasta (own uid) ==> outer sockets, in the host's namespace
                     |
                     +-- what policy closes, pings of the gateway --> the namespace's kernel, which answers

The gateway is pasta, at the gateway's own MAC: it answers ARP and neighbour discovery, and DNS there goes to the
host's resolver. The bridge has another MAC and no address. `guard` is the bridge's: beside who a zone may say it is, it
decides what may begin, in the order of policy.decide: a SYN, a datagram that answers none, a ping. All else of TCP
passes, since it belongs to what was let out, or pasta answers it with RST. What is closed is turned to the kernel of
the namespace, to which every address is local, and which refuses it; TCP that is let out never meets that kernel's.

Later versions, as 2026_07_28, send what comes from a neighbour of the host's with that neighbour's MAC, and announce
it (fwd.c, fwd_neigh_table_update). To the zone all is the gateway's, and the bridge learns no other MAC of the tap's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import collapse_addresses, ip_network
from typing import Any, NamedTuple, cast

from pipeline.bundle.egress import ICMP, Network, Rule
from pipeline.bundle.model import Port
from runtime.net.addresses import GATEWAY_MAC, ZoneAddresses
from runtime.net.errors import NetworkFault
from runtime.net.plan import BRIDGE, DNS_PORT, Doors, Place
from runtime.net.policy import closed_around, closed_networks
from runtime.net.pool import pools
from runtime.net.rules import zone_guard

TAP = "tap0"
BRIDGE_MAC = "02:7a:77:00:00:02"
# Whence the namespace's kernel asks whether a zone's port answers: closed addresses, so no flow of pasta's has them.
PROBE4, PROBE6 = "169.254.75.1", "fec0::75"
_ANSWERED_S = 180  # as long as pasta's own UDP flows live
_CLOSED_MARK, _OWN_MARK = "0x2", "0x3"
_MULTICAST = "ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00"


class HostAddresses(NamedTuple):
    """What the host's routing calls its own. barred: broadcast, anycast and multicast, which no rule opens."""

    own: tuple[str, ...] = ()
    barred: tuple[str, ...] = ()


NOT_LOOKED_AT = HostAddresses()


def ip_lines(mtu: int) -> list[str]:
    """The lines for one `ip -batch -` in the new namespace."""
    return [
        "link set lo up",
        f"link add {BRIDGE} address {BRIDGE_MAC} mtu {mtu} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        f"link set {BRIDGE} addrgenmode none",
        f"link set {BRIDGE} up",
    ]


def route_lines(addresses: ZoneAddresses) -> list[str]:
    """Every address is the kernel's own, but for the zone's link; where the zone is needs no asking."""
    subnet4, subnet6 = addresses.subnets
    return [
        f"route replace {subnet4} dev {BRIDGE} scope link table local",
        f"route replace {subnet6} dev {BRIDGE} table local",
        f"route replace local {addresses.gateway4} dev lo table local",
        f"route replace local {addresses.gateway6} dev lo table local",
        "route replace local 0.0.0.0/0 dev lo table local",
        "route replace local ::/0 dev lo table local",
    ]


def neighbour_lines(zone: ZoneAddresses) -> list[str]:
    """The zone's MAC: a question for it would tell the zone another MAC of the gateway."""
    return [
        f"neigh replace {address} lladdr {zone.zone_mac} dev {BRIDGE} nud permanent"
        for address in (zone.zone4, zone.zone6)
    ]


def sysctls() -> list[tuple[str, str]]:
    """After those of any network: this kernel answers ARP for no address at all. Source: ip-sysctl.rst, arp_ignore."""
    return [("ipv4/conf/all/arp_ignore", "8"), ("ipv4/conf/default/arp_ignore", "8")]


def check_egress(rules: Sequence[Rule], subject: str) -> None:
    """Raises NetworkFault for a rule that opens the host's loopback, to which pasta is given no way."""
    for rule in rules:
        if rule.allow and rule.network is not None and rule.network.is_loopback:
            expected = "no egress rule that opens the host's loopback"
            raise NetworkFault(
                subject, expected=expected, got=f"allow {rule.network}", hint="the engine splice has a way there"
            )


def check_ports(ports: Sequence[Port], subject: str) -> None:
    """Raises NetworkFault for ports that differ by nothing but their host address: pasta maps numbers."""
    mapped: dict[tuple[str, int], int] = {}
    for port in ports:
        if mapped.setdefault((port.protocol, port.host_port), port.zone_port) != port.zone_port:
            raise NetworkFault(
                subject,
                expected=f"one port of the zone for port {port.host_port}/{port.protocol}, whatever address it is of",
                got=f"{mapped[port.protocol, port.host_port]} and {port.zone_port}",
                hint="the engine splice can",
            )


def pasta_argv(
    program: str,
    zone: ZoneAddresses,
    ports: Sequence[Port],
    *,
    uid: int,
    mtu: int,
    resolvers: tuple[str, str],
    userns: str,
    netns: str,
    ready: str,
) -> list[str]:
    """The command line.

    resolvers:  the host's name servers of IPv4 and IPv6 that questions to the gateway go to; "" for none.
    userns:     a file that is the owner of the namespace. ready: a file written to when it serves.
    """
    argv = [program, "--foreground", "--quiet", "--runas", f"{uid}:{uid}", "--userns", userns, "--netns", netns]
    argv += ["--no-netns-quit", "--pid", ready, "--ns-ifname", TAP, "--mac-addr", GATEWAY_MAC, "--mtu", str(mtu)]
    argv += ["--address", zone.zone4, "--netmask", str(zone.prefix4), "--gateway", zone.gateway4]
    argv += ["--address", zone.zone6, "--gateway", zone.gateway6]
    # The host's loopback: not at the gateway's address, not by way of the namespace's, not from it.
    argv += ["--no-map-gw", "--no-splice", "--tcp-ns", "none", "--udp-ns", "none"]
    argv += ["--no-dhcp", "--no-dhcpv6", "--no-ra"]
    # Later versions take the gateway's MAC from a neighbour of the host's that says it has that address, but not where
    # it is mapped (fwd.c, fwd_neigh_table_init). Mapped to the zone's own: the guard lets nothing begin there.
    argv += ["--map-guest-addr", zone.gateway4, "--map-guest-addr", zone.gateway6]
    for gateway, resolver in zip((zone.gateway4, zone.gateway6), resolvers, strict=True):
        if resolver:
            argv += ["--dns-forward", gateway, "--dns-host", resolver]
    for protocol in ("tcp", "udp"):
        published = [port for port in ports if port.protocol == protocol]
        words = [f"{port.host_address}/{port.host_port}:{port.zone_port}" for port in published] or ["none"]
        argv += [part for word in words for part in (f"--{protocol}-ports", word)]
    return argv


def hint_of_low_ports(ports: Sequence[Port], first_free: int, said: str) -> str:
    """What to do where pasta was not let bind a port below the first that is not root's; "" where it is not that.

    2025_05_03 binds them before it leaves root, 2026_07_28 as its own user (isolation.c, isolate_user).
    """
    low = sorted({port.host_port for port in ports if port.host_port < first_free})
    if not low or "Permission denied" not in said:
        return ""
    numbers = ", ".join(map(str, low))
    return f"later versions than 2025_05_03 may bind no port below {first_free}, here {numbers}; the engine splice can"


def choose_resolvers(resolvers: Sequence[str]) -> tuple[str, str]:
    """The first name server of each family: pasta has one of each."""
    first4, first6 = (next((item for item in resolvers if (":" in item) is v6), "") for v6 in (False, True))
    return first4, first6


def ruleset(
    network: ZoneAddresses,
    zone: ZoneAddresses | None,
    *,
    rules: Sequence[Rule] = (),
    deny: Sequence[Network] = (),
    host: HostAddresses = NOT_LOOKED_AT,
    resolvers: tuple[str, str] = ("", ""),
) -> str:
    """The rules of a network with this zone; without, it lets nothing in."""
    if zone is None:
        hook = "type filter hook prerouting priority filter; policy drop;"
        return f"table bridge guard {{\n chain prerouting {{\n  {hook}\n }}\n}}\n"
    place = Place(zone, Doors(0, 0, 0, 0))
    return f"""\
table bridge guard {{
 set answered4 {{ type ipv4_addr . inet_service . ipv4_addr . inet_service; flags dynamic, timeout; \
timeout {_ANSWERED_S}s; size 16384; }}
 set answered6 {{ type ipv6_addr . inet_service . ipv6_addr . inet_service; flags dynamic, timeout; \
timeout {_ANSWERED_S}s; size 16384; }}
 chain prerouting {{
  type filter hook prerouting priority filter; policy drop;
  ether type != {{ ip, ip6, arp }} drop
  iifname "{TAP}" goto from_pasta
  meta iifgroup {place.group} goto zone_{place.group}
 }}
 chain from_pasta {{
  arp saddr ether != {GATEWAY_MAC} drop
  icmpv6 type nd-neighbor-advert @th,208,48 != 0x{GATEWAY_MAC.replace(":", "")} drop
  ether saddr set {GATEWAY_MAC}
  ip protocol udp update @answered4 {{ ip saddr . udp sport . ip daddr . udp dport }}
  ip6 nexthdr udp update @answered6 {{ ip6 saddr . udp sport . ip6 daddr . udp dport }}
  {_MULTICAST} accept
  ether daddr set {zone.zone_mac} accept
 }}
 chain from_zone4 {{
  {_MULTICAST} return
  ether daddr != {GATEWAY_MAC} return
  ip hdrlength != 5 return
  ip frag-off & 0x3fff != 0 return
  ip daddr {network.gateway4} icmp type echo-request goto own
  ip daddr {PROBE4} tcp flags & (syn | ack) != syn goto own
{_dns(f"ip daddr {network.gateway4} ip protocol", resolvers[0])}\
  ip protocol tcp tcp flags & (syn | ack) != syn accept
  ip daddr . udp dport . ip saddr . udp sport @answered4 accept
  ip protocol {{ tcp, udp }} goto egress4
  icmp type echo-request goto egress4
  return
 }}
 chain from_zone6 {{
  {_MULTICAST} return
  ether daddr != {GATEWAY_MAC} return
  ip6 daddr {network.gateway6} ip6 nexthdr ipv6-icmp icmpv6 type echo-request goto own
  ip6 daddr {PROBE6} ip6 nexthdr tcp tcp flags & (syn | ack) != syn goto own
{_dns(f"ip6 daddr {network.gateway6} ip6 nexthdr", resolvers[1])}\
  ip6 nexthdr tcp tcp flags & (syn | ack) != syn accept
  ip6 nexthdr udp ip6 daddr . udp dport . ip6 saddr . udp sport @answered6 accept
  ip6 nexthdr {{ tcp, udp }} goto egress6
  ip6 nexthdr ipv6-icmp icmpv6 type echo-request goto egress6
  return
 }}
 chain egress4 {{
{_egress(4, rules, deny, host)} }}
 chain egress6 {{
{_egress(6, rules, deny, host)} }}
 chain shut {{
  counter meta mark set {_CLOSED_MARK} ether daddr set {BRIDGE_MAC} meta pkttype set host accept
 }}
 chain own {{
  meta mark set {_OWN_MARK} ether daddr set {BRIDGE_MAC} meta pkttype set host accept
 }}
{zone_guard(place)}}}
table inet verdict {{
 chain input {{
  type filter hook input priority filter; policy drop;
  iifname != "{BRIDGE}" drop
  meta mark {_CLOSED_MARK} meta l4proto tcp reject with tcp reset
  meta mark {_CLOSED_MARK} limit rate 500/second reject with icmpx admin-prohibited
  meta mark {_OWN_MARK} accept
 }}
 chain forward {{
  type filter hook forward priority filter; policy drop;
 }}
}}
"""


def _dns(to_gateway: str, resolver: str) -> str:
    # By the header's own field: `meta l4proto` is what is behind extension headers.
    return f"  {to_gateway} {{ tcp, udp }} th dport {DNS_PORT} accept\n" if resolver else ""


def _egress(version: int, rules: Sequence[Rule], deny: Sequence[Network], host: HostAddresses) -> str:
    """policy.decide, in its order, for what begins towards addresses of one family."""
    to = "ip daddr" if version == 4 else "ip6 daddr"
    own, barred = (_set(version, texts) for texts in (host.own, host.barred))
    closed_here = closed_networks(pools())
    named = _set(version, [str(closed.network) for closed in closed_here if closed.nameable])
    denied = _set(version, map(str, deny))
    always = _set(version, [str(closed.network) for closed in closed_here if not closed.nameable])
    lines = [f"{to} {always} goto shut"]
    lines += [f"{to} {closed} goto shut" for closed in (denied, barred) if closed]
    but_own = f"{to} != {own} " if own else ""
    but_named = f"{to} != {named} "
    for rule in rules:
        if rule.network is not None and rule.network.version != version:
            continue
        matching = _matching(rule, version, to)
        if not rule.allow:
            lines.append(f"{matching}goto shut")
            continue
        names_own = rule.network is not None and rule.network.num_addresses == 1
        names_closed = rule.network is not None and closed_around(rule.network) is not None
        lines.append(f"{matching}{'' if names_own else but_own}{'' if names_closed else but_named}accept")
    lines += [f"{to} {closed} goto shut" for closed in (own, named) if closed]
    return "".join(f"  {line}\n" for line in [*lines, "accept"])


def _matching(rule: Rule, version: int, to: str) -> str:
    # nft takes no prefix of no bits, nor a range of one.
    network = f"{to} {rule.network} " if rule.network is not None and rule.network.prefixlen else ""
    if rule.protocol == ICMP:
        return f"{network}meta l4proto {'icmp' if version == 4 else 'ipv6-icmp'} "
    protocol = rule.protocol or ("{ tcp, udp }" if rule.first_port else "")
    numbers = str(rule.first_port) if rule.first_port == rule.last_port else f"{rule.first_port}-{rule.last_port}"
    ports = f"th dport {numbers} " if rule.first_port else ""
    return f"{network}{f'meta l4proto {protocol} ' if protocol else ''}{ports}"


def _set(version: int, texts: Iterable[str]) -> str:
    """An anonymous set of the networks of one family, none inside another; "" for none of them."""
    networks = [network for text in texts if (network := ip_network(text)).version == version]
    kept = [str(network) for network in collapse_addresses(cast(Any, networks))]
    return f"{{ {', '.join(kept)} }}" if kept else ""
