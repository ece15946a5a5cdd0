"""A zone's workload, output, ports and end, as its agent tells them."""

import os
import signal
import socket
import subprocess

import pytest
from support import zonebox
from support.agenthost import AgentError
from support.containers import eventually
from support.tools import require
from support.zonebox import IDLE, NETWORK, sh

from runtime.host.daemon import confinement

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts"),
]
# Says the letters of its argument back; needs no module of perl's.
SERVER = """socket(S,2,1,6);setsockopt(S,1,2,pack("i",1));bind(S,pack("SnCCCCx8",2,8080,127,0,0,1))or die;listen(S,9);
while(accept(C,S)){while(sysread(C,$b,65536)){syswrite(C,$b)}close(C)}"""
RESETTING = (
    SERVER.split("\n")[0]
    + 'accept(C,S);syswrite(C,"the first half");setsockopt(C,1,13,pack("ii",1,0));close(C);sleep 1000'
)
LOOKED_AT = sh("exec 3<>/looks; while read x <&3; do echo look; done")  # says how often somebody wrote to its fifo
LISTENS = (
    'open(P,">/tmp/listener");print P $$;close(P);setpgrp;$SIG{HUP}="IGNORE";close(STDOUT);close(STDERR);close(STDIN);'
    + SERVER.replace("8080", "8082")
)
UDP_SERVER = 'socket(S,2,2,17);bind(S,pack("SnCCCCx8",2,5353,0,0,0,0))or die;sleep 1000'


def test_the_greeting_tells_phases_and_containers(zone):
    greeting = zone.host.hello()
    assert list(greeting["boot"]) == ["init", "modules", "root", "network", "workload"]
    (main,) = greeting["containers"]
    assert (main["id"], main["state"], main["tty"]) == ("main", "running", False)


def test_ping_and_info(host):
    assert host.call("ping")["now"] > 0
    info = host.call("info")
    assert info["hostname"] == "box" and info["kernel"] == os.uname().release and info["cpus"] >= 1


