"""Change the zone's interface while it runs: its mtu, routes, neighbours. Its addresses are the host's to give."""

import _socket

from runtime.init import abi, netlink, netroutes
from runtime.init.agent import params
from runtime.init.agent.errors import Refused
from runtime.init.agent.params import Params
from runtime.init.failure import BootFailure, why
from runtime.init.network import Link

_STATES = {"permanent": abi.NUD_PERMANENT, "noarp": abi.NUD_NOARP, "reachable": abi.NUD_REACHABLE}


def change(given: Params) -> Params:
    """Take {interface, mtu, routes: [{destination, gateway, source}], neighbors: [{address, mac, state}]}.

    An mtu of 0 is as it is.
    Each is put in the place of what has the same destination or address. What the kernel refuses ends it; what came
    before that stays.
    """
    name, mtu = params.text(given, "interface"), params.number(given, "mtu", 0, most=65535)
    try:
        index = _socket.if_nametoindex(name)
    except OSError as error:
        raise Refused("network", f"interface {name!r:.60}: {why(error)}") from None
    link = Link()
    try:
        if mtu:
            link.request(f"mtu {mtu} of {name}", netlink.link_up(index, mtu, link.next()))
        for route in _objects(given, "routes"):
            destination = params.text(route, "destination")
            gateway, source = params.text(route, "gateway", ""), params.text(route, "source", "")
            message = netroutes.set_route(index, destination, gateway, source, link.next())
            link.request(f"route to {destination}", message)
        for neighbor in _objects(given, "neighbors"):
            address, state = params.text(neighbor, "address"), params.text(neighbor, "state", "permanent")
            if state not in _STATES:
                raise Refused("params", f"state: expected {', '.join(_STATES)}, got {state!r:.60}")
            mac = bytes.fromhex(params.text(neighbor, "mac").replace(":", ""))
            link.request(
                f"neighbour {address}", netroutes.set_neighbor(index, address, mac, _STATES[state], link.next())
            )
    except BootFailure as error:
        raise Refused("network", error.sentence) from None
    except ValueError as error:
        raise Refused("params", str(error)) from None
    finally:
        link.close()
    return {}


def _objects(given: Params, key: str) -> list[Params]:
    found = given.get(key, [])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Refused("params", f"{key}: expected a list of objects, got {found!r:.60}")
    return found
