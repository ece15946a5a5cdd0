"""A zoned whose zones answer as nginx in one would: for the outputs of a page where no lab can be had."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from support.fakeprocesses import Run
from support.fakezoned import FakeZoned

from runtime.host.api import host_pb2 as pb

FIGURES = [
    ("uptime_s", 5.24, "seconds"),
    ("memory_kib.MemTotal", 150_044, "count"),
    ("memory_kib.MemAvailable", 118_272, "count"),
    ("cpu.cpu.user", 0.31, "count"),
    ("cpu.cpu.system", 0.57, "count"),
    ("containers.main.memory_bytes", 9_437_184, "bytes"),
    ("containers.main.pids", 2, "count"),
]
PROCESSES = [
    pb.ZoneProcess(pid=31, parent=1, uid=0, state="S", resident_kib=6912, cpu_s=0.04, command="nginx: master process"),
    pb.ZoneProcess(
        pid=33, parent=31, uid=33, state="S", resident_kib=4480, cpu_s=0.01, command="nginx: worker process"
    ),
]
ACCESS = '10.75.0.1 - - [27/Nov/2026:21:30:02 +0000] "HEAD / HTTP/1.1" 200 0 "-" "-"\n'


async def uname(run: Run) -> int:
    await run.out(b"Linux 6.1.0-40-cloud-amd64 x86_64\n")
    return 0


async def upper(run: Run) -> int:
    while data := await run.read():
        await run.out(bytes(data).upper())
    return 0


async def three(run: Run) -> int:
    """`sh -c 'exit 3'`."""
    return 3


async def server(run: Run) -> int:
    await run.out(ACCESS.encode())
    await asyncio.Event().wait()
    return 0


async def test_config(run: Run) -> int:
    await run.err(b"nginx: the configuration file /etc/nginx/nginx.conf syntax is ok\n")
    await run.err(b"nginx: configuration file /etc/nginx/nginx.conf test is successful\n")
    return 0


@contextlib.contextmanager
def demo(path: Path) -> Iterator[FakeZoned]:
    """The script, running."""
    with FakeZoned(path) as zoned, tempfile.TemporaryDirectory(prefix="zone-root-") as root:
        for place in ("etc/nginx", "var/www/html", "srv"):
            (Path(root) / place).mkdir(parents=True)
        (Path(root) / "etc/nginx/nginx.conf").write_text("user www-data;\n")
        for name in ("web", "nginx"):
            zoned.trees[name] = Path(root)
            zoned.programs[name] = server
            zoned.metrics[name], zoned.processes[name] = FIGURES, PROCESSES
            zoned.logs[name] = [
                (time.time() - 3, "console", b"[    0.000000] Linux version 6.1.0-40-cloud-amd64\n"),
                (time.time() - 1, "console", b"zone: the workload runs\n"),
            ]
        zoned.programs |= {"uname": uname, "nginx": test_config}
        for name, program in (("kernel", uname), ("upper", upper), ("job", three)):
            zoned.programs[name] = program
        zoned.networks.append(
            pb.NetworkInfo(
                name="default",
                ipv4="10.75.0.0/16",
                ipv6="fdd4:1476:6c7e::/48",
                gateway4="10.75.0.1",
                gateway6="fdd4:1476:6c7e::1",
                engine="up",
                zones=["web"],
            )
        )
        yield zoned
