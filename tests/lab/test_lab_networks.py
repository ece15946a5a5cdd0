"""Two zones in one network, on real Xen: they find and reach each other; an isolated one and another network do not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.dom0server import NAMED, PORT, reaches, serving
from support.labzones import get, kill_zoned, wait_for
from support.ports import free_port
from support.zonecommand import ZoneCommand

from runtime.host.lab.lab import Lab
from runtime.host.privileges import MASK
from runtime.net.engine.proxy import ENTRY
from runtime.net.supervise import ANSWER_S, LOOK_S, MOST_SILENCES

pytestmark = [pytest.mark.xen, pytest.mark.slow]

IMAGE = "recipe:nginx"
SMALL = ("-m", "128m")
NAMES = ("web", "db", "alone", "other")
# bash's own way to a port: the image has no client.
ASK = "exec 3<>/dev/tcp/{}/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3"

# Runs in dom0: what each engine of a network has.
AUDIT = """
import json, os
def fields_of(pid):
    lines = (line.split(":", 1) for line in open(f"/proc/{pid}/status") if ":" in line)
    return {key: value.split() for key, value in lines}
found = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        line = open(f"/proc/{pid}/cmdline").read()
    except OSError:  # it has ended
        continue
    if ENTRY in line:
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in sorted(map(int, os.listdir(f"/proc/{pid}/fd")))]
        root = os.listdir(f"/proc/{pid}/root")
        found.append({"pid": pid, "status": fields_of(pid), "descriptors": links, "root": root})
print(json.dumps(found))
""".replace("ENTRY", repr(ENTRY))


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
    answer = f'timeout 10 bash -c "{ASK.format(what)}" 2>/dev/null || true'
    return zone("exec", one, "sh", "-c", answer).strip()


def served(zone: ZoneCommand, one: str, what: str) -> None:
    """A zone is ready when its workload runs, which may listen a moment later."""
    wait_for(lambda: asked(zone, one, what).startswith("HTTP/1.1 200"), f"page of {what} in {one}")


def engines(lab: Lab) -> list[dict[str, Any]]:
    """See AUDIT."""
    code, said = lab.shell("python3 -", input=AUDIT)
    assert code == 0, said
    return list(json.loads(said))


def address_of(zone: ZoneCommand, name: str) -> str:
    return str(zone.json("inspect", name)[0]["addresses"][0])


@pytest.mark.usefixtures("zones")
def test_zones_of_a_network_reach_each_other_by_name_and_address(zone: ZoneCommand) -> None:
    for one, another in (("web", "db"), ("db", "web")):
        assert zone("exec", one, "getent", "ahostsv4", another).split()[0] == address_of(zone, another)
        served(zone, one, another)
    (network,) = [network for network in zone.json("net", "ls") if network["name"] == "back"]
    assert network["zones"] == ["alone", "db", "web"]


@pytest.mark.usefixtures("zones")
def test_isolated_zone_and_other_networks_are_not_reached(zone: ZoneCommand) -> None:
    for one, another in (("web", "alone"), ("alone", "web"), ("other", "web"), ("web", "other")):
        assert asked(zone, one, address_of(zone, another)) == ""


@pytest.mark.usefixtures("zones")
def test_no_engine_has_a_right_or_a_descriptor_but_for_its_own_network(lab: Lab) -> None:
    """Of two networks: started by a zoned that holds Xen's doors, all zones' ledgers, disks, and each other's logs."""
    found = engines(lab)
    assert len(found) == 2
    assert len({engine["status"]["Uid"][0] for engine in found} - {"0"}) == 2
    logs = set()
    for engine in found:
        status = engine["status"]
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind][0], 16) == 0, kind
        assert (status["NoNewPrivs"], status["Seccomp"], status["Groups"]) == (["1"], ["2"], [])
        assert len(set(status["Uid"])) == len(set(status["Gid"])) == 1
        assert engine["root"] == []
        *null, log = engine["descriptors"][:3]
        assert null == ["/dev/null"] * 2
        logs.add(log)
        others = [link for link in engine["descriptors"][3:] if not link.startswith(("socket:", "anon_inode:"))]
        assert {link.rpartition("/")[2] for link in others} == {"sockstat", "sockstat6"}
    assert len(logs) == 2 and all(log.startswith("/run/zonewright/net/") for log in logs)


