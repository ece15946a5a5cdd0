"""What the zone's own program costs: instructions, memory, container starts, its channel. No Xen and no lab.

The real program runs as pid 1 of namespaces, from its initrd, with a pty for hvc1 (tests/support/zonebox.py); needs
root. Instructions are counted in an emulated machine (guest.py): `./doit bench init`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import channel
import guest
import pytest
from run import Measure, NotMeasured
from support import guestzone, zonebox, zoneparts
from support.containers import gcc
from support.fakeagent import DescriptorTransport
from support.tinyprogram import EXIT, WRITE, elf

from pipeline.compose import initrd_of
from runtime.host.agentlink.link import AgentLink
from runtime.host.daemon import confinement

KERNEL = "recipe:debian-cloud"
STARTS, PINGS = 60, 1000
THROUGHPUT_BYTES, LOSS_BYTES = 8 << 20, 16 << 20
TINY = "/bin/tiny"  # says a byte and ends: what is measured is its start
MILLION = 1_000_000


@dataclass(frozen=True)
class Parts:
    """What a zone is made of. program: the ELF; device: of a loop device over its image."""

    directory: Path
    program: Path
    initrd: Path
    device: str


def measure(out: Path) -> Iterator[Measure]:
    """All measures; one that cannot be taken says why."""
    yield _taken("initrd", initrd)
    with _parts() as parts:
        yield from _several(["container_start_ratio"], lambda: starts(parts))
        yield from _several(["memory"], lambda: memory(parts))
        yield from _several(["channel_bytes_lost"], lambda: carried(parts))
        yield from _several(
            ["first_line", "first_line_guest", "whole_job", "whole_job_guest"], lambda: counted(parts.directory)
        )


def _taken(name: str, work: Callable[[], float]) -> Measure:
    return _several([name], lambda: [Measure(name, work())])[0]


def _several(names: list[str], work: Callable[[], list[Measure]]) -> list[Measure]:
    try:
        return work()
    except (NotMeasured, pytest.skip.Exception, OSError, TimeoutError, AssertionError) as error:
        return [Measure(name, None, why=str(error) or type(error).__name__) for name in names]


@contextlib.contextmanager
def _parts() -> Iterator[Parts]:
    if os.geteuid():
        raise SystemExit("bench init: expected to be root, as it mounts in namespaces")
    with tempfile.TemporaryDirectory(prefix="zb-init-") as scratch:
        directory = Path(scratch)
        made = zonebox.make_initrd(directory / "initrd")
        program = directory / "init"
        program.write_bytes(zoneparts.env().store.read(zoneparts.zone_init().elf.digest))
        program.chmod(0o755)
        root = zoneparts.small_root(directory / "root", ("sh", "cat", "head", "sleep"))
        (root / TINY.lstrip("/")).write_bytes(elf(WRITE + EXIT))
        (root / TINY.lstrip("/")).chmod(0o755)
        with zonebox.loop_device(zoneparts.squashfs(root, directory / "root.squashfs")) as device:
            yield Parts(directory, program, made, device.removeprefix("/dev/"))


@contextlib.contextmanager
def _zone(parts: Parts, process: dict[str, Any] | None = None, **keys: Any) -> Iterator[zonebox.Zone]:
    process = (process or zonebox.IDLE) | {"env": ["PATH=/bin"]}
    launch = {"root": parts.device, "overlay_size_mib": 64, "process": process}
    with zonebox.zone(parts.directory, parts.initrd, **(launch | keys)) as zone:
        yield zone


def initrd() -> float:
    """Base and boot modules, as the default kernel's zones have them."""
    made = initrd_of(KERNEL, zoneparts.env())
    return round((made.base.size_bytes + made.modules_segment.size_bytes) / MILLION, 3)


def counted(directory: Path) -> list[Measure]:
    """Millions of instructions of an emulated zone, with the filter that a workload has by default."""
    root = zoneparts.small_root(directory / "guest-root", ("sh",))
    (root / "bin" / "marked").write_bytes(guest.MARKED)
    (root / "bin" / "marked").chmod(0o755)
    zone = guestzone.build(directory / "guest", root)
    line, line_guest = guest.first_line(zone)
    container = {"container": {"process": {"seccomp": confinement.default_filter()}}}
    job, job_kernel, modules = guest.whole_job(zone, container)
    return [
        Measure("first_line", round(line / MILLION, 2)),
        Measure("first_line_guest", round(line_guest / MILLION, 2)),
        Measure("whole_job", round(job / MILLION, 2)),
        Measure("whole_job_guest", round((job + job_kernel - modules) / MILLION)),
        Measure("whole_job_modules", round(modules / MILLION), "million instructions"),
    ]


