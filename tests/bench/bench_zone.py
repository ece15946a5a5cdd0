"""Zones that run: round trips, many at once, what zoned needs for each, and that nothing wears out or leaks.

Takes an hour, most of it boots and kills: `./doit bench zone`. The lab is one of its own, with more memory than usual.
What the zone's own program costs, which needs no lab, is part of it: `./doit bench init` takes that alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import bench_init
from entry import entry
from run import PROJECT, Measure, name_of_part
from soak import builds, full_boots, kills

from pipeline.bundle import manifest
from pipeline.bundle.model import Bundle, Port, Resources
from pipeline.progress import for_terminal
from pipeline.store import Store
from runtime.host import actions
from runtime.host.api import host_pb2 as pb
from runtime.host.client.client import HostClient
from runtime.host.hosts import LabHost
from runtime.host.lab.config import load_config
from runtime.host.lab.lab import Lab

MEMORY_MIB, DOM0_MEMORY_MIB = 3072, 640
EXECS, PINGS, COMMANDS = 100, 300, 100
CARRIES, CARRIED_BYTES, PIECE_BYTES = 3, 4 << 20, 32 << 10  # there and back over hvc1
AT_ONCE = 10
# What is tried for each of the ten: the first that boots and serves is the smallest that works.
SMALLEST_MIB = (96, 104, 112, 128, 160)


@dataclasses.dataclass
class World:
    """The bench's lab, and bundles of the nginx zone to boot in it."""

    host: LabHost
    store: Store
    base: Bundle

    def bundle(self, name: str, port: int, memory_mib: int | None = None) -> Bundle:
        """A variant of nginx that serves on a port of this machine."""
        resources = self.base.resources if memory_mib is None else Resources(memory_mib, memory_mib)
        ports = (Port("127.0.0.1", port, 80),)
        return dataclasses.replace(self.base, name=name, hostname=name, ports=ports, resources=resources)

    def boot(self, bundle: Bundle, *, wait: bool = True) -> actions.Booted:
        """Boot one; returns when it serves."""
        descriptor = manifest.write(self.store, bundle)
        return actions.boot_bundle(self.host, self.store, descriptor, bundle, wait=wait, progress=for_terminal())

    def remove(self, name: str) -> None:
        """End a zone and forget it."""
        with self.host.connect() as client:
            client.call(client.host.RemoveZone, pb.RemoveZoneRequest(zone=name, force=True), timeout_s=120)

    def findings(self) -> list[str]:
        """What `zone system check` finds."""
        with self.host.connect() as client:
            reply = client.call(client.host.Check, pb.CheckRequest(), timeout_s=120)
        return [f"{item.kind} {item.what}: {item.problem}" for item in reply.findings]

    def zoned(self) -> pb.HostStatus:
        """zoned's own figures."""
        with self.host.connect() as client:
            return client.call(client.host.GetStatus, pb.GetStatusRequest())


def measure(out: Path) -> Iterator[Measure]:
    """All measures, in a lab that is gone afterwards."""
    for taken in bench_init.measure(out):
        yield dataclasses.replace(taken, name=name_of_part("zone", taken.name))
    with world() as here:
        yield from round_trips(here)
        yield from entry(here, out)
        yield from many(here)
        yield full_boots(here)
        yield builds(here)
        yield from kills(here)  # the longest by far


@contextmanager
def world() -> Iterator[World]:
    """A lab in a directory of its own, so that the user's stays as it is; `zone` finds it by the environment."""
    subprocess.run(
        ["./doit", "bundle", "os:debian12", "zone=nginx"], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL
    )
    with tempfile.TemporaryDirectory(prefix="zb") as runtime:
        os.environ["XDG_RUNTIME_DIR"] = os.environ["XDG_STATE_HOME"] = runtime
        store = Store()
        lab = Lab(load_config(memory_mib=MEMORY_MIB, dom0_memory_mib=DOM0_MEMORY_MIB), store)
        host = LabHost(store, lab)
        try:
            host.up(for_terminal())
            yield World(host, store, manifest.find(store, "nginx")[1])
        finally:
            lab.down()


def round_trips(here: World) -> list[Measure]:
    """`zone exec ZONE true` as a whole process, an exec within one connection, the bare channel, `zone ps`."""
    here.boot(here.bundle("trips", free_port()))
    whole = [seconds(lambda: zone("exec", "trips", "true")) for _ in range(COMMANDS)]
    ps = [seconds(lambda: zone("ps")) for _ in range(COMMANDS)]
    with here.host.connect() as client:
        execs = [seconds(lambda: client.run(exec_true(client, "trips"))) for _ in range(EXECS)]
        reply = client.call(client.host.PingZone, pb.PingZoneRequest(zone="trips", count=PINGS), timeout_s=600)
        carried = [client.run(through_cat(client, "trips")) for _ in range(CARRIES)]
    bare = list(reply.round_trips_s)
    here.remove("trips")
    ratio = statistics.median(execs) / statistics.median(bare)
    return [
        *percentiles("exec_command", whole),
        *percentiles("exec", execs),
        *percentiles("channel", bare),
        Measure(
            "channel_throughput", round(CARRIED_BYTES / 1e6 / statistics.median(took for took, _ in carried), 2), "MB/s"
        ),
        Measure("channel_bytes_lost", sum(lost for _, lost in carried), "bytes"),
        Measure("exec_channel_ratio", round(ratio, 1), "ratio"),
        Measure("zone_ps", round(statistics.median(ps) * 1000, 1), "ms"),
    ]


