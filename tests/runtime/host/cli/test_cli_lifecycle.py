"""`zone stop`, `kill`, `start`, `restart`, `wait`, `rm`, `update`."""

from __future__ import annotations

import threading

import pytest

from pipeline.store import Store


@pytest.fixture(autouse=True)
def zones(zoned):
    zoned.add("web", ports=((8080, 80),))
    zoned.add("db")
    old = zoned.add("old", state="exited")
    old.exit.code, old.exit.text = 3, "exit code 3"
    return zoned.zones


def test_stop_says_how_each_ended_and_an_ended_one_is_fine(zone, zones) -> None:
    assert sorted(zone("stop", "web", "old").splitlines()) == [
        "zone old is stopped: exit code 3",
        "zone web is stopped: exit code 0",
    ]
    assert zones["web"].state == "exited" and zones["db"].state == "ready"


def test_timeout_is_the_zones_own_unless_given(zone, zoned) -> None:
    zone("stop", "web")
    zone("stop", "-t", "0", "db")
    first, second = [message for method, message in zoned.calls if method == "StopZone"]
    assert not first.HasField("timeout_s") and second.HasField("timeout_s") and second.timeout_s == 0


def test_one_that_cannot_be_stopped_does_not_keep_the_others(zone, zones) -> None:
    assert zone("stop", "nobody", "web", code=1) == "zone web is stopped: exit code 0\n"
    assert zone.err == "error: zone: no such zone as nobody (there are: db, old, web)\n"


def test_kill_ends_at_once_and_with_a_signal_tells_the_workload(zone, zoned, zones) -> None:
    assert zone("kill", "-s", "SIGHUP", "web") == "web\n" and zones["web"].state == "ready"
    assert zone("kill", "web") == "web\n" and zones["web"].exit.code == 137
    assert [message.signal for method, message in zoned.calls if method == "KillZone"] == [1, 0]
    assert "it does not run" in zone.sentence("kill", "old")
    for none in ("HOP", "\u00b2", "99", "RTMIN+31", "RTMIN+99999999999"):
        assert "expected a signal such as SIGTERM" in zone.sentence("kill", "-s", none, "db")


def test_start_starts_what_has_ended_and_one_that_runs_is_fine(zone, zoned, zones) -> None:
    assert sorted(zone("start", "old", "web").splitlines()) == ["zone old is ready", "zone web is ready"]
    assert (zones["old"].restarts, zones["web"].restarts) == (1, 0)
    assert [message.zone for method, message in zoned.calls if method == "RestartZone"] == ["old"]
    assert "no such zone as nobody" in zone.sentence("start", "nobody")


def test_start_leaves_alone_what_somebody_else_has_just_started(zone, zoned, zones) -> None:
    def start(method: str) -> None:
        if method == "RestartZone":
            zones["old"].state = "ready"

    zoned.on_call = start
    assert zone("start", "old") == "zone old is ready\n"
    assert zones["old"].restarts == 0


def test_start_of_what_is_being_stopped_starts_it_once_it_has_ended(zone, zoned, zones) -> None:
    zones["web"].state = "stopping"
    assert zone("start", "web") == "zone web is ready\n"
    assert [message.unless_live for method, message in zoned.calls if method == "RestartZone"] == [True]


def test_restart_starts_what_has_ended_too(zone, zones) -> None:
    assert zone("restart", "old") == "zone old is ready\n"
    assert (zones["old"].state, zones["old"].restarts) == ("ready", 1)


def test_restart_brings_again_what_an_ended_zone_runs_from(zone, zoned, zones) -> None:
    kept = Store().put(b"a root file system")
    zones["old"].blobs.extend([str(kept.digest), "sha256:" + "0" * 64])  # the other one is not in this store
    zone("restart", "old", "web")
    assert zoned.blobs == {str(kept.digest): b"a root file system"}
    methods = [method for method, _ in zoned.calls]
    assert methods.index("PutBlob") < methods.index("RestartZone")


def test_wait_prints_and_is_the_exit_code(zone, zoned, zones) -> None:
    assert zone("wait", "old", code=3) == "3\n"
    timer = threading.Thread(target=lambda: (waiting.wait(), zoned.wait(zoned.end(zones["web"], 7))))
    waiting = threading.Event()
    timer.start()
    zoned.on_call = lambda method: waiting.set() if method == "WaitZone" else None
    assert zone("wait", "web", code=7) == "7\n"
    timer.join()


def test_wait_until_it_is_ready(zone, zoned) -> None:
    assert zone("wait", "--until", "ports", "web") == "zone web: ports\n"
    assert zoned.calls[-1][1].until == "ports"


def test_wait_gives_up(zone) -> None:
    assert "expected its end in time, got ready" in zone.sentence("wait", "--timeout", "0.01", "web")


def test_rm_refuses_what_runs_unless_forced(zone, zones) -> None:
    assert "it runs (zone rm -f web stops it first)" in zone.sentence("rm", "web")
    assert zone("rm", "old") == "old\n"
    assert zone("rm", "-f", "web", "nobody") == "web\n"
    assert list(zones) == ["db"]


