"""What goes on in a real zone, whose kernel has all that a container is made of; one zone for nearly all of it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import select
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import zonebox, zoneparts
from support.labzones import kill_zoned, wait_for
from support.zonecommand import ZoneCommand, read_until

from pipeline.bundle import manifest
from pipeline.bundle.capabilities import CAPABILITIES, EVERY_CAPABILITY
from pipeline.bundle.model import Bundle, Healthcheck, Resources, Volume
from pipeline.bundle.security import parse_confinement
from pipeline.bundle.volumes import bundled
from pipeline.store import Store
from runtime.host.api import host_pb2 as pb
from runtime.host.client.client import received
from runtime.host.hosts import LabHost
from runtime.host.lab.lab import Lab

pytestmark = pytest.mark.xen

NAME = "inside"
IDLE = ("/bin/sh", "-c", "trap 'exit 0' QUIT TERM; echo up; while :; do sleep 1 & wait $!; done")
SMALL = Resources(128, 128, 1, 1)
# The zone's own root has styrolite and no other program: one of the image is run with its own loader.
IMAGE_ROOT = "/containers/main/root"
LIBRARIES = f"{IMAGE_ROOT}/usr/lib/x86_64-linux-gnu"
LOADER = (f"{LIBRARIES}/ld-linux-x86-64.so.2", "--library-path", LIBRARIES)
SHELL = (*LOADER, f"{IMAGE_ROOT}/usr/bin/sh", "-c")
OWN = ["Mount", "Uts", "Pid", "Ipc", "Cgroup"]
GROUP = "/sys/fs/cgroup/containers/main"
# What its spec says of its container.
CONFINEMENT = """
[security]
capabilities = { drop = ["NET_RAW", "AUDIT_WRITE"], add = ["SYS_NICE"] }
[limits]
pids.max = 256
[rlimits]
nofile = [512, 1024]
core = 0
"""
# The image has none; needs no module of perl's.
PERL = "/tools/lib64/ld-linux-x86-64.so.2 --library-path /tools/lib/x86_64-linux-gnu /tools/bin/perl"
AT_ONCE = 100
KEYCTL = 250  # arch/x86/entry/syscalls/syscall_64.tbl
# name -> (what root in the container tries, what it is told)
ATTEMPTS = {
    "xenstore": ("cat /dev/xen/xenbus", "No such file or directory"),
    "hypercalls": ("cat /dev/xen/privcmd /proc/xen/privcmd", "No such file or directory"),
    "capabilities of Xen": ("cat /proc/xen/capabilities", "No such file or directory"),
    "kernel's console": ("cat /dev/hvc0", "No such file or directory"),
    "agent's channel": ("ls /dev/hvc1", "No such file or directory"),
    "a console's node of its own": ("mknod /tmp/hvc c 229 1 && echo x >/tmp/hvc", "Permission denied"),
    "memory's node of its own": ("mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem", "Permission denied"),
    "root's disk of its own": ("mknod /tmp/xvda b 202 0 && head -c 1 /tmp/xvda", "Permission denied"),
    "end of the zone": ("echo o >/proc/sysrq-trigger", "Read-only file system"),
    "the kernel's settings": ("echo 1 >/proc/sys/kernel/panic", "Read-only file system"),
    "its own limits": ("echo max >/sys/fs/cgroup/memory.max", "Read-only file system"),
    "other processes' group": ("echo 1 >/sys/fs/cgroup/cgroup.procs", "Read-only file system"),
    "the program that runs": ("echo x >/proc/self/exe", "Text file busy"),
    "the program of pid 1": ("echo x >/proc/1/exe", "Text file busy"),
    "keys": (f"""{PERL} -e 'syscall({KEYCTL}, 0, -3, 1) < 0 and die "$!\\n"'""", "Operation not permitted"),
    "init's program": ("cat /bin/zone /bin/styrolite", "No such file or directory"),
}


@pytest.fixture(scope="module")
def inside(store: Store, nginx: Bundle, zone: ZoneCommand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A zone that idles, with settings of its kernel, limits, and a health check that fails until there is a file."""
    directory = tmp_path_factory.mktemp("tools")
    tools = zoneparts.squashfs(zoneparts.small_root(directory / "root", ["perl"]), directory / "tools.squashfs")
    bundle = dataclasses.replace(
        _idle(nginx, NAME),
        confinement=parse_confinement(tomllib.loads(CONFINEMENT), subject=NAME),
        volumes=bundled([Volume("/tools", "squashfs", str(tools), readonly=True)], store, subject=NAME),
        sysctls={"net.core.somaxconn": "777", "kernel.pid_max": "12345"},
        healthcheck=Healthcheck(("test", "-e", "/tmp/well"), interval_s=0.5, retries=1),
    )
    manifest.write(store, bundle)
    zone("boot", NAME)
    yield NAME
    zone("rm", "-f", NAME)
    store.untag(manifest.TAG_PREFIX + NAME)


