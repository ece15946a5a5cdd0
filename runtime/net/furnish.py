"""What a network has inside its namespace: links, addresses, rules, and the sockets its engines work with.

All of it outlives an engine. `open_sockets` and `load_rules` may be done again for a namespace whose sockets died with
every process that held them.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from runtime.net import commands, netlink, netns, plan
from runtime.net.addresses import ZoneAddresses
from runtime.net.errors import NetworkFault
from runtime.net.rules import nft_ruleset
from runtime.net.sockets import bind_udp, catch_udp, echo_socket, fragments_tap, listen, raw_sender, tap


def lay_out(whose: str, addresses: ZoneAddresses, mtu: int) -> None:
    """Links, addresses and routing rules of the calling thread's namespace, which is new. Raises NetworkFault."""
    subject = f"network of {whose}"
    sysctl([plan.IPV6_ON, *plan.early_sysctls()], subject)
    sysctl(known(plan.optional_sysctls()), subject)
    lines = [*plan.ip_lines(addresses, mtu), *plan.route_lines(addresses)]
    commands.feed(["ip", "-batch", "-"], "\n".join(lines) + "\n", subject=subject)
    sysctl(plan.late_sysctls(), subject)


def renew(whose: str, addresses: ZoneAddresses) -> None:
    """Settings and routes of a namespace that was laid out before, by whatever version. Raises NetworkFault."""
    subject = f"network of {whose}"
    sysctl([*plan.early_sysctls(), *known(plan.optional_sysctls())], subject)
    lines = [plan.LO_LINE, *plan.route_lines(addresses)]
    commands.feed(["ip", "-batch", "-"], "\n".join(lines) + "\n", subject=subject)


def open_sockets(zone: str, addresses: ZoneAddresses) -> list[socket.socket]:
    """The engine's sockets for one zone in the calling thread's namespace, in the order of model.INSIDE; but the
    host's, see open_echoes.

    Raises:  NetworkFault.
    """
    gateways, zones = (addresses.gateway4, addresses.gateway6), (addresses.zone4, addresses.zone6)
    with _sockets(zone) as made:
        made.append(listen("127.0.0.1", 0, transparent=True))
        made.append(listen("::1", 0, transparent=True))
        made.extend(catch_udp(address) for address in ("127.0.0.1", "::1"))
        made.extend(bind_udp(gateway, plan.DNS_PORT, shared=True) for gateway in gateways)
        made.extend(tap(plan.BRIDGE, *ends) for ends in zip(gateways, zones, strict=True))
        made.extend(raw_sender(family) for family in (socket.AF_INET, socket.AF_INET6))
        made.extend(fragments_tap(plan.BRIDGE, zone) for zone in zones)
    return made


def open_echoes(zone: str, addresses: ZoneAddresses) -> list[socket.socket]:
    """The last of model.INSIDE, of the host: the calling thread's namespace. Raises NetworkFault."""
    with _sockets(zone) as made:
        made.extend(echo_socket(family, addresses.echo_identifier) for family in (socket.AF_INET, socket.AF_INET6))
    return made


@contextlib.contextmanager
def _sockets(zone: str) -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    try:
        yield made
    except BaseException as error:
        for item in made:
            item.close()
        if isinstance(error, OSError):
            subject = f"network of zone {zone}"
            raise NetworkFault(subject, expected="its listeners made", got=str(error)) from error
        raise


def doors_of(inside: Sequence[socket.socket]) -> plan.Doors:
    """Where TPROXY leads to, of a zone's sockets."""
    return plan.Doors(*(item.getsockname()[1] for item in inside[: len(plan.Doors._fields)]))


def load_rules(whose: str, addresses: ZoneAddresses, places: Sequence[plan.Place]) -> None:
    """The rules of the calling thread's namespace, in place of whatever rules there were. Raises NetworkFault."""
    subject = f"network of {whose}"
    # One transaction: at no moment is a zone without its guard.
    commands.feed(["nft", "-f", "-"], "flush ruleset\n" + nft_ruleset(addresses, places), subject=subject)
    # Known to the kernel only since the rules wanted it.
    sysctl(known(plan.defragment_sysctls()), subject)


def move_vif(vif: str, namespace: str, addresses: ZoneAddresses, mtu: int) -> None:
    """Move a vif of the calling thread's namespace into a network's, make it the bridge's port, bring it up."""
    fd = os.open(netns.path_of(namespace), os.O_RDONLY | os.O_CLOEXEC)
    try:
        netlink.move_link(vif, fd)
    finally:
        os.close(fd)
    netns.inside(namespace, lambda: plug_vif(vif, addresses, mtu))


def plug_vif(vif: str, addresses: ZoneAddresses, mtu: int) -> None:
    """Make a vif of the calling thread's namespace the zone's port of the bridge; done again, it changes nothing."""
    netlink.enslave_link(vif, plan.BRIDGE, mtu, group=addresses.host, mac=addresses.zone_mac)


def known(settings: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those that this kernel has."""
    return [item for item in settings if Path("/proc/sys/net", item[0]).exists()]


def sysctl(settings: Iterable[tuple[str, str]], subject: str) -> None:
    """Write settings below /proc/sys/net, which is the calling thread's network namespace's. Raises NetworkFault."""
    for key, value in settings:
        try:
            Path("/proc/sys/net", key).write_text(value)
        except OSError as error:
            raise NetworkFault(subject, expected=f"sysctl net/{key} = {value}", got=str(error)) from error
