"""What must not wear out: boots and destroys in a row, builds in a row, zoned killed under load."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING, Any

from run import Measure

from pipeline.bundle.model import Bundle
from pipeline.oci import Descriptor
from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from bench_zone import World

    from runtime.host.client.client import HostClient
    from runtime.host.lab.lab import Lab

FULL_BOOTS, BUILDS = 50, 200
KILLS, ZONES_UNDER_LOAD = 100, 5
BACK_TIMEOUT_S = 300.0
# Between one client's requests: five of them ask more than the lab serves, on most machines.
PAUSE_S = 0.5
# What dom0 shows where zoned stays away: its log, who runs, and what each of its threads waits for.
LOOK_AT_ZONED = """tail -n 60 /run/zonewright/zoned.log; top -b -n 1 | head -n 30; dmesg | tail -n 20
for pid in $(pgrep -f runtime.host.zoned); do grep -H . /proc/$pid/task/*/wchan /proc/$pid/task/*/stack; done"""
BUILDS_PROGRAM = Path(__file__).parents[1] / "support" / "dom0_builds.py"
BUILD_MANY = """truncate -s 64M /tmp/builds.scratch; cd /opt/zonewright
PYTHONPATH=. python3 /tmp/builds.py /tmp/builds.json {count}; code=$?
rm -rf /tmp/builds.* /tmp/dom0-builds; exit $code"""


# What each of the loaded zones runs: the server, and lines with a number on each; told to stop it ends with a code that
# is its own. Words: the code, seconds between two lines. It waits at a pipe that nobody writes to: the load is to be
# zoned's, and five zones that started a `sleep` each second kept both processors of an emulated machine busy with that.
COUNTING = """trap "exit $1" TERM
nginx -g 'daemon off;' &
exec 3<> <(:)
number=0
while :; do
  echo "line $number"
  number=$((number + 1))
  read -t "$2" -u 3