def _idle(nginx: Bundle, name: str) -> Bundle:
    process = dataclasses.replace(nginx.process, argv=IDLE)
    return dataclasses.replace(nginx, name=name, hostname=name, process=process, ports=(), resources=SMALL)


def _frames(process: subprocess.Popen[bytes], text: bytes) -> list[dict[str, Any]]:
    """The frames that `snoop` has shown until this text was seen; the last line may not be whole yet."""
    lines = read_until(process, text).rpartition(b"\n")[0].splitlines()
    return [json.loads(line) for line in lines]


def test_health_is_told_as_it_changes(zone: ZoneCommand, inside: str) -> None:
    def is_told(state: str) -> bool:
        return zone("ps", "-q", "--filter", f"health={state}") == f"{inside}\n"

    wait_for(lambda: is_told("unhealthy"), "failed probe")
    zone("exec", inside, "touch", "/tmp/well")
    wait_for(lambda: is_told("healthy"), "probe that succeeds")


def test_settings_of_the_spec_are_those_of_the_zones_kernel(zone: ZoneCommand, inside: str) -> None:
    paths = ("/proc/sys/net/core/somaxconn", "/proc/sys/kernel/pid_max")
    assert zone("exec", inside, "cat", *paths) == "777\n12345\n"


def test_settings_of_the_zones_kernel_are_shown_and_changed_while_it_runs(zone: ZoneCommand, inside: str) -> None:
    assert zone("sysctl", inside, "net.core.somaxconn") == "net.core.somaxconn = 777\n"
    assert zone("sysctl", "-n", inside, "vm.swappiness=7") == "7\n"
    assert zone("exec", inside, "cat", "/proc/sys/vm/swappiness") == "7\n"
    zone("sysctl", inside, "vm.nothing", code=1)
    assert b"sysctl vm.nothing: No such file or directory" in zone.err


def test_rights_and_limits_of_the_spec_are_those_of_the_workload_and_of_what_is_run_beside_it(
    zone: ZoneCommand, inside: str
) -> None:
    names = {*CAPABILITIES, "SYS_NICE"} - {"NET_RAW", "AUDIT_WRITE"}
    mask = sum(1 << EVERY_CAPABILITY.index(name) for name in names)
    look = "grep -hE '^(Cap(Prm|Eff|Bnd):|Max (open files|core file))' /proc/$1/status /proc/$1/limits"
    text = f"look() {{ {look}; }}; look 1; look self; cat /sys/fs/cgroup/pids.max"
    *lines, processes = zone("exec", inside, "sh", "-c", text).splitlines()
    sets = [f"{name}:\t{mask:016x}" for name in ("CapPrm", "CapEff", "CapBnd")]
    assert [line for line in lines if line.startswith("Cap")] == sets * 2
    limits = [line.split()[-3:-1] for line in lines if line.startswith("Max")]
    assert limits == [["0", "0"], ["512", "1024"]] * 2 and processes == "256"


FILTERED = ("grep", "-E", "^(Seccomp|NoNewPrivs):", "/proc/self/status")


def test_a_workload_has_the_default_filter(zone: ZoneCommand, inside: str) -> None:
    assert zone("exec", inside, *FILTERED).split() == ["NoNewPrivs:", "1", "Seccomp:", "2"]
    assert zone("exec", inside, "sh", "-c", "grep Seccomp: /proc/1/status").split() == ["Seccomp:", "2"]


@pytest.mark.soak
def test_a_workload_has_no_filter_where_the_user_says_so(zone: ZoneCommand) -> None:
    unconfined = ("run", "--rm", "-m", "128m", "--security-opt", "seccomp=unconfined", "recipe:nginx")
    assert zone(*unconfined, *FILTERED).split() == ["NoNewPrivs:", "1", "Seccomp:", "0"]


def test_no_attempt_to_get_out_of_the_container_succeeds(zone: ZoneCommand, inside: str) -> None:
    tries = [
        f'echo {shlex.quote(f"== {name}")}; ({attempt}) 2>&1; echo "code $?"' for name, (attempt, _) in ATTEMPTS.items()
    ]
    said = zone("exec", inside, "sh", "-c", "; ".join(tries))
    parts = re.split(r"^== (.+)\n", said, flags=re.M)
    results = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert results.keys() == ATTEMPTS.keys()
    for name, (_, refusal) in ATTEMPTS.items():
        assert refusal in results[name] and not results[name].endswith("code 0\n"), (name, results[name])
    shown = zone("exec", inside, "sh", "-c", "ls -A /proc/xen /sys/hypervisor 2>/dev/null; cat /proc/self/mountinfo")
    before, _, mounts = shown.partition("/sys/hypervisor:\n")
    assert before.split() in ([], ["/proc/xen:"]), shown
    assert mounts.split()[:2] == ["type", "uuid"] and "styrolite" not in mounts
    assert zone("exec", inside, "readlink", "/proc/1/exe").startswith("/usr/bin/"), "its own pid 1, not the zone's"


