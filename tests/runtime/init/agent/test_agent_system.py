"""What the host asks of the zone's kernel by its agent: settings, network, clock, figures; and what it may ask."""

import json
import os
import time

import pytest
from support.agenthost import AgentError
from support.zonebox import IDLE, NETWORK

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts"),
]


def test_sysctl_sets_and_reads(host):
    assert host.call("sysctl", key="kernel.hostname", value="other")["value"] == "other"
    assert host.call("sysctl", key="kernel/hostname")["value"] == "other"


def test_the_network_is_changed_while_it_runs(start):
    zone = start(IDLE, network=NETWORK | {"interface": "vif0"})
    routes = [
        {"destination": "10.9.0.0/16", "gateway": "10.75.1.1"},
        {"destination": "10.8.0.0/16", "gateway": "10.75.1.1", "source": "10.75.1.2"},
    ]
    neighbors = [{"address": "10.75.1.9", "mac": "02:00:00:00:00:09"}]
    assert zone.host.call("network", interface="vif0", mtu=1300, routes=routes, neighbors=neighbors) == {}
    found = zone.host.run(["ip", "route"]).data[1].decode()
    assert "10.9.0.0/16 via 10.75.1.1 dev vif0" in found
    assert "10.8.0.0/16 via 10.75.1.1 dev vif0" in found and "src 10.75.1.2" in found
    assert b"mtu 1300" in zone.host.run(["ip", "link", "show", "vif0"]).data[1]
    neighbours = zone.host.run(["ip", "neigh", "show", "dev", "vif0"]).data[1]
    assert b"10.75.1.9 lladdr 02:00:00:00:00:09 PERMANENT" in neighbours
    zone.host.call("network", interface="vif0", routes=[{"destination": "10.9.0.0/16", "gateway": "10.75.1.7"}])
    assert b"10.9.0.0/16 via 10.75.1.7" in zone.host.run(["ip", "route"]).data[1]
    assert b"mtu 1300" in zone.host.run(["ip", "link", "show", "vif0"]).data[1]


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"interface": "none0"}, "network", "interface 'none0': "),
        (
            {"interface": "lo", "routes": [{"destination": "10.9.0.0/16", "gateway": "192.0.2.1"}]},
            "network",
            "route to",
        ),
        ({"interface": "lo", "routes": [{"destination": "x"}]}, "params", ""),
        ({"interface": "lo", "routes": {}}, "params", "routes: expected a list of objects"),
        ({"interface": "lo", "mtu": 70000}, "params", "mtu: expected a number from 0 to 65535"),
        ({"interface": "lo", "neighbors": [{"address": "10.0.0.1", "mac": "x"}]}, "params", ""),
        (
            {"interface": "lo", "neighbors": [{"address": "10.0.0.1", "mac": "02:00:00:00:00:09", "state": "odd"}]},
            "params",
            "state: expected permanent, noarp, reachable, got 'odd'",
        ),
    ],
)
def test_a_change_of_the_network_that_cannot_be_is_refused(host, change, reason, words):
    with pytest.raises(AgentError) as caught:
        host.call("network", **change)
    assert caught.value.reason == reason and words in caught.value.sentence
    host.call("ping")


def test_the_clock_is_told_and_a_wrong_one_refused(host):
    before = time.time_ns()
    assert before <= host.call("clock")["unix_ns"] <= time.time_ns()
    for wrong in ("now", -1, 1.5, True):
        with pytest.raises(AgentError) as caught:
            host.call("clock", unix_ns=wrong)
        assert caught.value.reason == "params"


def test_metrics_count(host):
    metrics = host.call("metrics")
    assert metrics["memory_kib"]["MemTotal"] > 0 and "cpu0" in metrics["cpu"] and metrics["network"]["lo"]
    assert metrics["processes"]["forked"] > 0 and "main" in metrics["containers"]
    assert metrics["containers"]["main"]["root_bytes"]["total"] == 64 << 20


def test_what_the_launch_data_refuse_is_not_carried_out_and_all_else_is(start):
    zone = start(
        IDLE, extra={"refused": ["exec", "copy_out"], "healthcheck": {"argv": ["sh", "-c", ":"], "interval_s": 0.1}}
    )
    for method in ("exec", "copy_out"):
        with pytest.raises(AgentError, match=f"method {method}: expected one that the zone's spec does not") as no:
            zone.host.call(method, process={"argv": ["true"]}, path="/")
        assert no.value.reason == "policy"
    assert zone.host.call("stat", path="/etc/passwd")["kind"] == "file"
    assert zone.host.note("health")["state"] == "healthy", "which is run as an exec is, and asked for by nobody"