done"""
LINE_EVERY_S = 1
FIRST_CODE = 41
EXEC_CODE, EXEC_OUTPUT = 9, b"from the zone\n"
EXEC_WORDS = ("/bin/sh", "-c", f"echo from the zone; exit {EXEC_CODE}")
AGENT_TIMEOUT_S = 60.0


def full_boots(here: World) -> Measure:
    """Boot to the served page, remove; how many in a row until something is left behind."""
    from bench_zone import free_port

    before = _left(here)
    for number in range(FULL_BOOTS):
        here.boot(here.bundle("again", free_port()))
        here.remove("again")
        found = here.findings()
        after = _left(here)
        if found or after != before:
            return Measure("boots_full", number, "boots", f"left behind: {found or after} (before: {before})")
    return Measure("boots_full", FULL_BOOTS, "boots")


def builds(here: World) -> Measure:
    """Domains with disks, network and channel built and destroyed in a row, without running; nothing left of them.

    What is compared: domains, xenstore's trees, free memory to the page, dom0's event channels, back ends, network
    namespaces and interfaces, loop devices, descriptors.
    """
    bundle, lab = here.base, here.host.lab
    facts = {
        "kernel": disk_in_dom0(lab, bundle.kernel),
        "ramdisk": disk_in_dom0(lab, bundle.initrd[0]),
        "rootfs": disk_in_dom0(lab, bundle.rootfs)[0],
        "scratch": "/tmp/builds.scratch",
    }
    lab.shell("cat >/tmp/builds.json", input=json.dumps(facts))
    lab.shell("cat >/tmp/builds.py", input=BUILDS_PROGRAM.read_text())
    code, said = lab.shell(BUILD_MANY.format(count=BUILDS), timeout_s=1800)
    if code:
        return Measure("boots_build", None, "builds", said[-300:])
    before, after = json.loads(said.strip().splitlines()[-1])
    wrong = {name: (value, after[name]) for name, value in before.items() if value != after[name]}
    return Measure("boots_build", 0 if wrong else BUILDS, "builds", str(wrong) if wrong else "")


def kills(here: World) -> list[Measure]:
    """zoned killed under load, again and again, with zones that serve; how many kills they all survived.

    After each: the same domains and ports, no request refused, a command in one zone, its log without a gap and
    longer than before. At the end each zone's exit code, of which zoned hears by the channel.
    """
    from bench_zone import free_port, get

    ports = [free_port() for _ in range(ZONES_UNDER_LOAD)]
    names = [f"loaded{number}" for number in range(ZONES_UNDER_LOAD)]
    codes = {name: FIRST_CODE + number for number, name in enumerate(names)}
    for name, port in zip(names, ports, strict=True):
        here.boot(counting(here.bundle(name, port, 128), codes[name]))
    identities = _identities(here)
    stop, failures, served = threading.Event(), list[str](), [0]

    def load(port: int) -> None:
        while not stop.is_set():
            try:
                get(port)
                served[0] += 1
                time.sleep(PAUSE_S)
            except OSError as error:
                failures.append(f"port {port}: {error}")
                time.sleep(0.2)

    threads = [threading.Thread(target=load, args=(port,), daemon=True) for port in ports]
    for thread in threads:
        thread.start()
    unharmed, why, back = 0, "", list[float]()
    lines = dict.fromkeys(names, 0)
    for kill in range(KILLS):
        name = names[kill % len(names)]
        try:
            pid = here.zoned().pid
            begin = time.monotonic()
            here.host.lab.shell(f"kill -9 {pid}")
            if not _back(here, pid):
                why = f"zoned did not come back within {BACK_TIMEOUT_S:.0f} s"
                print(here.host.lab.shell(LOOK_AT_ZONED)[1], file=sys.stderr)
                break
            back.append(time.monotonic() - begin)
            if _identities(here) != identities or failures:
                why = failures[0] if failures else f"zones are {_identities(here)}, were {identities}"
                break
            why = _exec(here, name) or _count(here, name, lines)
        except RuntimeFault as fault:  # zoned, or all of dom0, does not answer: so many were survived all the same
            why = f"after kill {kill + 1}: {fault}"
        if why:
            print(here.host.lab.console_tail(), file=sys.stderr)
            break
        unharmed += 1
    stop.set()
    for thread in threads:
        thread.join(60)
    found, ended = list[str](), dict[str, int]()
    if not why:  # else zoned may be down, and what went wrong is said already
        found = here.findings() + [gap for name in names if (gap := _count(here, name, lines))]
        for name in names:
            ended[name] = _stop(here, name)
            here.remove(name)
    wrong = {name: code for name, code in ended.items() if code != codes[name]}
    return [
        Measure("kills_unharmed", unharmed, "kills", why or "; ".join(found)),
        Measure("kills_requests", served[0], "requests"),
        Measure("kills_lines", sum(lines.values()), "lines"),
        Measure("kills_exits", len(ended) - len(wrong), "zones", why or (f"{wrong}, not {codes}" if wrong else "")),
        Measure("kills_back", round(sorted(back)[len(back) // 2], 2) if back else None, "s", why),
    ]


def counting(bundle: Bundle, code: int) -> Bundle:
    """A bundle of nginx that also prints numbered lines, and ends with a code when it is stopped."""
    entry_point = bundle.process.argv[0]  # what prepares the page it serves
    argv = (entry_point, "/bin/bash", "-c", COUNTING, "counting", str(code), str(LINE_EVERY_S))
    return dataclasses.replace(bundle, process=dataclasses.replace(bundle.process, argv=argv, stop_signal=SIGTERM))


def numbers_in(output: bytes) -> list[int]:
    """The numbers of the whole lines that COUNTING wrote, among those of others."""
    whole = output.rpartition(b"\n")[0].split(b"\n")
    return [int(line[5:]) for line in whole if line.startswith(b"line ") and line[5:].isdigit()]


def gap_in(numbers: list[int], before: int) -> str:
    """What is wrong with the numbers of a log in which there were so many before; "" for nothing."""
    for number, following in pairwise(numbers):
        if following != number + 1:
            return f"after line {number} comes line {following}"
    if len(numbers) <= before:
        return f"{len(numbers)} lines, and there were {before} before"
    return ""


def _count(here: World, name: str, lines: dict[str, int]) -> str:
    """Read a zone's log; what is wrong with it, "" for nothing. lines: how many there were, and then are."""
    from runtime.host.api import host_pb2 as pb

    parts = list[bytes]()

    def take(entry: pb.LogEntry) -> None:
        if entry.stream == "stdout":
            parts.append(entry.data)

    with here.host.connect() as client:
        client.each(client.host.ReadLogs, pb.ReadLogsRequest(zone=name, tail=-1), take, timeout_s=120)
    numbers = numbers_in(b"".join(parts))
    gap = gap_in(numbers, lines[name])
    lines[name] = len(numbers)
    return f"log of {name}: {gap}" if gap else ""


