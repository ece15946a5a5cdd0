"""Which addresses a zone network has: everything follows from one small number, its index.

The pools are the host's, 10.75.0.0/16 and the unique local fd5a:6f6e:6577::/48 where it names no others: one /24 and
one /64 per network.
zoned keeps which indexes are used; nothing here remembers anything.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from runtime.net.errors import AddressesExhausted, BadAddress
from runtime.net.pool import PREFIX4, PREFIX6, pools

GATEWAY_HOST, ZONE_HOST = 1, 2
LAST_HOST = (1 << (32 - PREFIX4)) - 2  # the last one is the broadcast address

# The same in every network: a zone keeps a valid neighbour entry when the namespace behind it is made anew.
GATEWAY_MAC = "02:7a:77:00:00:01"


@dataclass(frozen=True)
class ZoneAddresses:
    """Both ends of a zone's network: plain text, as `ip`, `nft` and the zone's init want it."""

    index: int
    zone4: str
    gateway4: str
    prefix4: int
    zone6: str
    gateway6: str
    prefix6: int
    zone_mac: str
    gateway_mac: str

    @property
    def host(self) -> int:
        """The zone's number in its network, the same in both families."""
        return int(IPv4Address(self.zone4)) & (1 << (32 - PREFIX4)) - 1

    @property
    def echo_identifier(self) -> int:
        """Of the echo requests that are sent on for the zone: no other zone of this host has it."""
        return self.index << (32 - PREFIX4) | self.host

    @property
    def subnets(self) -> tuple[str, str]:
        """The network in both families."""
        ends = ((self.gateway4, self.prefix4), (self.gateway6, self.prefix6))
        subnet4, subnet6 = (str(ip_network(end, strict=False)) for end in ends)
        return subnet4, subnet6

    @property
    def zone_link_local(self) -> str:
        """The address the zone's kernel forms from its MAC by itself; it probes its neighbours from there.

        Source: RFC 4291 appendix A (modified EUI-64).
        """
        octets = [int(part, 16) for part in self.zone_mac.split(":")]
        octets[0] ^= 0x02
        interface = bytes([*octets[:3], 0xFF, 0xFE, *octets[3:]])
        return str(IPv6Address(bytes.fromhex("fe80000000000000") + interface))


def plan_addresses(index: int, *, host: int = ZONE_HOST) -> ZoneAddresses:
    """The addresses of network `index`.

    Shape:   gateway is host 1, the zone host `host` (3 to 254 for a static address) of each subnet.
    Raises:  AddressesExhausted when the index lies outside the pool; BadAddress for a host that no zone can be.
    Effects: none.
    """
    pool4, pool6 = pools()
    if not 0 <= index < pools().networks:
        raise AddressesExhausted(
            f"zone network {index}", expected=f"an index from 0 to {pools().networks - 1}", got=str(index)
        )
    if not GATEWAY_HOST < host <= LAST_HOST:
        raise BadAddress(f"host of zone network {index}", expected=f"from {ZONE_HOST} to {LAST_HOST}", got=str(host))
    net4 = int(pool4.network_address) + (index << (32 - PREFIX4))
    net6 = int(pool6.network_address) + (index << (128 - PREFIX6))
    subnet4, subnet6 = IPv4Network((net4, PREFIX4)), IPv6Network((net6, PREFIX6))
    return ZoneAddresses(
        index=index,
        zone4=str(subnet4[host]),
        gateway4=str(subnet4[GATEWAY_HOST]),
        prefix4=PREFIX4,
        zone6=str(subnet6[host]),
        gateway6=str(subnet6[GATEWAY_HOST]),
        prefix6=PREFIX6,
        # 00:16:3e is Xen's own OUI; 4b is 75.
        zone_mac=f"00:16:3e:4b:{index:02x}:{host:02x}",
        gateway_mac=GATEWAY_MAC,
    )


def parse_static(text: str) -> tuple[int, int]:
    """(index, host) of an address of either pool. Raises BadAddress."""
    pool4, pool6 = pools()
    expected = f"an address of {pool4} or {pool6} that a zone can have"
    try:
        address = ip_address(text)
    except ValueError:
        raise BadAddress(f"address {text!r}", expected=expected, got="no address") from None
    if isinstance(address, IPv4Address) and address in pool4:
        index, host = divmod(int(address) - int(pool4.network_address), 1 << (32 - PREFIX4))
    elif isinstance(address, IPv6Address) and address in pool6:
        index, host = divmod(int(address) - int(pool6.network_address), 1 << (128 - PREFIX6))
    else:
        raise BadAddress(f"address {text}", expected=expected, got="one of another network")
    if not GATEWAY_HOST < host <= LAST_HOST or index >= pools().networks:
        raise BadAddress(f"address {text}", expected=expected, got="a gateway's, a network's or a broadcast address")
    return index, host


def allocate_host(index: int, used: Collection[int]) -> int:
    """The smallest free zone's number of network `index`. Raises AddressesExhausted. Effects: none."""
    free = next((host for host in range(ZONE_HOST, LAST_HOST + 1) if host not in used), None)
    if free is None:
        raise AddressesExhausted(
            f"zone network {index}",
            expected="a free address for one more zone",
            got=f"all {LAST_HOST - ZONE_HOST + 1} used",
            hint="stop a zone that is no longer needed, or use another network",
        )
    return free


def allocate_index(used: Collection[int]) -> int:
    """The smallest free index. Raises AddressesExhausted. Effects: none: the caller keeps what is used."""
    size = pools().networks
    free = next((index for index in range(size) if index not in used), None)
    if free is None:
        raise AddressesExhausted(
            f"address pool {pools().v4}",
            expected="a free subnet for one more zone",
            got=f"all {size} used",
            hint="stop a zone, or remove a network, that is no longer needed",
        )
    return free