def test_a_policy_that_is_none_refuses_everything(start):
    zone = start(IDLE, extra={"refused": "exec"})
    with pytest.raises(AgentError, match="method ping: expected one that the zone's spec does not refuse"):
        zone.host.call("ping")


def test_figures_come_by_themselves_as_fast_as_they_are_taken(host):
    watched = host.open("metrics", interval_s=0.1)
    host.until(lambda: watched.data[1].count(b"\n") >= 3)
    first, second, *_ = map(json.loads, watched.data[1].splitlines()[:3])
    assert second["uptime_s"] >= first["uptime_s"] + 0.09 and set(second) == set(host.call("metrics"))
    watched.hold = True  # a host that takes none is sent one window, and the zone keeps no more than one
    host.until(lambda: watched.owed[1] >= 65536 - len(json.dumps(second)))
    watched.release()
    came = watched.data[1].count(b"\n")
    host.until(lambda: watched.data[1].count(b"\n") > came)
    watched.cancel()
    assert host.call("ping")


@pytest.mark.parametrize("interval_s", [0, 0.01, 1e6, -1, "often", True, None])
def test_an_interval_that_is_none_is_refused(host, interval_s):
    with pytest.raises(AgentError, match="interval_s: expected"):
        host.call("metrics", interval_s=interval_s)


def test_entropy_of_the_host_goes_into_the_kernels_pool_and_what_is_none_is_refused(host):
    assert host.call("reseed", seed=os.urandom(32).hex()) == {}
    for wrong in ("", "xyz", "ab" * 65):
        with pytest.raises(AgentError, match="seed: expected 1 to 64 bytes in hex digits"):
            host.call("reseed", seed=wrong)


COUNTERS = ("cat /proc/stat; echo; cat /proc/net/dev; echo; cat /proc/diskstats; echo; cat /proc/pressure/*; echo; "
            "cat /proc/meminfo; echo; cat /proc/uptime")  # fmt: skip


def counted(host):
    """What metrics are made of, as its own kernel's files have it, read by the zone itself."""
    stat, net, disk, pressure, memory, uptime = host.run(["sh", "-c", COUNTERS]).data[1].decode().split("\n\n")
    fields = {words[0]: words[1:] for words in map(str.split, stat.splitlines())}
    received = {words[0]: int(words[1]) for words in (line.split() for line in net.splitlines()[2:])}
    read = {words[2]: int(words[5]) * 512 for words in map(str.split, disk.splitlines())}
    waited = [int(line.rpartition("total=")[2]) for line in pressure.splitlines() if line.startswith("some")]
    return {
        "user": int(fields["cpu"][0]) / 100,
        "cpus": sum(name[3:].isdigit() for name in fields if name.startswith("cpu")),
        "forked": int(fields["processes"][0]),
        "lo": received["lo:"],
        "read": sum(read.values()),
        "waited": sum(waited),
        "total": int(memory.split("MemTotal:")[1].split()[0]),
        "uptime": float(uptime.split()[0]),
    }


def test_metrics_are_what_the_kernel_of_the_zone_counts(host):
    """Each counter lies between two readings of its own, with traffic, work and forks between them."""
    before = counted(host)
    work = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; cat /bin/* | wc -c"
    host.run(["sh", "-c", work])
    host.run(["perl", "-e", 'socket(S,2,2,17);send(S,"x"x900,0,pack("SnCCCCx8",2,9,127,0,0,1))'])
    metrics = host.call("metrics")
    after = counted(host)
    found = {
        "user": metrics["cpu"]["cpu"]["user"],
        "cpus": len(metrics["cpu"]) - 1,
        "forked": metrics["processes"]["forked"],
        "lo": metrics["network"]["lo"]["rx_bytes"],
        "read": sum(disk["read_bytes"] for disk in metrics["disks"].values()),
        "waited": sum(kind["some"]["total_us"] for kind in metrics["pressure"].values() if kind),
        "total": metrics["memory_kib"]["MemTotal"],
        "uptime": metrics["uptime_s"],
    }
    assert {name: (before[name], value, after[name]) for name, value in found.items()
            if not before[name] <= value <= after[name]} == {}  # fmt: skip
    assert found["forked"] > before["forked"] and found["lo"] >= before["lo"] + 900
    assert metrics["processes"]["count"] >= 3 and set(metrics["load"]) == {"1min", "5min", "15min"}
