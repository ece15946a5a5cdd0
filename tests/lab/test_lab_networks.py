"""Two zones in one network, on real Xen: they find and reach each other; an isolated one and another network do not."""

from __future__ import annotations

import pytest
from support.zonecommand import ZoneCommand

pytestmark = [pytest.mark.xen, pytest.mark.slow]

IMAGE = "recipe:nginx"
SMALL = ("-m", "128m")
NAMES = ("web", "db", "alone", "other")
# bash's own way to a port: the image has no client.
ASK = "exec 3<>/dev/tcp/{}/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3"


@pytest.fixture(scope="module")
def zones(zone: ZoneCommand) -> None:
    """`web` and `db` in one network, `alone` isolated in it, `other` in a private one."""
    network = ("--network", "back")
    for name, options in zip(NAMES, (network, network, (*network, "--isolated"), ()), strict=True):
        zone("run", "-d", "--name", name, *options, *SMALL, IMAGE)


@pytest.fixture
def room(zone: ZoneCommand) -> None:
    """No zone is left: the lab's memory is for few."""
    zone.remove_zones()


def asked(zone: ZoneCommand, one: str, what: str) -> str:
    """The first line of what a web server says to a zone; "" where it says nothing."""
    answer = f'timeout 5 bash -c "{ASK.format(what)}" 2>/dev/null || true'
    return zone("exec", one, "sh", "-c", answer).strip()


def address_of(zone: ZoneCommand, name: str) -> str:
    return str(zone.json("inspect", name)[0]["addresses"][0])


@pytest.mark.usefixtures("zones")
def test_zones_of_a_network_reach_each_other_by_name_and_address(zone: ZoneCommand) -> None:
    for one, another in (("web", "db"), ("db", "web")):
        assert zone("exec", one, "getent", "ahostsv4", another).split()[0] == address_of(zone, another)
        assert asked(zone, one, another).startswith("HTTP/1.1 200")
    (network,) = [network for network in zone.json("net", "ls") if network["name"] == "back"]
    assert network["zones"] == ["alone", "db", "web"]


@pytest.mark.usefixtures("zones")
def test_isolated_zone_and_other_networks_are_not_reached(zone: ZoneCommand) -> None:
    for one, another in (("web", "alone"), ("alone", "web"), ("other", "web"), ("web", "other")):
        assert asked(zone, one, address_of(zone, another)) == ""


@pytest.mark.usefixtures("zones")
def test_zone_that_is_restarted_is_found_again(zone: ZoneCommand) -> None:
    zone("restart", "db")
    zone("wait", "--until", "ready", "db")
    assert asked(zone, "web", "db").startswith("HTTP/1.1 200")
    assert zone.json("system", "check")["findings"] == []


@pytest.mark.usefixtures("room")
def test_zone_keeps_the_address_it_names(zone: ZoneCommand) -> None:
    zone("net", "create", "fixed")
    (network,) = [network for network in zone.json("net", "ls") if network["name"] == "fixed"]
    wanted = network["gateway4"].removesuffix("1") + "77"
    zone("run", "-d", "--name", "named", "--network", "fixed", "--ip", wanted, *SMALL, IMAGE)
    assert address_of(zone, "named") == wanted
    zone("restart", "named")
    zone("wait", "--until", "ready", "named")
    assert address_of(zone, "named") == wanted
    assert wanted in zone("exec", "named", "cat", "/proc/net/fib_trie")
    zone("rm", "-f", "named")
    zone("net", "rm", "fixed")


@pytest.mark.usefixtures("room")
def test_network_that_was_created_stays_until_it_is_removed(zone: ZoneCommand) -> None:
    assert zone("net", "create", "kept") == "kept\n"
    zone("run", "--rm", "--network", "kept", *SMALL, IMAGE, "true")
    assert "kept" in zone("net", "ls", "-q").split()
    zone("net", "rm", "kept")
    assert "kept" not in zone("net", "ls", "-q").split()