@pytest.mark.parametrize(
    ("method", "params", "reason"),
    [
        ("nothere", {}, "method"),
        ("start", {"id": "nothere"}, "container"),
        ("start", {"id": "main"}, "state"),
        ("kill", {"id": "main", "signal": 99}, "params"),
        ("kill", {"id": ["x"]}, "container"),
        ("exec", {"container": "main", "process": "ls"}, "params"),
        ("exec", {"container": "main", "process": {"argv": ["ls"], "user": "nobody"}}, "user"),
        ("exec", {"container": "main", "process": {"argv": ["ls"], "uid": "x"}}, "spec"),
        ("exec", {"container": "main", "process": {"argv": ["ls"], "unknown": 1}}, "spec"),
        ("create", {"id": "../x", "spec": {}}, "spec"),
        ("sysctl", {"key": "../../etc/passwd", "value": "x"}, "ENOENT"),
        ("stdin", {"id": "main"}, "state"),
        ("copy_out", {"container": "main", "path": "/nothere"}, "ENOENT"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_reason(host, method, params, reason):
    with pytest.raises(AgentError) as caught:
        host.call(method, **params)
    assert caught.value.reason == reason and caught.value.sentence
    host.call("ping")


def pids(told):
    return [one["pid"] for one in told["processes"]]


def test_a_new_session_hangs_up_on_the_old_ones_execs(zone):
    zone.host.hello()
    stream = zone.host.open("exec", container="main", process=sh("echo up; sleep 100"))
    zone.host.until(lambda: b"up" in stream.data[1])
    pid = stream.events[0]["started"]
    zone.host.hello()
    assert eventually(lambda: pid not in pids(zone.host.call("processes", container="main")))


def test_garbage_of_the_host_costs_only_its_session(zone):
    zone.host.hello()
    zone.host.send(os.urandom(5000) + b"\xff" * 100)
    zone.host.hello()
    assert zone.host.call("ping")
    zone.host.send(b"\x02\x00\x05\x00\x09\x00\x00\x00nojso\xa5")
    with pytest.raises(AssertionError, match="of an unknown stream"):
        zone.host.until(lambda: False)
    zone.host.hello()
    assert zone.host.call("list")["containers"][0]["state"] == "running"


def test_a_port_is_told_as_it_opens_and_closes(host):
    stream = host.open("exec", container="main", process={"argv": ["perl", "-e", SERVER]})
    opened = host.note("port", state="open", port=8080)
    assert (opened["protocol"], opened["address"]) == ("tcp", "127.0.0.1")
    stream.event(signal=9)
    host.note("port", state="closed", port=8080)


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.2", "::", "::1"])
def test_a_port_is_told_with_its_address_of_either_family(host, address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    raw = socket.inet_pton(family, address).hex()
    form = "SnNH32N" if ":" in address else "SnH8x8"
    fields = f'{int(family)},8181,{"0," if ":" in address else ""}"{raw}"{",0" if ":" in address else ""}'
    listens = f'socket(S,{int(family)},1,6);bind(S,pack("{form}",{fields}))or die;listen(S,9);sleep 1000'
    stream = host.open("exec", container="main", process={"argv": ["perl", "-e", listens]})
    assert host.note("port", state="open", port=8181)["address"] == address
    stream.event(signal=9)
    assert host.note("port", state="closed", port=8181)["address"] == address


def test_the_next_host_is_told_what_is_open_and_what_an_earlier_one_knew_and_is_closed(zone):
    zone.host.hello()
    streams = {}
    for port in (8080, 8081):
        listens = SERVER.replace("8080", str(port))
        streams[port] = zone.host.open("exec", container="main", process={"argv": ["perl", "-e", listens]})
        zone.host.note("port", state="open", port=port)
    kept = zone.host.open("exec", container="main", process={"argv": ["perl", "-e", f"exit if fork;{LISTENS}"]})
    zone.host.note("port", state="open", port=8082)
    kept.wait()
    zone.host.hello()  # hangs up on the first two
    assert zone.host.note("port", state="open", port=8082)
    for port in (8080, 8081):
        assert zone.host.note("port", state="closed", port=port)
    zone.host.run(["sh", "-c", "kill -9 $(cat /tmp/listener)"])
    assert zone.host.note("port", state="closed", port=8082)


def test_a_udp_port_is_told_too_and_can_be_asked_for(host):
    assert host.call("listening", port=5353) == {"open": False}
    stream = host.open("exec", container="main", process={"argv": ["perl", "-e", UDP_SERVER]})
    opened = host.note("port", state="open", port=5353)
    assert (opened["protocol"], opened["address"]) == ("udp", "0.0.0.0")
    assert host.call("listening", port=5353) == {"open": True}
    stream.event(signal=9)
    host.note("port", state="closed", port=5353)
    assert host.call("listening", port=5353) == {"open": False}


def test_dial_passes_bytes_both_ways_and_both_ends(host):
    stream = host.open("exec", container="main", process={"argv": ["perl", "-e", SERVER]})
    host.note("port", state="open", port=8080)
    dialled = host.open("dial", port=8080)
    sent = os.urandom(300_000)
    dialled.write(sent)
    dialled.eof()
    assert dialled.wait() == {} and dialled.data[1] == sent and dialled.events == [{"connected": True}]
    stream.event(signal=9)
    stream.wait()


def test_dial_tells_a_reset_from_an_end(host):
    stream = host.open("exec", container="main", process={"argv": ["perl", "-e", RESETTING]})
    host.note("port", state="open", port=8080)
    dialled = host.open("dial", port=8080)
    with pytest.raises(AgentError) as caught:
        dialled.wait()
    assert (caught.value.reason, dialled.data[1]) == ("ECONNRESET", b"the first half")
    stream.event(signal=9)
    stream.wait()


@pytest.mark.parametrize(
    ("address", "reason"), [("127.0.0.1", "ECONNREFUSED"), ("localhost", "params"), ("192.0.2.1", "ENETUNREACH")]
)
def test_dial_says_why_not(host, address, reason):
    with pytest.raises(AgentError) as caught:
        host.call("dial", address=address, port=9)
    assert caught.value.reason == reason


def test_a_further_container_has_its_own_root_and_life(start, image):
    zone = start(IDLE)
    host = zone.host
    with zonebox.loop_device(image) as device:
        spec = {
            "root": {"device": device.removeprefix("/dev/"), "readonly": True},
            "process": {"argv": ["sh", "-c", "cat /etc/hostname; echo x > /new; cat; exit 3"]},
            "hostname": "other",
            "stdin_open": True,
        }
        host.call("create", id="two", spec=spec)
        with pytest.raises(AgentError, match="in use"):
            host.call("create", id="two", spec=spec)
        logs = host.open("logs", container="two")
        for _ in range(2):
            host.call("start", id="two")
            typed = host.open("stdin", id="two")
            typed.write(b"typed\n")
            typed.eof()
            assert typed.wait() == {}
        assert logs.wait() == {} and logs.data[1].startswith(b"other\ntyped\n")
        assert b"Read-only file system" in logs.data[2]
        found = {one["id"]: one for one in host.call("list")["containers"]}
        assert found["two"]["exit"] == {"code": 3} and found["main"]["state"] == "running"
        host.call("delete", id="two")
    with pytest.raises(AgentError, match="did not appear"):
        host.call("create", id="three", spec=spec | {"root": {"device": "xvdz"}, "device_timeout_s": 0.1})
    assert [one["id"] for one in host.call("list")["containers"]] == ["main"]


def test_a_container_that_is_deleted_while_its_disk_is_waited_for_does_not_come(host):
    creating = host.open("create", id="two", spec={"root": {"device": "xvdz"}, "process": IDLE, "device_timeout_s": 60})
    host.call("delete", id="two")
    with pytest.raises(AgentError, match="container two: it was deleted"):
        creating.wait()
    assert [one["id"] for one in host.call("list")["containers"]] == ["main"]


def test_what_a_further_container_writes_is_on_the_scratch_disk_and_goes_with_it(start, image, tmp_path):
    require("mkfs.ext4")
    with open(tmp_path / "disk", "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", tmp_path / "disk"], check=True)
    with (
        zonebox.loop_device(image) as device,
        zonebox.loop_device(tmp_path / "disk", writable=True) as disk,
    ):
        name = disk.removeprefix("/dev/")
        zone = start(IDLE, scratch=[name, "ext4"], overlay_size_mib=0)
        root = {"device": device.removeprefix("/dev/")}
        write = "mkdir -p /a/b && dd if=/dev/zero of=/a/b/big bs=1M count=20 && echo own > /own && cat /own"

        def ends():
            notes = [note for note in zone.host.notes if note["event"] == "exit" and note["container"] == "two"]
            return len(notes)

        def layers(*path):
            return os.listdir("/".join((f"/proc/{zone.init_pid}/root/containers/main/rw", *path)))

        zone.host.run(["sh", "-c", "echo main > /own"])
        for number, text in enumerate(
            (write, "ls /own; cat /etc/hostname"), 1
        ):  # the name comes again, and what it wrote does not
            zone.host.call("create", id="two", spec={"root": root, "process": {"argv": ["sh", "-c", text]}})
            logs = zone.host.open("logs", container="two")
            zone.host.call("start", id="two")
            assert logs.wait() == {}
            assert logs.data[1] == (b"own\n" if text == write else b"box\n")
            assert layers("containers", "two", "upper").count("own") == (text == write)
            zone.host.until(lambda number=number: ends() == number)  # its pipes may end before it
            zone.host.call("delete", id="two")
            assert layers("containers") == []
            assert eventually(lambda: layers("removed") == [])
        assert zone.host.run(["cat", "/own"]).data[1] == b"main\n"
        zone.host.call("shutdown", mode="now")
        zone.wait()


def test_pause_and_resume(start):
    zone = start(sh("i=0; while :; do i=$((i+1)); echo $i; done > /dev/null & echo up; wait"))
    host = zone.host
    host.open("logs", container="main")
    assert host.call("pause", id="main") == {"state": "paused"}
    (spinning,) = [one for one in host.call("processes", container="main")["processes"] if one["ppid"] != 2][-1:]
    times = {one["cpu_s"] for _ in range(20) for one in host.call("processes")["processes"] if one == spinning}
    assert len(times) <= 1
    assert host.call("list")["containers"][0]["state"] == "paused"
    with pytest.raises(AgentError, match="expected running, got paused"):
        host.run(["true"])
    assert host.call("resume", id="main") == {"state": "running"}
    assert host.call("stop", id="main", signal=9, timeout_s=1) == {"exit": {"signal": 9}}


def test_limits_are_taken_as_zoned_sends_them_or_the_controller_that_is_missing_is_named(start):
    host = start(IDLE).host
    try:
        assert host.call("update", id="main", limits=confinement.limit_keys({"pids.max": "50"})) == {}
    except AgentError as error:  # where this machine's tree has none for us
        assert (error.reason, "expected the controller pids, got" in error.sentence) == ("cgroup", True)
    else:
        assert host.run(["cat", "/sys/fs/cgroup/pids.max"]).data[1] == b"50\n"
    with pytest.raises(AgentError) as caught:
        host.call("update", id="main", limits=confinement.limit_keys({"cgroup.freeze": "1"}))
    assert caught.value.reason == "spec"


def test_the_image_healthcheck_is_told_as_it_changes(start):
    check = {"argv": ["sh", "-c", "echo looked; test -e /well"], "interval_s": 0.1, "timeout_s": 60, "retries": 2}
    zone = start(IDLE, extra={"healthcheck": check})
    bad = zone.host.note("health", state="unhealthy")
    assert (bad["code"], bad["output"]) == (1, "looked\n")
    zone.host.run(["touch", "/well"])
    zone.host.note("health", state="healthy")
    assert zone.host.call("list")["containers"][0]["health"] == "healthy"


def test_failures_of_the_start_period_do_not_count_and_its_probes_come_more_often(start):
    check = {
        "argv": ["sh", "-c", "echo x > /looks; test -e /well"],
        "interval_s": 600,
        "start_interval_s": 0.1,
        "start_period_s": 600,
        "retries": 1,
    }
    zone = start(LOOKED_AT, extra={"healthcheck": check})
    zone.host.until_output("main", 1, 4 * len("look\n"))
    assert zone.host.call("list")["containers"][0]["health"] == "starting"
    zone.host.run(["touch", "/well"])
    zone.host.note("health", state="healthy")


def test_probes_go_on_where_a_pause_has_ended(start):
    check = {"argv": ["sh", "-c", "echo x > /looks"], "interval_s": 0.1, "timeout_s": 60, "retries": 1}
    zone = start(LOOKED_AT, extra={"healthcheck": check})
    zone.host.note("health", state="healthy")
    zone.host.call("pause", id="main")
    (main,) = zone.host.call("list")["containers"]
    assert (main["state"], main["health"]) == ("paused", "healthy")
    zone.host.call("resume", id="main")
    zone.host.until_output("main", 1, main["output"]["1"][1] + 4 * len("look\n"))
    assert [note["state"] for note in zone.host.notes if note["event"] == "health"] == ["healthy"]


def test_what_is_wrong_and_ends_nothing_is_a_warning(start, image):
    zone = start(IDLE)
    with zonebox.loop_device(image) as device:
        check = {"argv": ["true"], "interval_s": "often"}
        spec = {"root": {"device": device.removeprefix("/dev/")}, "process": IDLE, "healthcheck": check}
        zone.host.call("create", id="two", spec=spec)
        zone.host.call("start", id="two")
        warning = zone.host.note("warning")
        assert warning["sentence"] == "interval_s: expected seconds, got 'often'"
        assert {one["id"]: one["state"] for one in zone.host.call("list")["containers"]}["two"] == "running"
        zone.host.call("shutdown", mode="now")
        assert "zone: agent: interval_s: expected seconds, got 'often'" in zone.said(30)[1]


def test_a_zone_without_a_process_waits_until_it_is_shut_down(start):
    zone = start(None)
    assert zone.host.call("list") == {"containers": []} or zone.host.greeting["containers"] == []
    zone.host.call("shutdown")
    assert zone.wait()[1] == "zone: the workload exited with code 0"


def test_shutdown_gives_the_workload_its_signal(start):
    zone = start(IDLE)
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: b"up" in logs.data[1])
    zone.host.call("shutdown", signal=15, timeout_s=20)
    assert zone.host.note("exit")["code"] == 7
    assert zone.wait()[1].endswith("code 7")


def test_a_signal_to_init_reaches_the_workload(start):
    zone = start(IDLE)
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: b"up" in logs.data[1])
    os.kill(zone.init_pid, signal.SIGTERM)
    assert zone.host.note("exit")["code"] == 7
    assert zone.wait()[1].endswith("code 7")


@pytest.mark.parametrize("name", ["INT", "HUP", "QUIT", "USR1", "USR2", "WINCH"])
def test_init_passes_each_signal_on(start, name):
    zone = start(
        sh(f"trap 'exit 9' TERM; trap 'echo got; exit 8' {name}; echo up; while :; do sleep 1 & wait $!; done")
    )
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: b"up" in logs.data[1])
    os.kill(zone.init_pid, getattr(signal, f"SIG{name}"))
    assert zone.host.note("exit")["code"] == 8
    assert zone.wait()[1].endswith("code 8")