def memory(parts: Parts) -> list[Measure]:
    """The program lies in memory whole, however much of it is mapped; the rest is each process's own."""
    with _zone(parts, channel=True) as zone:
        zone.host.hello()
        held = {
            "program": parts.program.stat().st_size / MILLION,
            "init": _own_mb(zone.init_pid),
            "agent": _own_mb(zone.agent_pid),
        }
    least = _least_mb(parts.directory)
    return [
        Measure("memory", round(sum(held.values()) - least, 2)),
        *(Measure(f"memory_{name}", round(mb, 2), "MB") for name, mb in held.items()),
        Measure("memory_static_c", round(least, 2), "MB"),
    ]


# Two processes, as init and agent are; what they do needs no memory worth the name in C.
STATIC_C = '#include <unistd.h>\nint main(void) { fork(); write(1, "", 1); for (;;) pause(); }\n'


def _least_mb(directory: Path) -> float:
    """What the same holds in a static C program."""
    (directory / "least.c").write_text(STATIC_C)
    gcc("-static", "-s", "-o", directory / "least", directory / "least.c")
    with subprocess.Popen([directory / "least"], stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            for _ in range(2):
                process.stdout.read(1)
            pids = [process.pid, *zonebox.children(process.pid)]
            return (directory / "least").stat().st_size / MILLION + sum(map(_own_mb, pids))
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _own_mb(pid: int) -> float:
    return _own_kib(pid) * 1024 / MILLION


def _own_kib(pid: int) -> int:
    rollup = dict(_fields(Path(f"/proc/{pid}/smaps_rollup")))
    return rollup["Pss_Anon"] + dict(_fields(Path(f"/proc/{pid}/status")))["VmPTE"]


def _fields(path: Path) -> Iterator[tuple[str, int]]:
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "kB":
            yield words[0].rstrip(":"), int(words[1])


def starts(parts: Parts) -> list[Measure]:
    """A container's start and a bare exec, in turn, by the same agent; what a ping takes is taken off both.

    The fastest of each are compared: what others do to the machine meanwhile falls on the longer one more often.
    """
    process = {"argv": [TINY], "env": [], "seccomp": confinement.default_filter()}
    times: dict[str, list[float]] = {"start": [], "bare": [], "ping": []}
    with _zone(parts, channel=True) as zone:
        host = zone.host
        host.hello()
        host.call("create", id="side", spec={"root": {"device": parts.device}, "process": process})
        for _ in range(STARTS):
            host.notes.clear()
            times["start"].append(_seconds(lambda: host.call("start", id="side")))
            host.note("exit", container="side")
            times["bare"].append(_bare(host))
            times["ping"].append(_seconds(lambda: host.call("ping")))
    found = {}
    for name, of in (("fastest", min), ("median", statistics.median)):
        ping_s = of(times["ping"])
        found[name] = of(times["start"]) - ping_s, of(times["bare"]) - ping_s
    return [
        Measure("container_start_ratio", round(found["fastest"][0] / found["fastest"][1], 2)),
        *(Measure(f"container_start_{name}", round(start_s * 1000, 2), "ms") for name, (start_s, _) in found.items()),
        *(Measure(f"bare_start_{name}", round(bare_s * 1000, 2), "ms") for name, (_, bare_s) in found.items()),
    ]


def _bare(host: Any) -> float:
    """Until the agent says that the exec has happened; its end is waited for outside of the time."""
    process = {"argv": [f"/containers/main/root{TINY}"], "env": [], "cwd": "/"}
    begin = time.perf_counter()
    stream = host.open("exec", container=None, process=process)
    host.until(lambda: stream.events or stream.result is not None)
    took = time.perf_counter() - begin
    stream.wait()
    return took


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def carried(parts: Parts) -> list[Measure]:
    """The channel with both its real ends: the agent, and zoned's link, over a pty."""
    with _zone(parts, channel=True) as zone:
        found, lost = asyncio.run(_carried(zone.host.fd))
    return [
        Measure("channel_bytes_lost", lost),
        Measure("channel_ping_p50", round(found["ping_median_s"] * 1000, 3), "ms"),
        Measure("channel_ping_p99", round(found["ping_slowest_of_100_s"] * 1000, 3), "ms"),
        *(Measure(f"channel_{name}", round(found[f"{name}_mb_s"], 2), "MB/s") for name in WAYS),
    ]


WAYS = ("to_zone", "from_zone", "echo")


async def _carried(descriptor: int) -> tuple[dict[str, float], int]:
    link = AgentLink(DescriptorTransport(os.dup(descriptor)), "bench")
    link.start()
    try:
        await asyncio.wait_for(link.connected.wait(), 30)
        found = await channel.measure(link, trips=PINGS, size=THROUGHPUT_BYTES)
        return found, await channel.lost(link, "main", LOSS_BYTES)
    finally:
        await link.close()