def test_a_config_of_styrolite_runs_in_the_zone_itself(zone: ZoneCommand, inside: str) -> None:
    config = zonebox.config("hostname; cat /sys/fs/cgroup/pids.max; exit 7", limits={"pids.max": "9"}, namespaces=OWN)
    said = zone("exec", "-i", "--zone", inside, "styrolite", "-", code=7, input=config)
    assert said == "styrolite-inner\n9\n"
    zone("exec", "--zone", inside, "zone", code=1)
    assert b"the zone's agent is a part of init" in zone.err


def test_a_container_has_users_and_a_clock_of_its_own(zone: ZoneCommand, inside: str) -> None:
    maps = [{"base_nsid": 0, "base_hostid": 100_000, "remap_count": 65_536}]
    script = "id -u; cat /proc/self/uid_map /proc/self/gid_map; cut -d. -f1 /proc/uptime; echo x >/etc/x"
    own = [*OWN, "User", "Time"]
    config = zonebox.config(script, namespaces=own, uid_mappings=maps, gid_mappings=maps)
    before = int(zone("exec", "--zone", inside, *SHELL, "read up _ </proc/uptime; echo ${up%.*}"))
    said = zone("exec", "-i", "--zone", inside, "styrolite", "-", input=config, code=2)
    user, *both, uptime_s = said.splitlines()
    assert user == "0" and [row.split() for row in both] == [["0", "100000", "65536"]] * 2
    assert int(uptime_s) < before, "its clock begins with it"
    assert b"Permission denied" in zone.err, "its root is not the owner of the zone's files"


def test_a_mount_target_that_is_a_symlink_stays_in_the_root(zone: ZoneCommand, inside: str) -> None:
    zone("exec", inside, "ln", "-sfn", "../../../../..", "/tmp/up")
    mounts = [{"source": "tmpfs", "target": "/tmp/up/escape", "fstype": "tmpfs"}]
    config = zonebox.config("grep -c ' /escape tmpfs ' /proc/self/mounts", mounts=mounts, namespaces=OWN)
    assert zone("exec", "-i", "--zone", inside, "styrolite", "-", input=config) == "1\n"
    look = f"[ -e /escape ] || echo none; [ -d {IMAGE_ROOT}/escape ] && echo in the root"
    assert zone("exec", "--zone", inside, *SHELL, look) == "none\nin the root\n"


@pytest.mark.soak
def test_a_hundred_execs_run_at_once(lab: Lab, store: Store, inside: str) -> None:
    """Each says its number, waits until all have, and ends with a code of its own."""

    async def all_of_them() -> list[tuple[bytes, int]]:
        started, everyone = 0, asyncio.Event()

        async def one(number: int) -> tuple[bytes, int]:
            nonlocal started
            words = ["sh", "-c", f"echo begun {number}; read word; echo $word {number}; exit {number}"]
            async with client.opened(client.host.ExecZone) as stream:
                await stream.send_message(pb.ProcessInput(start=pb.ProcessStart(zone=inside, argv=words, stdin=True)))
                said, code = b"", -1
                async for told in received(stream):
                    first, said = not said, said + told.stdout
                    if first and said:
                        started += 1
                        if started == AT_ONCE:
                            everyone.set()
                        await everyone.wait()
                        await stream.send_message(pb.ProcessInput(stdin=b"go\n"))
                    if told.HasField("exit"):
                        code = told.exit.code
                return said, code

        return await asyncio.gather(*(one(number) for number in range(AT_ONCE)))

    with LabHost(store, lab).connect() as client:
        done = client.run(all_of_them())
    assert done == [(b"begun %d\ngo %d\n" % (number, number), number) for number in range(AT_ONCE)]


@pytest.mark.soak
def test_a_great_output_arrives_whole_over_a_real_console(zone: ZoneCommand, inside: str) -> None:
    """32 MiB: Xen's console ring has room for 2 KiB, and an emulated machine passes less than 1 MB/s through it."""
    numbers = "i=0; while [ $i -lt 16 ]; do yes $i | head -c 2097152; i=$((i + 1)); done"
    said = zone("exec", inside, "sh", "-c", numbers, timeout_s=600).encode()
    expected = b"".join((b"%d\n" % number * 2097152)[:2097152] for number in range(16))
    assert said == expected