async def exec_true(client: HostClient, name: str) -> None:
    """One exec of `true`, from its start to its exit."""
    async with client.opened(client.host.ExecZone) as stream:
        await stream.send_message(pb.ProcessInput(start=pb.ProcessStart(zone=name, argv=["true"])))
        while (output := await stream.recv_message()) is not None:
            if output.HasField("exit"):
                if output.exit.code:
                    raise SystemExit(f"bench: exec of true: {output.exit.text}")
                break
        await stream.end()
        await stream.recv_trailing_metadata()


async def through_cat(client: HostClient, name: str) -> tuple[float, int]:
    """(seconds, how many bytes did not come back as they were) of CARRIED_BYTES into a cat in the zone and back."""
    sent, came = random.Random(CARRIED_BYTES).randbytes(CARRIED_BYTES), bytearray()
    begin = time.monotonic()
    async with client.opened(client.host.ExecZone) as stream:
        start = pb.ProcessStart(zone=name, argv=["cat"], stdin=True)
        await stream.send_message(pb.ProcessInput(start=start))

        async def feed() -> None:
            for at in range(0, len(sent), PIECE_BYTES):
                await stream.send_message(pb.ProcessInput(stdin=sent[at : at + PIECE_BYTES]))
            await stream.send_message(pb.ProcessInput(close_stdin=True))

        feeding = asyncio.ensure_future(feed())
        while (output := await stream.recv_message()) is not None and not output.HasField("exit"):
            came += output.stdout
        await feeding
        await stream.end()
        await stream.recv_trailing_metadata()
    took = time.monotonic() - begin
    wrong = sum(one != other for one, other in zip(sent, came, strict=False))
    return took, wrong + abs(len(sent) - len(came))


def many(here: World) -> list[Measure]:
    """Ten zones at once, each with the least memory that works; zoned's memory with two and with all of them."""
    least = smallest(here)
    ports = [free_port() for _ in range(AT_ONCE)]
    rss: dict[int, float] = {}
    took: list[float] = []
    failures: list[str] = []

    def one(number: int) -> None:
        try:
            took.append(seconds(lambda: here.boot(here.bundle(f"many{number}", ports[number], least))))
        except BaseException as error:
            failures.append(str(error))

    begin = time.monotonic()
    for batch in (range(2), range(2, AT_ONCE)):
        threads = [threading.Thread(target=one, args=(number,)) for number in batch]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rss[batch.stop] = here.zoned().zoned_rss_kib / 1024
    elapsed = time.monotonic() - begin
    serving = sum(f"many{number}" in get(ports[number]) for number in range(AT_ONCE) if not failures)
    for number in range(AT_ONCE):
        here.remove(f"many{number}")
    why = failures[0] if failures else ""
    per_zone = (rss[AT_ONCE] - rss[2]) / (AT_ONCE - 2)
    return [
        Measure("zones_at_once", serving, "zones", why),
        Measure("zones_at_once_memory", least, "MiB"),
        Measure("zones_at_once_each", round(elapsed / AT_ONCE, 2), "s"),
        Measure("zones_at_once_slowest", round(max(took, default=0.0), 2), "s"),
        Measure("zoned_memory_per_zone", round(per_zone, 2), "MiB"),
        Measure("zoned_memory", round(rss[AT_ONCE], 1), "MiB"),
    ]


def smallest(here: World) -> int:
    """The least memory with which the zone boots and serves."""
    for memory_mib in SMALLEST_MIB:
        try:
            here.boot(here.bundle("least", free_port(), memory_mib))
            return memory_mib
        except Exception:
            continue
        finally:
            here.remove("least")
    raise SystemExit(f"bench: no zone of {SMALLEST_MIB[-1]} MiB serves")


def percentiles(name: str, values: list[float]) -> list[Measure]:
    """p50 and p99 in milliseconds."""
    ordered = sorted(values)
    last = ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]
    return [
        Measure(f"{name}_p50", round(statistics.median(ordered) * 1000, 2), "ms"),
        Measure(f"{name}_p99", round(last * 1000, 2), "ms"),
    ]


def zone(*words: str) -> None:
    """`zone …` on the bench's lab."""
    done = subprocess.run([".venv/bin/zone", "--host", "lab", *words], cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench: zone {' '.join(words)}: {done.stderr}")


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def get(port: int) -> str:
    """The page behind a port of this machine."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
        return str(answer.read().decode())


def free_port() -> int:
    """A port nobody listens on now."""
    from support.ports import free_port as found

    return found()