def test_stop_kills_what_does_not_listen(start):
    zone = start(sh("trap '' TERM; echo up; while :; do sleep 1; done"))
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: b"up" in logs.data[1])
    assert zone.host.call("stop", id="main", signal=15, timeout_s=0.3) == {"exit": {"signal": 9}}
    assert zone.wait()[1].endswith("killed by signal 9")


# Comes to a handler only once it is told to, as a program that has just begun does by and by.
SLOW = "read word < /looks; trap 'echo asked; exit 7' TERM; echo up; while :; do sleep 0.1; done"


def test_stop_that_comes_before_the_workload_has_a_handler_is_told_once_it_has(start):
    zone = start(sh(SLOW))
    stop = zone.host.open("stop", id="main", signal=15, timeout_s=60)
    logs = zone.host.open("logs", container="main")
    zone.host.run(["sh", "-c", "echo go > /looks"])
    assert stop.wait() == {"exit": {"code": 7}}
    zone.host.until(lambda: logs.data[1] == b"up\nasked\n")
    assert zone.wait()[1].endswith("code 7")


def test_stop_is_told_once_to_a_workload_that_has_a_handler(start):
    zone = start(sh("trap 'echo asked' TERM; while :; do echo up; sleep 0.1; done"))
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: b"up" in logs.data[1])
    stop = zone.host.open("stop", id="main", signal=15, timeout_s=600)
    zone.host.until(lambda: logs.data[1].partition(b"asked\n")[2].count(b"up\n") > 10)
    zone.host.call("kill", id="main", signal=9)
    assert stop.wait() == {"exit": {"signal": 9}}
    zone.host.until(lambda: logs.result is not None)
    assert logs.data[1].count(b"asked\n") == 1


