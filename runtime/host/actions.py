"""What people ask of a host: boot a zone, stop one, list them. `zone` and doit both come through here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.bundle import manifest
from pipeline.bundle.model import Bundle
from pipeline.env import intact
from pipeline.errors import StoreDamaged
from pipeline.jsonmodel import to_json
from pipeline.oci import Descriptor
from pipeline.progress import Progress
from pipeline.store import Store
from runtime.errors import RuntimeFault
from runtime.host.faults import RemoteFault
from runtime.host.hosts import Host

BOOT_TIMEOUT_S = 240.0
WAIT_TIMEOUT_S = 300.0
HTTP_TIMEOUT_S = 10.0

Json = dict[str, Any]


class ZoneBusy(RuntimeFault):
    """A zone of that name runs already, or is being booted."""


@dataclass
class Booted:
    """A zone that is up: where it answers, and how long each step took.

    steps:  (name, start, end) in seconds since the boot was asked for, in order.
    """

    zone: Json
    urls: list[str]
    steps: list[tuple[str, float, float]] = field(default_factory=list)


class Timeline:
    """Notes when the steps of a boot began and ended."""

    def __init__(self) -> None:
        self.origin = time.monotonic()
        self.steps: list[tuple[str, float, float]] = []

    @contextlib.contextmanager
    def step(self, name: str) -> Any:
        """A context that is one step."""
        start = time.monotonic() - self.origin
        yield
        self.steps.append((name, round(start, 4), round(time.monotonic() - self.origin, 4)))


def boot(host: Host, store: Store, name: str, *, wait: bool = True, progress: Progress) -> Booted:
    """Boot the zone `name` from its bundle in the store.

    wait:    return when its workload runs and every published port answers, rather than when its domain runs.
    Raises:  UnknownName, StoreDamaged, and what the host raises; nothing of the zone is left then.
    """
    descriptor, bundle = manifest.find(store, name)
    return boot_bundle(host, store, descriptor, bundle, wait=wait, progress=progress)


def boot_bundle(
    host: Host, store: Store, descriptor: Descriptor, bundle: Bundle, *, wait: bool, progress: Progress
) -> Booted:
    """Boot a bundle; see `boot`."""
    timeline = Timeline()
    blobs = manifest.parts(bundle)
    with _only_booter(store, bundle.name):
        return _boot(timeline, host, store, descriptor, bundle, blobs, wait=wait, progress=progress)


def _boot(
    timeline: Timeline,
    host: Host,
    store: Store,
    descriptor: Descriptor,
    bundle: Bundle,
    blobs: list[Descriptor],
    *,
    wait: bool,
    progress: Progress,
) -> Booted:
    with timeline.step("check artifacts"):
        for blob in blobs:
            if not intact(store, blob):
                raise StoreDamaged(
                    f"zone {bundle.name}: {blob.annotations.get(manifest.TITLE, 'a part')} {blob.digest.short}",
                    expected="the bytes of that digest in the store",
                    got="none, or others",
                    hint=_remedy(descriptor, bundle),
                )
    with timeline.step("host up"):
        host.up(progress)
    with host.exclusive():
        _clear_the_way(host, bundle.name)
        host.tidy()
        try:
            with timeline.step("plug disks"):
                request = {
                    "bundle": to_json(bundle),
                    "manifest": str(descriptor.digest),
                    "listen": host.listen_for(bundle.ports),
                    "sources": host.provide(blobs),
                }
            with timeline.step("build domain"), progress.bar(f"zone {bundle.name}: building its domain", unit="steps"):
                zone = _call_boot(host, request, bundle.name)
        except BaseException:
            with contextlib.suppress(Exception):
                host.tidy()
            raise
    try:
        with timeline.step("open ports"):
            host.expose(zone["published"])
        urls: list[str] = []
        if wait:
            with progress.bar(f"zone {bundle.name}: booting", unit="steps"):
                with timeline.step("zone boots"):
                    host.call("wait", {"name": bundle.name, "ports": False}, timeout_s=WAIT_TIMEOUT_S)
                with timeline.step("workload answers"):
                    host.call("wait", {"name": bundle.name}, timeout_s=WAIT_TIMEOUT_S)
            with timeline.step("first answer"):
                urls = [_url(rule) for rule in zone["published"]]
        zone = host.call("confirm", {"name": bundle.name})
    except BaseException:
        _end(host, bundle.name)
        raise
    return Booted(zone, urls, timeline.steps)


def _remedy(descriptor: Descriptor, bundle: Bundle) -> str:
    """How the parts of a bundle come into the store again."""
    if origin := descriptor.annotations.get(manifest.ORIGIN):
        return f"zone boot {origin}@{descriptor.digest} fetches it again"
    return f"./doit bundle zone={bundle.name} makes it again"


def _call_boot(host: Host, request: Json, name: str) -> Json:
    try:
        return host.call("boot", request, timeout_s=BOOT_TIMEOUT_S)
    except RemoteFault:
        raise  # zoned said no, and has taken back what it began
    except BaseException:
        with contextlib.suppress(Exception):
            host.call("stop", {"name": name, "timeout_s": 0}, timeout_s=60)
        raise


def _end(host: Host, name: str) -> None:
    """A boot that failed while it waited, or was interrupted, leaves no zone, no port and no disk behind."""
    with contextlib.suppress(Exception):
        host.call("stop", {"name": name, "timeout_s": 0}, timeout_s=60)
        with host.exclusive():
            host.tidy()


def _clear_the_way(host: Host, name: str) -> None:
    """Refuse a zone that runs; end one whose boot was never confirmed: its booter died, as we hold its lock."""
    for zone in zones(host):
        if zone["name"] != name or zone["state"] not in ("creating", "running"):
            continue
        if zone["confirmed"]:
            raise ZoneBusy(f"zone {name}", got="it runs already", hint=f"./doit stop zone={name} stops it")
        host.call("stop", {"name": name, "timeout_s": 0}, timeout_s=60)


@contextlib.contextmanager
def _only_booter(store: Store, name: str) -> Any:
    """One boot of a zone at a time; the lock dies with its holder."""
    with store.try_lock(f"boot-{name}") as held:
        if not held:
            raise ZoneBusy(f"zone {name}", got="it is being booted by another command", temporary=True)
        yield


def stop(host: Host, name: str, *, timeout_s: float | None = None, progress: Progress) -> Json:
    """Stop a zone and take back its ports and disks; raises UnknownZone when the host has none of that name."""
    params: Json = {"name": name} | ({} if timeout_s is None else {"timeout_s": timeout_s})
    with progress.bar(f"zone {name}: stopping", unit="steps"):
        zone = host.call("stop", params, timeout_s=(timeout_s or 3600) + 60)
        with host.exclusive():
            host.tidy()
    return zone


def zones(host: Host) -> list[Json]:
    """Every zone of a host that is up; none when it is not."""
    return list(host.call("list", {})["zones"]) if host.is_up() else []


def follow_logs(host: Host, name: str, write: Callable[[str], None], *, follow: bool, tail: int) -> None:
    """A zone's console: its last lines and, if asked, what comes until it ends."""
    reply = host.call("logs", {"name": name, "tail": tail})
    if reply["text"]:
        write(reply["text"] + "\n")
    while follow:
        before = reply["offset"]
        reply = host.call("logs", {"name": name, "offset": before})
        if reply["text"]:
            write(reply["text"])
        elif reply["ended"]:
            return
        else:
            time.sleep(0.3)  # the console has no event to wait for across the channel


def _url(rule: Json) -> str:
    """`http://…/` when the port answers HTTP, else `tcp://…`."""
    import http.client

    address, port = rule["host_address"], rule["host_port"]
    shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    connection = http.client.HTTPConnection(address, port, timeout=HTTP_TIMEOUT_S)
    try:
        connection.request("HEAD", "/")
        connection.getresponse()
        return f"http://{shown}/"
    except (OSError, http.client.HTTPException):
        return f"tcp://{shown}"
    finally:
        connection.close()
