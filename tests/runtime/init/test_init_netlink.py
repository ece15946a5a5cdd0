"""runtime.init's network set-up, read back by ip in a network namespace of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.namespaces import unshare_mount

from runtime.init import netlink

PROJECT = Path(__file__).resolve().parents[3]

SCRIPT = """
import json, subprocess, sys
sys.path.insert(0, {project!r})
from runtime.init import failure, network
from runtime.init.agent import networking
from runtime.init.agent.errors import Refused
# sysfs shows the interfaces of the network namespace it was mounted from.
subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
subprocess.run(["ip", "link", "add", "eth9", "type", "veth", "peer", "name", "peer9"], check=True)
subprocess.run(["ip", "link", "set", "peer9", "up"], check=True)
try:
    network.configure(json.loads({config!r}), 1.0)
    if change := json.loads({change!r}):
        networking.change(change)
        networking.change(change)  # what is there gives way to the same
except (failure.BootFailure, Refused) as error:
    print(json.dumps({{"reason": error.reason, "sentence": error.sentence}}))
    raise SystemExit
def ip(*words):
    return json.loads(subprocess.run(["ip", "-j", *words], check=True, capture_output=True).stdout)
lo, eth9 = ip("addr", "show", "lo"), ip("-d", "addr", "show", "eth9")
neighbours = ip("neigh", "show", "dev", "eth9")
plain = [subprocess.run(["ip", it, "route"], capture_output=True, text=True).stdout for it in ("-4", "-6")]
seen = {{"lo": lo, "eth9": eth9, "route4": ip("route"), "route6": ip("-6", "route"), "neigh": neighbours}}
print(json.dumps(seen | {{"plain": plain}}))
"""

GOOD = {
    "interface": "eth9",
    "mtu": 1400,
    "addresses": ["10.75.1.2/24", "fd5a:6f6e:6577:1::2/64"],
    "gateways": ["10.75.1.1", "fd5a:6f6e:6577:1::1"],
    "nameservers": [],
}


def configured(config, change=None) -> dict:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("unshare and ip are needed")
    script = SCRIPT.format(project=str(PROJECT), config=json.dumps(config), change=json.dumps(change))
    inside = [sys.executable, "-c", script]
    # Root needs no user namespace, and could have none in a chroot.
    as_user = ["unshare", "--user", "--map-root-user", "--mount"]
    unshare = [*(unshare_mount() if os.geteuid() == 0 else as_user), "--net"]
    done = subprocess.run([*unshare, *inside], capture_output=True, text=True)
    if "Operation not permitted" in done.stderr and "unshare" in done.stderr:
        pytest.skip("user namespaces are turned off here")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_interface_gets_mtu_addresses_and_both_default_routes():
    seen = configured(GOOD)
    eth9 = seen["eth9"][0]
    assert eth9["mtu"] == 1400 and "UP" in eth9["flags"]
    four, six = (
        next(item for item in eth9["addr_info"] if item["family"] == family and item["scope"] == "global")
        for family in ("inet", "inet6")
    )
    assert (four["local"], four["prefixlen"], four["broadcast"]) == ("10.75.1.2", 24, "10.75.1.255")
    assert (six["local"], six["prefixlen"]) == ("fd5a:6f6e:6577:1::2", 64)
    assert six["nodad"] is True and "tentative" not in six
    for routes, gateway in ((seen["route4"], "10.75.1.1"), (seen["route6"], "fd5a:6f6e:6577:1::1")):
        (default,) = [route for route in routes if route["dst"] == "default"]
        assert (default["gateway"], default["dev"], default["protocol"]) == (gateway, "eth9", "static")


def test_default_routes_have_the_least_time_to_send_again_that_is_asked_for():
    """Locked: the kernel's TCP takes no notice of one that is not."""
    for rto_min_ms, words in ((5, "rto_min lock 5ms"), (0, "")):
        for routes in configured(GOOD | {"rto_min_ms": rto_min_ms})["plain"]:
            (default,) = [line for line in routes.splitlines() if line.startswith("default")]
            assert words in default and ("rto_min" in default) is bool(words)