def test_a_workload_that_cannot_start_is_told_to_the_host(start):
    zone = start({"argv": ["nothere"]})
    assert zone.host.greeting["outcome"].startswith("failed command-127 command 'nothere'")
    assert "failed (command-127)" in zone.wait()[1]


@pytest.mark.parametrize(
    ("launch", "outcome"),
    [
        ({"modules": [{"path": "/none.ko"}]}, "failed modules loading /none.ko: No such file or directory"),
        ({"seed": "zz"}, "failed launch launch data: key seed: expected hex digits, got something else"),
        ({"modules": [{"path": "/a\0b.ko"}]}, "failed internal ValueError: embedded null byte"),
        ({"sysctls": {"vm.nothing": "1"}}, "failed sysctl setting vm.nothing to '1': No such file or directory"),
        ({"sysctls": {"kernel.pid_max": "x"}}, "failed sysctl setting kernel.pid_max to 'x': Invalid argument"),
        ({"hostname": "x" * 100}, f"failed files setting the hostname '{'x' * 100}': Invalid argument"),
        ({"root": "xvdz"}, "failed root root device xvdz did not appear within 0 s"),
        (
            {"root": "null"},
            "failed root mounting /dev/null on /containers/main/lower as squashfs: Block device required",
        ),
        ({"addons": "xvdz"}, "failed addons addons device xvdz did not appear within 0 s"),
        (
            {"late_modules": [{"path": "/run/zone/ext/none.ko"}]},
            "failed modules loading /run/zone/ext/none.ko: No such file or directory",
        ),
        ({"disks": ["xvdz"]}, "failed volume volume device xvdz did not appear within 0 s"),
        (
            {"network": NETWORK | {"interface": "none0"}},
            "failed network interface none0 did not appear within 0 s",
        ),
    ],
)
def test_a_boot_that_fails_is_told_over_the_channel_and_on_the_console(start, launch, outcome):
    zone = start(IDLE, extra={"device_timeout_s": 0.2}, **launch)
    _, reason, sentence = outcome.split(" ", 2)
    assert zone.host.greeting["outcome"] == outcome and zone.host.greeting["containers"] == []
    assert zone.wait()[1] == f"zone: failed ({reason}): {sentence}"