def _exec(here: World, name: str) -> str:
    """Run a command in a zone, as soon as its agent is back with zoned; what is wrong with it, "" for nothing."""
    deadline = time.monotonic() + AGENT_TIMEOUT_S
    while True:
        try:
            with here.host.connect() as client:
                said = client.run(_run(client, name))
            break
        except RuntimeFault as fault:
            if not fault.temporary or time.monotonic() > deadline:
                return f"command in {name}: {fault}"
            time.sleep(0.2)
    return "" if said == (EXEC_OUTPUT, EXEC_CODE) else f"command in {name}: {said}"


async def _run(client: HostClient, name: str) -> tuple[bytes, int]:
    from runtime.host.api import host_pb2 as pb

    output = bytearray()
    async with client.opened(client.host.ExecZone) as stream:
        await stream.send_message(pb.ProcessInput(start=pb.ProcessStart(zone=name, argv=EXEC_WORDS)))
        while (told := await stream.recv_message()) is not None:
            output += told.stdout
            if told.HasField("exit"):
                await stream.end()
                await stream.recv_trailing_metadata()
                return bytes(output), told.exit.code
    return bytes(output), -1


def _stop(here: World, name: str) -> int:
    """Stop a zone; the exit code zoned has of it."""
    from runtime.host.api import host_pb2 as pb

    with here.host.connect() as client:
        return int(client.call(client.host.StopZone, pb.StopZoneRequest(zone=name), timeout_s=180).exit.code)


def _back(here: World, old_pid: int) -> bool:
    deadline = time.monotonic() + BACK_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if here.zoned().pid != old_pid:
                return True
        except Exception:
            time.sleep(0.1)
    return False


def _identities(here: World) -> dict[str, tuple[Any, ...]]:
    """What must be the same after a kill: each zone's domain, state and ports, as zoned tells them."""
    from runtime.host.api import host_pb2 as pb

    with here.host.connect() as client:
        zones = client.call(client.host.ListZones, pb.ListZonesRequest()).zones
    return {z.name: (z.domid, z.domain_uuid, z.state, z.restarts, z.ports[0].port) for z in zones}


def _left(here: World) -> dict[str, Any]:
    """Everything a zone could leave in dom0, counted apart from `zone system check`."""
    look = "ls /run/netns /run/zonewright/ledger /run/zonewright/net /sys/bus/xen-backend/devices; ip -o link | wc -l"
    said = here.host.lab.shell(look)[1]
    return {"dom0": said, "free_kib": here.zoned().free_memory_kib}


def disk_in_dom0(lab: Lab, blob: Descriptor) -> tuple[str, int]:
    """A blob's disk in dom0: where, and its size in bytes."""
    serial = lab.attach(blob)
    find = f'for d in /sys/block/vd*; do [ "$(cat $d/serial)" = {serial} ] && echo /dev/${{d##*/}}; done'
    for _ in range(50):
        path = lab.shell(find)[1].strip()
        if path:
            return path, blob.size_bytes
        time.sleep(0.2)
    raise SystemExit(f"bench: the disk {serial} did not come up in dom0")
