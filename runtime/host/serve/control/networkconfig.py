"""What ConfigureZoneNetwork may change of a zone that runs, checked: its mtu, its routes, its neighbours.

Addresses stay what the host gave: it lets nothing else through. What is asked for is added, or put in the place of what
has the same destination.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from runtime.host.api import common_pb2 as pb
from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.model import ZoneInfo
from runtime.host.serve.answers import NotServed
from runtime.host.serve.control.messages import INTERFACE

MTU_MIN, MTU_MAX = 576, 1500
# include/uapi/linux/rtnetlink.h
MAIN_TABLE = 254
UNICAST = 1
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_DEFAULTS = {4: "0.0.0.0/0", 6: "::/0"}
_NUD = {
    pb.ZONE_NETWORK_NUD_MODE_PERMANENT: "permanent",
    pb.ZONE_NETWORK_NUD_MODE_NOARP: "noarp",
    pb.ZONE_NETWORK_NUD_MODE_REACHABLE: "reachable",
}


def network_change(zone: ZoneInfo, config: pb.ZoneNetworkConfig) -> dict[str, Any]:
    """What the agent's method `network` takes; an mtu of 0 is as it is. Raises BadRequest, NotServed."""
    if len(config.interfaces) > 1:
        got = str(len(config.interfaces))
        raise NotServed("network config: interfaces", got=got, hint=f"zones have {INTERFACE} alone")
    mtu = _interface(zone, config.interfaces[0]) if config.interfaces else 0
    return {
        "interface": INTERFACE,
        "mtu": mtu,
        "routes": [_route(zone, route) for route in config.routes],
        "neighbors": [_neighbor(neighbor) for neighbor in config.neighbors],
    }


def _interface(zone: ZoneInfo, asked: pb.ZoneNetworkInterfaceConfig) -> int:
    _own(asked.zone_interface, "interfaces.zone_interface")
    if asked.zone_mac and asked.zone_mac.lower() != zone.mac:
        raise _bad("interfaces.zone_mac", f"{zone.mac}, as it is", asked.zone_mac)
    addresses = {ipaddress.ip_interface(address).ip for address in zone.addresses}
    for ip in asked.ips:
        if (found := _parse(ipaddress.ip_interface, ip.address, "interfaces.ips").ip) not in addresses:
            expected = f"those the host gave: {', '.join(map(str, zone.addresses))}"
            raise _bad("interfaces.ips", expected, str(found))
    if asked.mtu and not MTU_MIN <= asked.mtu <= MTU_MAX:
        raise _bad("interfaces.mtu", f"{MTU_MIN} to {MTU_MAX}", str(asked.mtu))
    return asked.mtu


def _route(zone: ZoneInfo, asked: pb.ZoneNetworkRoute) -> dict[str, str]:
    _own(asked.output_interface, "routes.output_interface")
    if asked.table not in (0, MAIN_TABLE) or asked.kind not in (0, UNICAST) or asked.scope or asked.source:
        got = f"table {asked.table}, kind {asked.kind}, scope {asked.scope}, source {asked.source or 'any'}"
        raise NotServed("network config: routes", got=got, hint="unicast routes of the main table, from any source")
    version = 6 if asked.version == pb.ZONE_NETWORK_IP_VERSION_V6 else 4
    text = asked.destination if asked.destination not in ("", "default") else _DEFAULTS[version]
    destination = _parse(ipaddress.ip_network, text, "routes.destination")
    found = {"destination": str(destination), "gateway": "", "source": ""}
    for key, given in (("gateway", asked.gateway), ("source", asked.pref_source)):
        if given:
            address = _parse(ipaddress.ip_address, given, f"routes.{key}")
            if address.version != destination.version:
                raise _bad(f"routes.{key}", f"an IPv{destination.version} address", given)
            found[key] = str(address)
    if found["source"] and found["source"] not in {str(ipaddress.ip_interface(own).ip) for own in zone.addresses}:
        raise _bad("routes.pref_source", "an address of the zone", found["source"])
    return found


def _neighbor(asked: pb.ZoneNetworkNeighborEntry) -> dict[str, str]:
    _own(asked.attached_interface, "neighbors.attached_interface")
    address = _parse(ipaddress.ip_address, asked.ip_address, "neighbors.ip_address")
    mac = asked.link_layer_address.lower()
    if not _MAC.fullmatch(mac):
        raise _bad("neighbors.link_layer_address", "six bytes such as 02:00:00:00:00:01", mac)
    return {"address": str(address), "mac": mac, "state": _NUD[asked.unreachability_detection]}


def _own(name: str, field: str) -> None:
    if name not in ("", INTERFACE):
        raise _bad(field, INTERFACE, name)


def _parse(kind: Any, text: str, field: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise _bad(field, "an IPv4 or IPv6 address", text) from None


def _bad(field: str, expected: str, got: str) -> BadRequest:
    return BadRequest(f"network config: {field}", expected=expected, got=repr(got)[:120])
