"""What a person does with the `zone` command, each command a process of its own, on zones in real Xen."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from support.labzones import get, wait_for
from support.ports import free_port
from support.zonecommand import ZoneCommand, read_until

from pipeline.bundle import manifest
from pipeline.bundle.model import Bundle, Resources
from pipeline.store import Store
from runtime.host.lab.lab import Lab

pytestmark = [pytest.mark.xen, pytest.mark.slow]

IMAGE = "recipe:nginx"
SMALL = ("-m", "128m")
LOST = "zone idle: the agent's session is lost"
LOGS_BYTES = 32 << 20  # of few zones, one of which has said all that is kept of one
WEB = "echo to stdout; echo to stderr >&2; exec nginx -g 'daemon off;'"
EVERY_BYTE = bytes(range(256)) * 256
# In an idle zone a command runs in the zone itself, whose root has no programs but those of the image's disk.
IMAGE_ROOT = "/containers/main/root"
LIBRARIES = f"{IMAGE_ROOT}/usr/lib/x86_64-linux-gnu"
IN_ZONE = (f"{LIBRARIES}/ld-linux-x86-64.so.2", "--library-path", LIBRARIES)


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def web(zone: ZoneCommand, port: int) -> str:
    """A zone that serves a page."""
    options = ("-m", "128m", "--memory-max", "224m", "--cpus-max", "2", "-e", "COLOUR=green", "--label", "tier=front")
    publish = ("-p", f"{port}:80")
    assert zone("run", "-d", "--name", "web", *publish, *options, IMAGE, "sh", "-c", WEB) == "web\n"
    return "web"


@pytest.fixture
def idle(store: Store, nginx: Bundle, zone: ZoneCommand) -> Iterator[str]:
    """A zone without a workload, whose image is there all the same."""
    process = dataclasses.replace(nginx.process, argv=())
    bundle = dataclasses.replace(
        nginx, name="idle", hostname="idle", process=process, ports=(), resources=Resources(128, 128, 1, 1)
    )
    manifest.write(store, bundle)
    zone("boot", "idle")
    zone("metrics", "idle")  # waits for its agent
    yield "idle"
    zone("rm", "-f", "idle")
    store.untag(manifest.TAG_PREFIX + "idle")


def found(zone: ZoneCommand, name: str) -> Any:
    return zone.json("inspect", name)[0]


def in_zone(program: str, *words: str) -> tuple[str, ...]:
    return (*IN_ZONE, f"{IMAGE_ROOT}/usr/bin/{program}", *words)


def page(port: int) -> str:
    return get(f"http://127.0.0.1:{port}/")


# -- what there is -----------------------------------------------------------------------------------------------------


def test_zone_that_was_run_is_listed_inspected_and_serves(zone: ZoneCommand, web: str, port: int) -> None:
    assert zone("wait", "--until", "ports", web) == f"zone {web}: ports\n"
    assert "Served by nginx in zone web" in page(port)
    head, row = zone("ps").splitlines()
    assert head.split()[:3] == ["NAME", "IMAGE", "STATE"]
    assert row.startswith("web") and IMAGE in row and f"{port}->80" in row and "128/224" in row
    assert zone("ps", "-q", "--filter", "label=tier=front") == "web\n"
    assert zone("ps", "-q", "--filter", "label=tier=back") == ""
    listed = zone.json("ps")[0]
    assert (listed["name"], listed["state"], listed["labels"]) == ("web", "ready", {"tier": "front"})
    shown = found(zone, listed["id"][:8])
    assert shown["id"] == listed["id"] and shown["domid"] > 0 and 120 <= shown["memory_seen_mib"] <= 128
    assert "label:        tier=front" in zone("inspect", web)
    assert zone("port", web, "80") == f"127.0.0.1:{port}\n"
    assert zone("exec", web, "sh", "-c", "echo $COLOUR; hostname") == "green\nweb\n"
    zone("port", web, "81", code=1)
    assert b"expected port 81/tcp to be published" in zone.err
    zone("inspect", "wep", code=1)
    assert b"did you mean web?" in zone.err


def test_logs_come_apart_from_a_time_on_the_last_lines_and_as_they_come(zone: ZoneCommand, web: str, port: int) -> None:
    def served() -> bool:  # its port takes connections before nginx listens
        try:
            return "nginx" in get(f"http://127.0.0.1:{port}/")
        except (OSError, HTTPException):
            return False

    def begun() -> bool:  # a page is told to stdout only: now that is the last line, and what is stored is all of it
        said = zone("logs", web)
        return "GET / " in said and said.startswith("to stdout\n") and zone.err.startswith(b"to stderr\n")

    wait_for(served, "web's first page")
    wait_for(begun, "the output of web")
    following = zone.start("logs", "-f", "--tail", "1", web)
    try:
        read_until(following, b"\n")  # it is there before what follows comes
        for path in ("first", "second"):
            with pytest.raises(OSError, match="404"):
                get(f"http://127.0.0.1:{port}/{path}")
            read_until(following, f"GET /{path}".encode())  # by itself: what comes in one piece has one time
    finally:
        following.kill()
    # nginx tells a 404 to both streams, which are two pipes: either line may have come last.
    last = zone("logs", "--tail", "1", web).encode() + zone.err
    assert b"/second" in last and last.count(b"\n") == 1
    stamped = zone("logs", "--timestamps", web).splitlines()
    stamp = next(line.split()[0] for line in stamped if "GET /second" in line)
    later = zone("logs", "--since", stamp, web)
    assert "GET /second" in later and "GET /first" not in later
    assert "CPU1" in zone("logs", "--console", web), "what its kernel said"


def test_networks_host_and_their_parts_are_shown(zone: ZoneCommand, web: str, lab: Lab) -> None:
    network = next(one for one in zone.json("net", "ls") if web in one["zones"])
    assert network["ipv4"] and network["engine"]
    status = zone.json("host", "status")
    assert status["up"] is True and status["zones_running"] >= 1 and status["missing"] == []
    assert [cpu["cpu"] for cpu in zone.json("host", "topology")] == list(range(lab.config.vcpus))
    lab.shell("echo a word on the console >/dev/console")
    assert "a word on the console" in zone("host", "console", "--tail")


def test_figures_and_processes(zone: ZoneCommand, web: str) -> None:
    row = next(row for row in zone.json("top", "--once") if row["name"] == web)
    assert row["state"] == "ready" and int(row["processes"]) >= 2
    assert row["net in"] and row["net out"] and row["read"] and row["pressure"].startswith("cpu ")
    assert "nginx: master process" in zone("top", "--once", web)
    figures = {one["name"]: one["value"] for one in zone.json("metrics", web)["metrics"]}
    assert 80 << 10 < figures["memory_kib.MemTotal"] < 128 << 10
    assert figures["containers.main.pids"] >= 2
    read = "containers.main.memory_bytes", "network.eth0.rx_bytes", "disks.xvda.read_bytes", "cpu.cpu.user"
    assert all(figures[name] > 0 for name in read) and figures["pressure.io.some.total_us"] >= 0
    zone("exec", web, "sh", "-c", "head -c 16777216 /dev/zero >/dev/shm/held")
    again = {one["name"]: one["value"] for one in zone.json("metrics", web)["metrics"]}
    assert again["containers.main.memory_bytes"] >= figures["containers.main.memory_bytes"] + (12 << 20)
    zone("exec", web, "rm", "/dev/shm/held")


# -- exec --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        *((("sh", "-c", f"exit {code}"), code) for code in (0, 1, 99, 128, 255)),
        (("sh", "-c", "kill -TERM $$"), 143),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("no-such-command",), 127),
        (("/etc/passwd",), 126),
    ],
    ids=["0", "1", "99", "128", "255", "SIGTERM", "SIGKILL", "missing", "not executable"],
)
def test_execs_exit_code_is_the_commands(zone: ZoneCommand, web: str, argv: tuple[str, ...], code: int) -> None:
    zone("exec", web, *argv, code=code)


def test_exec_passes_every_byte_and_keeps_streams_apart(zone: ZoneCommand, web: str) -> None:
    said = zone.bytes("exec", "-i", web, "sh", "-c", "cat; echo an error >&2; exit 3", input=EVERY_BYTE, code=3)
    assert said == EVERY_BYTE and zone.err == b"an error\n"
    assert zone("exec", web, "cat", input=b"not passed on") == ""
    script = "id -un; pwd; echo $COLOUR $SIZE"
    options = ("-u", "www-data", "-w", "/tmp", "-e", "SIZE=big")
    assert zone("exec", *options, web, "sh", "-c", script) == "www-data\n/tmp\ngreen big\n"
    assert zone("exec", "-d", web, "sh", "-c", "echo done >/tmp/detached") == ""
    wait_for(lambda: zone("exec", web, "sh", "-c", "cat /tmp/detached || true") == "done\n", "detached command's file")


def test_signals_go_to_the_command(zone: ZoneCommand, web: str) -> None:
    script = "trap 'echo told; exit 9' TERM; echo on; while :; do sleep 0.2; done"
    process = zone.start("exec", web, "sh", "-c", script)
    read_until(process, b"on\n")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=300)[0] == b"told\n" and process.returncode == 9


def test_terminal_has_its_windows_size_and_follows_it(zone: ZoneCommand, web: str) -> None:
    terminal = zone.terminal("exec", "-it", web, "sh")
    try:
        terminal.until(b"# ")
        terminal.type(b"stty size\r")
        terminal.until(b"33 101\r\n")
        terminal.resize(12, 34)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.type(b"until [ \"$(stty size)\" = '12 34' ]; do sleep 0.2; done; echo s''een\r")
        terminal.until(b"seen\r\n")
        terminal.type(b"exit 7\r")
        assert terminal.end() == 7
    finally:
        terminal.close()


# -- cp ----------------------------------------------------------------------------------------------------------------


def test_files_directories_and_archives_are_copied_both_ways(zone: ZoneCommand, web: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "deep").mkdir(parents=True)
    (site / "index").write_bytes(EVERY_BYTE)
    (site / "deep" / "run").write_text("#!/bin/sh\necho ran\n")
    (site / "deep" / "run").chmod(0o755)
    (site / "link").symlink_to("deep/run")
    zone("cp", f"{site}/index", f"{web}:/srv/file")
    zone("cp", f"{site}", f"{web}:/srv/new")  # is not there: becomes the copy
    zone("cp", f"{site}/.", f"{web}:/srv/new/deep")  # is there: what lies in it
    assert zone("exec", web, "sh", "-c", "cmp /srv/file /srv/new/deep/index && /srv/new/link") == "ran\n"
    zone("cp", f"{web}:/srv/file", f"{tmp_path}/back")
    assert (tmp_path / "back").read_bytes() == EVERY_BYTE
    zone("cp", f"{web}:/srv/new", f"{tmp_path}/tree")
    assert os.readlink(tmp_path / "tree" / "link") == "deep/run"
    assert os.access(tmp_path / "tree" / "deep" / "run", os.X_OK)
    archive = zone.bytes("cp", f"{web}:/srv/new/deep", "-")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert "deep/run" in {member.name.removeprefix("./") for member in tar}
    zone("cp", "-", f"{web}:/tmp", input=archive)
    assert zone("exec", web, "/tmp/deep/run") == "ran\n"
    zone("cp", f"{web}:/no/such", f"{tmp_path}/x", code=1)


# -- update ------------------------------------------------------------------------------------------------------------


def memory_kib(zone: ZoneCommand, name: str) -> int:
    return int(zone("exec", name, "sed", "-n", r"s/MemTotal: *\([0-9]*\).*/\1/p", "/proc/meminfo"))


def test_memory_and_vcpus_change_and_the_guest_has_them(zone: ZoneCommand, web: str) -> None:
    before = memory_kib(zone, web)
    assert zone("update", "-m", "224m", "-c", "2", web) == "web\n"
    wait_for(lambda: memory_kib(zone, web) > before + (80 << 10), "memory in the guest")
    wait_for(lambda: zone("exec", web, "nproc") == "2\n", "vCPU in the guest")
    shown = found(zone, web)
    assert (shown["memory_mib"], shown["vcpus"], shown["vcpus_seen"]) == (224, 2, 2)
    zone("update", "-m", "128m", "-c", "1", web)
    wait_for(lambda: memory_kib(zone, web) <= before, "less memory in the guest")
    wait_for(lambda: zone("exec", web, "nproc") == "1\n", "one vCPU less in the guest")
    wait_for(lambda: found(zone, web)["memory_seen_mib"] <= 128, "memory in Xen's hands")
    zone("update", "-m", "225m", web, code=1)
    assert b"expected 96 to 224, fixed at its start, got 225" in zone.err


def test_ports_come_and_go_while_it_runs_and_outlive_a_restart(zone: ZoneCommand, web: str, port: int) -> None:
    more = free_port()
    zone("update", "--publish-add", f"{more}:80", web)
    assert "zone web" in page(more)
    zone("update", "--publish-rm", str(more), web)
    with pytest.raises(OSError):
        page(more)
    before = found(zone, web)
    assert zone("restart", web).startswith("zone web is ")
    zone("wait", "--until", "ports", web)
    after = found(zone, web)
    assert after["id"] == before["id"] and after["domain_uuid"] != before["domain_uuid"]
    assert "zone web" in page(port)


# -- run, attach -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [EVERY_BYTE, pytest.param(b"hello\n" + EVERY_BYTE * 16, marks=pytest.mark.soak)], ids=["64 KiB", "1 MiB"]
)
def test_run_in_a_pipe_is_byte_exact_and_leaves_nothing(zone: ZoneCommand, data: bytes) -> None:
    script = ("sh", "-c", "cat; exit 3")
    assert zone.bytes("run", "-i", "--rm", "--name", "pipe", *SMALL, IMAGE, *script, input=data, code=3) == data
    assert "pipe" not in zone("ps", "-aq").split()


@pytest.mark.soak
@pytest.mark.parametrize(("argv", "code"), [(("sh", "-c", "echo out; exit 3"), 3), (("/no/such/command",), 127)])
def test_runs_exit_code_is_the_workloads(zone: ZoneCommand, argv: tuple[str, ...], code: int) -> None:
    said = zone("run", "--rm", "--name", "short", "--entrypoint", argv[0], *SMALL, IMAGE, *argv[1:], code=code)
    assert said == ("out\n" if code == 3 else "")


def test_attach_replays_takes_input_is_left_and_comes_back(zone: ZoneCommand) -> None:
    script = "echo begin; stty size; while read line; do echo got $line; [ $line = end ] && exit 5; done"
    zone("run", "-d", "-t", "--name", "room", *SMALL, IMAGE, "sh", "-c", script)
    terminal = zone.terminal("attach", "room")
    try:
        terminal.until(b"begin\r\n")
        terminal.type(b"one\r")
        terminal.until(b"got one\r\n")
        terminal.type(b"\x1d")
        assert terminal.end() == 0
    finally:
        terminal.close()
    assert found(zone, "room")["state"] == "ready"
    again = zone.start("attach", "room")
    assert again.stdin is not None
    read_until(again, b"got one")
    again.stdin.write(b"end\n")
    again.stdin.flush()
    assert b"got end" in again.communicate(timeout=300)[0] and again.returncode == 5


# -- the end of zones --------------------------------------------------------------------------------------------------

LIFE = "trap 'echo told' USR1; trap 'exit 6' QUIT; echo up; while :; do sleep 0.2; done"


def test_kill_stop_wait_restart_and_rm(zone: ZoneCommand) -> None:
    zone("run", "-d", "--name", "life", *SMALL, IMAGE, "sh", "-c", LIFE)
    wait_for(lambda: "up" in zone("logs", "life"), "first word")
    zone("kill", "-s", "USR1", "life")
    wait_for(lambda: "told" in zone("logs", "life"), "answer to a signal")
    waiting = zone.start("wait", "life")
    assert zone("stop", "-t", "30", "life") == "zone life is stopped: exit code 6\n"
    assert waiting.communicate(timeout=300)[0] == b"6\n" and waiting.returncode == 6
    assert zone("ps", "-q", "--filter", "name=life") == ""
    assert "exited (6)" in zone("ps", "-a")
    zone("restart", "life")
    zone("wait", "--until", "ready", "life")
    zone("rm", "life", code=1)
    zone("kill", "-s", "KILL", "life")
    assert zone("wait", "life", code=137) == "137\n"
    exit = found(zone, "life")["exit"]
    assert (exit["signal"], exit["oom"], exit["crashed"], exit["text"]) == (9, False, False, "killed by SIGKILL")
    assert zone("rm", "life") == "life\n"


@pytest.mark.soak
def test_stop_kills_what_ignores_it_and_rm_ends_what_runs(zone: ZoneCommand) -> None:
    script = "trap '' QUIT TERM; echo deaf; while :; do sleep 1; done"
    zone("run", "-d", "--name", "deaf", *SMALL, IMAGE, "sh", "-c", script)
    wait_for(lambda: "deaf" in zone("logs", "deaf"), "first word")
    assert zone("stop", "-t", "1", "deaf") == "zone deaf is stopped: killed by SIGKILL\n"
    zone("restart", "deaf")
    assert zone("rm", "-f", "deaf") == "deaf\n"
    assert "deaf" not in zone("ps", "-aq").split()


EARLY = "stopped before its workload started"


@pytest.mark.soak
def test_stop_right_after_a_start_is_clean_however_far_the_zone_has_come(zone: ZoneCommand) -> None:
    """As its workload has just been executed and has no handler yet, and as its kernel still boots."""
    policy = ("--restart", "always")
    zone("run", "-d", "--name", "early", *policy, *SMALL, IMAGE, "sh", "-c", LIFE)
    assert zone("stop", "-t", "60", "early") == "zone early is stopped: exit code 6\n"
    for _ in range(4):
        zone("restart", "early")
        said = zone("stop", "-t", "60", "early")
        exit = found(zone, "early")["exit"]
        assert (exit["signal"], exit["oom"], exit["crashed"]) == (0, False, False), exit
        assert (exit["code"] == 6 and "exit code 6" in said) or (exit["code"] == 125 and EARLY in said), said
        shown = found(zone, "early")
        assert (shown["state"], shown["restarts"], shown["domid"]) == ("exited", 0, 0)
    assert zone("rm", "early") == "early\n"


def test_restarts_are_counted_told_and_can_be_followed_from_a_token(zone: ZoneCommand) -> None:
    policy = ("--restart", "on-failure:1")
    zone("run", "-d", "--name", "flaky", *policy, *SMALL, IMAGE, "sh", "-c", "echo again; exit 4")
    assert zone("wait", "flaky", code=4) == "4\n"
    assert found(zone, "flaky")["restarts"] == 1
    assert zone("logs", "flaky") == "again\n" * 2
    told = events(zone, "--since", "start", "flaky")
    kinds = [one["kind"] for one in told if one["kind"] in ("zone.running", "zone.restarting", "zone.exited")]
    assert kinds == ["zone.running", "zone.restarting", "zone.running", "zone.exited"]
    first = next(number for number, one in enumerate(told) if one["kind"] == "zone.restarting")
    assert events(zone, "--since", told[first]["token"], "flaky") == told[first + 1 :]
    assert "zone flaky" in zone("system", "prune", "--dry-run").splitlines()
    assert {row["what"] for row in zone.json("system", "df")} >= {"logs", "blobs"}
    zone("system", "prune")
    assert "flaky" not in zone("ps", "-aq").split()


def events(zone: ZoneCommand, *words: str) -> list[Any]:
    return [json.loads(line) for line in zone("events", *words, "--format", "json").splitlines()]


@pytest.mark.soak
def test_workload_that_took_all_memory_is_told_from_one_that_was_killed(zone: ZoneCommand) -> None:
    zone("run", "-d", "--name", "hungry", *SMALL, IMAGE, "tail", "/dev/zero")
    # Under TCG the kernel reclaims for a minute and more before it kills.
    zone("wait", "hungry", code=137, timeout_s=600)
    exit = found(zone, "hungry")["exit"]
    assert (exit["oom"], exit["signal"], exit["crashed"]) == (True, 9, False)
    assert "zone.oom" in [one["kind"] for one in events(zone, "--since", "start", "hungry")]


@pytest.mark.soak
def test_kernel_that_crashed_is_told_from_all_that(zone: ZoneCommand, idle: str) -> None:
    zone.start("exec", idle, *in_zone("sh", "-c", "echo c >/proc/sysrq-trigger"))
    zone("wait", idle, code=255)
    shown = found(zone, idle)
    assert shown["exit"]["crashed"] and not shown["exit"]["oom"] and shown["exit"]["signal"] == 0
    assert any("sysrq" in line for line in shown["console_tail"]), shown["console_tail"]


# -- many, and hostile -------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_zone_that_floods_its_console_and_its_channel_harms_nobody_else(
    lab: Lab, zone: ZoneCommand, web: str, idle: str
) -> None:
    def flooded(device: str, blocks: int) -> None:
        write = in_zone("dd", "if=/dev/urandom", f"of=/dev/{device}", "bs=4096", f"count={blocks}")
        zone("exec", "-d", idle, *in_zone("sh", "-c", f"{' '.join(write)}; echo {device} $? >/flooded"))
        for number in range(3):
            assert zone("exec", "-i", web, "cat", input=b"%d" % number) == str(number)

    def ends() -> str:
        asked = zone.start("exec", idle, *in_zone("cat", "/flooded"), stdin=subprocess.DEVNULL)
        return asked.communicate(timeout=120)[0].decode()

    flooded("hvc0", 2048)
    wait_for(lambda: ends() == "hvc0 0\n", "end of what is written to the console", 300)
    # Its agent's own channel: the host hears that this is none of its frames, and begins a new session with the agent,
    # which ends what the old one had begun. So the flood ends by itself, and the agent answers.
    flooded("hvc1", 1024)
    wait_for(lambda: LOST in lab.shell("cat /run/zonewright/zoned.log")[1], "word of the session that is lost")
    assert ends() == "hvc0 0\n"
    assert found(zone, idle)["state"] in ("running", "ready")
    assert zone.json("host", "status")["up"] is True
    (logs,) = [row for row in zone.json("system", "df") if row["what"] == "logs"]
    assert 4096 < int(logs["size_bytes"]) < LOGS_BYTES, "what it said is kept, and not without end"


@pytest.mark.soak
def test_of_twenty_zones_at_once_those_that_fit_boot_and_none_of_the_others_is_begun(zone: ZoneCommand) -> None:
    zone.remove_zones()
    names = [f"many{number}" for number in range(20)]
    started = {
        name: zone.start("run", "-d", "--name", name, "-m", "128m", IMAGE, "sleep", "1000", stdin=subprocess.DEVNULL)
        for name in names
    }
    said = {name: process.communicate(timeout=300) for name, process in started.items()}
    up = {name for name in names if started[name].returncode == 0}
    for name in set(names) - up:
        assert started[name].returncode == 125
        assert b"of free memory in Xen" in said[name][1], said[name]
    assert 2 <= len(up) <= 4
    assert set(zone("ps", "-aq").split()) == up, "what is refused is not even listed"
    begun = {one["zone"] for one in events(zone, "--since", "start") if one["kind"] == "zone.creating"}
    assert begun & set(names) == up
    for name in up:
        assert zone("exec", name, "hostname") == f"{name}\n"
    zone("rm", "-f", *up)


# -- over the host's end -----------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_zones_come_back_with_the_host_if_their_restart_policy_says_so(own: Lab) -> None:
    own.up()
    zone, port = ZoneCommand(f"lab:{own.state.directory.name}"), free_port()

    def run(name: str, policy: str, *options: str) -> None:
        zone("run", "-d", "--name", name, "--restart", policy, *options, *SMALL, IMAGE, "sh", "-c", WEB)

    run("again", "always", "-p", f"{port}:80")
    run("stopped", "unless-stopped")
    zone("stop", "stopped")
    run("failing", "on-failure:3")
    before = found(zone, "again")
    zone("wait", "--until", "ports", "again")
    own.down()
    own.up()
    zone("wait", "--until", "ports", "again")
    assert "zone again" in page(port)
    after = found(zone, "again")
    assert after["id"] == before["id"] and after["domain_uuid"] != before["domain_uuid"]
    assert zone("logs", "again").count("to stdout\n") == 2
    assert zone("exec", "again", "hostname") == "again\n"
    states = {one["name"]: (one["state"], one["exit"]["text"]) for one in zone.json("ps", "-a") if one["exit"]}
    assert states["stopped"][0] == "exited"
    assert states["failing"] == ("exited", "the host was rebooted")
    assert zone("ps", "-q") == "again\n"
    zone.remove_zones()
    assert zone.json("system", "check")["findings"] == []