def test_a_mount_of_the_workload_that_fails_is_told_over_the_channel_and_on_the_console(start):
    mount = {"destination": "/x", "type": "nonefs", "source": "none"}
    zone = start(IDLE, extra={"container": {"mounts": [mount]}})
    sentence = "mounting nonefs for /x: No such device (the kernel has no nonefs, which is CONFIG_NONEFS_FS: "
    assert zone.host.greeting["outcome"].startswith(f"failed mount {sentence}")
    assert zone.wait()[1].startswith(f"zone: failed (mount): {sentence}")


def test_ten_thousand_orphans_are_reaped(start):
    zone = start(sh("i=0; while [ $i -lt 10000 ]; do (: &); i=$((i+1)); done; echo made; sleep 100"))
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: b"made" in logs.data[1], 120)
    assert eventually(lambda: len(pids(zone.host.call("processes"))) <= 6)


def test_an_agent_that_is_killed_ends_the_zone_with_a_sentence_over_the_channel_and_on_the_console(start):
    zone = start(IDLE)
    os.kill(zone.agent_pid, signal.SIGKILL)
    greeting = zone.host.hello()
    assert greeting["outcome"] == "failed agent the zone's agent ended with signal 9" and not greeting["containers"]
    assert zone.wait()[1] == "zone: failed (agent): the zone's agent ended with signal 9"