@pytest.mark.usefixtures("zones")
def test_zoned_has_no_capability_but_those_it_needs(lab: Lab) -> None:
    code, said = lab.shell(f"cat /proc/{lab.call('ping')['zoned']['pid']}/status")
    assert code == 0, said
    sets = {line[:6]: int(line.split()[1], 16) for line in said.splitlines() if line.startswith("Cap")}
    assert sets == {"CapInh": 0, "CapPrm": MASK, "CapEff": MASK, "CapBnd": MASK, "CapAmb": 0}


@pytest.mark.soak
@pytest.mark.usefixtures("zones")
def test_engine_that_hangs_is_replaced_and_its_zones_have_a_network_again(zone: ZoneCommand, lab: Lab) -> None:
    look_up = ("exec", "web", "timeout", "3", "getent", "ahostsv4", "db")
    zone(*look_up)
    hung = {engine["pid"] for engine in engines(lab)}
    assert lab.shell(f"kill -STOP {' '.join(hung)}")[0] == 0
    zone(*look_up, code=124)  # an engine is who answers for names

    def are_others() -> bool:
        return len(now := {engine["pid"] for engine in engines(lab)}) == len(hung) and not now & hung

    wait_for(are_others, "other engines", MOST_SILENCES * (LOOK_S + ANSWER_S) + 120)
    assert zone(*look_up).split()[0] == address_of(zone, "db")
    assert zone.json("system", "check")["findings"] == []


@pytest.mark.soak
@pytest.mark.usefixtures("zones")
def test_zone_that_is_restarted_is_found_again(zone: ZoneCommand) -> None:
    zone("restart", "db")
    zone("wait", "--until", "ready", "db")
    served(zone, "web", "db")
    assert zone.json("system", "check")["findings"] == []


@pytest.mark.soak
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


@pytest.mark.soak
@pytest.mark.usefixtures("room")
def test_network_that_was_created_stays_until_it_is_removed(zone: ZoneCommand) -> None:
    assert zone("net", "create", "kept") == "kept\n"
    zone("run", "--rm", "--network", "kept", *SMALL, IMAGE, "true")
    assert "kept" in zone("net", "ls", "-q").split()
    zone("net", "rm", "kept")
    assert "kept" not in zone("net", "ls", "-q").split()


@pytest.mark.soak
@pytest.mark.usefixtures("room")
def test_zones_are_of_the_pools_that_the_host_names(zone: ZoneCommand, lab: Lab) -> None:
    pools = 'pool4 = "172.30.0.0/16"\npool6 = "fd00:1234:5678::/48"\n'
    assert lab.shell("mkdir -p /etc/zonewright && cat >/etc/zonewright/network.toml", input=pools)[0] == 0
    try:
        kill_zoned(lab)  # it reads them when it starts
        port = free_port()
        with serving(lab):
            egress = ("--egress", f"allow {NAMED} {PORT}")
            zone("run", "-d", "--name", "pooled", "-p", f"{port}:80", *egress, *SMALL, IMAGE)
            zone("wait", "--until", "ports", "pooled")
            (told,) = zone.json("inspect", "pooled")
            address4, address6 = told["addresses"]
            assert address4.startswith("172.30.") and address6.startswith("fd00:1234:5678:")
            assert "zone pooled" in get(f"http://127.0.0.1:{port}/")
            assert reaches(zone, "pooled", NAMED)
            assert zone.json("system", "check")["findings"] == []
            zone("rm", "-f", "pooled")
    finally:
        lab.shell("rm /etc/zonewright/network.toml")
        kill_zoned(lab)
    assert zone.json("system", "check")["findings"] == []