def test_update_changes_all_that_was_asked_for(zone, zones) -> None:
    zones["web"].memory_max_mib = 1024
    options = ("-m", "0.5g", "-c", "2", "--restart", "on-failure:3", "--publish-add", "9000:90", "--publish-rm", "8080")
    assert zone("update", *options, "web") == "web\n"
    web = zones["web"]
    assert (web.memory_mib, web.vcpus, web.restart.name, web.restart.max_retries) == (512, 2, "on-failure", 3)
    assert [(rule.host_port, rule.zone_port) for rule in web.ports] == [(9000, 90)]
    assert zone("update", "--egress", "allow 192.0.2.1", "--egress", "deny  any", "web") == "web\n"
    assert list(web.egress) == ["allow 192.0.2.1", "deny any"]
    zone("update", "--bandwidth", "100mbit", "web")
    assert (web.bandwidth_bit_s, list(web.egress)) == (100_000_000, ["allow 192.0.2.1", "deny any"])
    zone("update", "--bandwidth", "none", "web")
    assert web.bandwidth_bit_s == 0
    zone("update", "--no-egress", "web")
    assert list(web.egress) == []


def test_limits_of_an_update_are_what_the_files_take(zone, zoned, zones) -> None:
    words = ("--limit", "memory.max=64m", "--limit", "cpu.max=0.5", "--limit", "pids.max=max")
    assert zone("update", *words, "web") == "web\n"
    assert dict(zoned.calls[-1][1].limits) == {"memory.max": "67108864", "cpu.max": "50000 100000", "pids.max": "max"}
    shown = [line.split(None, 1) for line in zone("inspect", "web").splitlines()]
    assert [rest for key, rest in shown if key == "limit:"] == [
        "cpu.max 50000 100000",
        "memory.max 67108864",
        "pids.max max",
    ]


def test_pause_and_unpause_say_which_and_a_paused_one_is_shown_so(zone, zones) -> None:
    zones["web"].health = "healthy"
    assert sorted(zone("pause", "web", "db").split()) == ["db", "web"]
    table = {line.split()[0]: line for line in zone("ps").splitlines()}
    assert "(healthy, paused)" in table["web"] and "(paused)" in table["db"]
    assert zone("ps", "-q", "--filter", "state=paused").split() == ["web", "db"]
    assert zone("unpause", "db") == "db\n"
    assert zone("ps", "-q", "--filter", "state=paused") == "web\n"
    assert "expected its workload running, got it is exited" in zone.sentence("pause", "old")


def test_update_leaves_alone_what_was_not_named(zone, zoned) -> None:
    zone("update", "-c", "1", "web")
    request = zoned.calls[-1][1]
    assert not any(map(request.HasField, ("memory_mib", "restart", "egress", "bandwidth_bit_s")))


def test_update_of_ports_names_protocols_and_each_port_of_a_range(zone, zoned, zones) -> None:
    zone("update", "--publish-add", "8080:80/udp", "--publish-add", "9000-9001:90-91", "web")
    assert [(rule.host_port, rule.protocol) for rule in zones["web"].ports] == [
        (8080, "tcp"),
        (8080, "udp"),
        (9000, "tcp"),
        (9001, "tcp"),
    ]
    zone("update", "--publish-rm", "8080/udp", "--publish-rm", "0.0.0.0:9000-9001", "web")
    asked = [(rule.address, rule.port, rule.host_address, rule.protocol) for rule in zoned.calls[-1][1].remove_ports]
    assert asked == [
        ("127.0.0.1", 8080, "127.0.0.1", "udp"),
        ("0.0.0.0", 9000, "0.0.0.0", "tcp"),
        ("0.0.0.0", 9001, "0.0.0.0", "tcp"),
    ]
    assert [(rule.host_port, rule.protocol) for rule in zones["web"].ports][:1] == [(8080, "tcp")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "expected something to change"),
        (("-m", "999m"), "expected at most 256 MiB, got 999 MiB"),
        (("--restart", "sometimes"), "--restart: expected no, on-failure[:MAX]"),
        (("--bandwidth", "1kbit"), "--bandwidth: expected 64kbit to 100gbit, got 1kbit"),
        (("--egress", "deny"), "--egress[0]: expected `allow|deny ADDRESS|CIDR|any"),
        (("--publish-add", "80/sctp"), "--publish-add: expected a port rule"),
        (
            ("--publish-add", "53:53/udp", "--publish-add", "53:54/udp"),
            "each host port once, got 127.0.0.1:53/udp twice",
        ),
        (("--publish-rm", "web"), "--publish-rm: expected a port of the host"),
        (("--limit", "memory.max=64"), "--limit memory.max: expected a size such as 64m or 1g, or max, got '64'"),
        (("--limit", "memory=64m"), "--limit 'memory=64m': expected KEY=VALUE with a key of memory.max, "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_update_that_cannot_be_is_one_sentence(zone, words: tuple[str, ...], said: str) -> None:
    assert said in zone.sentence("update", *words, "web")