def test_metrics_of_a_route_are_these_bytes():
    plain = netlink.add_default_route(3, "10.75.1.1", ["10.75.1.2/24"], 7)
    slow = netlink.add_default_route(3, "10.75.1.1", ["10.75.1.2/24"], 7, 5)
    # RTA_METRICS around RTAX_LOCK, 1 << 13, and RTAX_RTO_MIN, 5.
    assert slow[len(plain) :].hex() == "14000800" + "0800010000200000" + "08000d0005000000"
    assert slow[4 : len(plain)] == plain[4:] and int.from_bytes(slow[:4], "little") == len(slow)


def test_lo_is_up_also_without_a_network():
    seen = configured(None)
    assert "UP" in seen["lo"][0]["flags"]
    assert seen["route4"] == []


def test_a_gateway_outside_the_prefix_is_taken_as_on_the_link():
    seen = configured({**GOOD, "addresses": ["10.75.1.2/32"], "gateways": ["169.254.1.1"]})
    assert seen["route4"][0]["gateway"] == "169.254.1.1" and "onlink" in seen["route4"][0]["flags"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"interface": "eth7"}, "interface eth7 did not appear within 1 s"),
        ({"addresses": ["10.75.1.2/24", "10.75.1.2/24"]}, "address 10.75.1.2/24 on eth9: File exists"),
        ({"addresses": ["10.75.1/24"]}, "'10.75.1/24' is no IP address"),
        ({"rto_min_ms": "5"}, "an rto_min_ms of '5'"),
        ({"mtu": 10}, "setting eth9 up with mtu 10: Invalid argument"),
    ],
)
def test_a_refusal_names_the_step(change, words):
    seen = configured(GOOD | change)
    assert seen["reason"] == "network" and words in seen["sentence"]


@pytest.mark.parametrize("text", ["10.0.0.1/33", "::1/129", "10.0.0.1/x", "hello", "", "10.0.0.1/"])
def test_bad_addresses_are_refused(text: str):
    with pytest.raises(ValueError):
        netlink.split_address(text)


CHANGE = {
    "interface": "eth9",
    "mtu": 1300,
    "routes": [
        {"destination": "10.9.0.0/16", "gateway": "10.75.1.1", "source": "10.75.1.2"},
        {"destination": "0.0.0.0/0", "gateway": "10.75.1.9", "source": ""},
        {"destination": "10.8.0.0/16", "gateway": "", "source": ""},
        {"destination": "fd99::/64", "gateway": "fd5a:6f6e:6577:1::1", "source": ""},
    ],
    "neighbors": [{"address": "10.75.1.1", "mac": "02:00:00:00:00:01", "state": "permanent"}],
}


def test_a_running_interface_takes_mtu_routes_and_neighbours():
    seen = configured(GOOD, CHANGE)
    assert seen["eth9"][0]["mtu"] == 1300
    routes = {route["dst"]: route for route in (*seen["route4"], *seen["route6"]) if route.get("protocol") == "static"}
    assert (routes["10.9.0.0/16"]["gateway"], routes["10.9.0.0/16"]["prefsrc"]) == ("10.75.1.1", "10.75.1.2")
    assert routes["10.8.0.0/16"]["scope"] == "link"
    assert routes["fd99::/64"]["gateway"] == "fd5a:6f6e:6577:1::1"
    assert [route["gateway"] for route in seen["route4"] if route["dst"] == "default"] == ["10.75.1.9"]
    (neighbour,) = [entry for entry in seen["neigh"] if entry["dst"] == "10.75.1.1"]
    assert (neighbour["lladdr"], neighbour["state"]) == ("02:00:00:00:00:01", ["PERMANENT"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"interface": "eth7"}, "interface 'eth7'"),
        ({"routes": [{"destination": "10.9.0.0/16", "gateway": "192.0.2.1"}]}, "route to 10.9.0.0/16: "),
        ({"routes": [{"destination": "hello"}]}, "'hello' is no IP address"),
        ({"routes": "all"}, "routes: expected a list of objects"),
        ({"neighbors": [{"address": "10.75.1.1", "mac": "02:00"}]}, "is no MAC address"),
        ({"neighbors": [{"address": "10.75.1.1", "mac": "02:00:00:00:00:01", "state": "x"}]}, "state: expected"),
    ],
)
def test_a_change_that_cannot_be_is_refused(change, words):
    assert words in configured(GOOD, CHANGE | change)["sentence"]