def test_it_is_paused_goes_on_and_takes_other_limits(zone: ZoneCommand, inside: str) -> None:
    frozen = f"while read key value; do [ $key != frozen ] || echo $value; done <{GROUP}/cgroup.events"
    assert zone("pause", inside) == f"{inside}\n"
    assert zone("exec", "--zone", inside, *SHELL, frozen) == "1\n"
    assert zone("ps", "-q", "--filter", "state=paused") == f"{inside}\n" and "paused" in zone("ps")
    zone("exec", inside, "true", code=1)
    assert b"expected running, got paused" in zone.err
    assert zone("unpause", inside) == f"{inside}\n"
    assert zone("exec", "--zone", inside, *SHELL, frozen) == "0\n"
    zone("update", "--limit", "memory.max=64m", "--limit", "pids.max=99", "--limit", "cpu.max=0.2", inside)
    zone("update", "--limit", "io.max=xvda rbps=64m wiops=100", inside)
    read = "cd /sys/fs/cgroup && cat memory.max pids.max cpu.max io.max"
    disk = "202:0 rbps=67108864 wbps=max riops=max wiops=100"
    assert zone("exec", inside, "sh", "-c", read) == f"67108864\n99\n20000 100000\n{disk}\n"


def test_clock_that_is_off_is_set_when_another_zoned_takes_the_zone_over(
    lab: Lab, zone: ZoneCommand, inside: str
) -> None:
    """Its workload may not set it; the zone itself may."""
    zone("exec", inside, "date", "-s", "@1000000000", code=1)
    zone("exec", "--zone", inside, *LOADER, f"{IMAGE_ROOT}/usr/bin/date", "-s", "@1000000000")
    assert int(zone("exec", inside, "date", "+%s")) < 1_000_001_000
    kill_zoned(lab)

    def is_right() -> bool:
        return abs(int(zone("exec", inside, "date", "+%s")) - int(lab.shell("date +%s")[1])) < 60

    wait_for(is_right, "clock that is the host's")


def test_snoop_shows_the_frames_of_an_exec(zone: ZoneCommand, inside: str) -> None:
    snoop = zone.start("snoop", inside, "--format", "json")
    try:
        assert snoop.stdout is not None
        while not select.select([snoop.stdout], [], [], 0)[0]:  # until it listens: what passed before is not shown
            assert snoop.poll() is None
            zone("exec", inside, "echo", "words to look for")
        zone("exec", inside, "echo", "the last words")
        frames = _frames(snoop, b"the last words")
    finally:
        snoop.kill()
    opened = [one["message"] for one in frames if one["kind"] == "OPEN"]
    assert "exec" in [message["method"] for message in opened]
    assert {one["zone"] for one in frames} == {inside}


def test_what_a_spec_refuses_nobody_may_ask_of_the_zone(zone: ZoneCommand, tmp_path: Path) -> None:
    refusing = ("run", "-d", "--name", "closed", "-m", "128m", "--security-opt", "refuse=exec,cp", "recipe:nginx")
    zone(*refusing)
    try:
        zone("exec", "closed", "true", code=1)
        assert b"zone closed: method exec: expected one that the zone's spec does not refuse" in zone.err
        zone("cp", "closed:/etc/hostname", str(tmp_path), code=1)
        assert b"the zone's spec does not refuse" in zone.err and not list(tmp_path.iterdir())
        assert "refuses:      cp, exec\n" in zone("inspect", "closed")

        def is_logged() -> bool:
            zone("logs", "closed")
            return b"start worker process" in zone.err

        wait_for(is_logged, "log, which it does not refuse")
    finally:
        zone("rm", "-f", "closed")


def test_a_boot_that_fails_is_told_over_the_channel_and_on_the_console(
    zone: ZoneCommand, store: Store, nginx: Bundle, inside: str
) -> None:
    name, told = "broken", "failed sysctl setting vm.nothing to '1': No such file or directory"
    manifest.write(store, dataclasses.replace(_idle(nginx, name), sysctls={"vm.nothing": "1"}))
    snoop = zone.start("snoop", "--format", "json")
    try:
        assert snoop.stdout is not None
        while not select.select([snoop.stdout], [], [], 0)[0]:
            zone("exec", inside, "true")
        zone("boot", name, code=1)
        assert b"setting vm.nothing to '1': No such file or directory" in zone.err
        _frames(snoop, told.encode())
        assert "zone: failed (sysctl): setting vm.nothing to '1'" in zone("logs", "--console", name)
    finally:
        snoop.kill()
        zone("rm", "-f", name)
        store.untag(manifest.TAG_PREFIX + name)
