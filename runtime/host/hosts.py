"""Which machine zones run on, and what differs between them: how a blob gets there, and how a port gets back."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.bundle.model import Port
from pipeline.oci import Descriptor
from pipeline.progress import Progress
from pipeline.store import Store
from runtime.errors import RuntimeFault
from runtime.host.faults import HostDown

if TYPE_CHECKING:
    from runtime.host.lab.lab import Lab

SOCKET = Path("/run/zonewright/zoned.sock")
CONTROL_DOMAIN_FLAG = Path("/proc/xen/capabilities")
ZONED_START_TIMEOUT_S = 30.0
IDLE_DISKS = 8

Json = dict[str, Any]
OnEvent = Callable[[Json], None]


class NoSuchHost(RuntimeFault):
    """A host that is neither `xen` nor `lab`."""


class BlobInUse(RuntimeFault):
    """A blob was healed in the store while a zone runs from what it was before."""


class Host(Protocol):
    """A machine with Xen and a zoned."""

    name: str

    def up(self, progress: Progress) -> None:
        """Make it ready for zones; at once if it is."""

    def is_up(self) -> bool:
        """Could `call` succeed now?"""

    def call(self, method: str, params: Json, *, on_event: OnEvent | None = None, timeout_s: float = 60.0) -> Json:
        """One call of zoned."""

    def provide(self, blobs: Iterable[Descriptor]) -> dict[str, Json]:
        """Make blobs of the local store reachable; digest -> source, as `runtime.host.sources` reads them."""

    def listen_for(self, ports: Iterable[Port]) -> list[Json]:
        """Where zoned is to listen so that `expose` can lead each port to the user's machine."""

    def expose(self, published: Iterable[Json]) -> None:
        """Lead the ports zoned published to the user's machine."""

    def tidy(self) -> None:
        """Take back what no zone of this host uses any more; only inside `exclusive`."""

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Held from `tidy` until zoned knows the zone that uses what `provide` gave."""


def host_name(name: str | None = None) -> str:
    """`name`, else $ZONE_HOST, else xen on a control domain, else lab."""
    return name or os.environ.get("ZONE_HOST") or ("xen" if is_control_domain() else "lab")


def select_host(store: Store, name: str | None = None, *, flags: Json | None = None) -> Host:
    """The host of that name; see `host_name` for the default. flags: settings of a lab. Raises NoSuchHost."""
    name = host_name(name)
    if name == "xen":
        return XenHost()
    if name == "lab":
        return LabHost(store, flags=flags)
    raise NoSuchHost(
        f"host {name!r}", expected="xen or lab", got=name, hint="ssh:// and tls:// hosts are not built yet"
    )


def is_control_domain() -> bool:
    """Is this machine a control domain of Xen?"""
    try:
        return "control_d" in CONTROL_DOMAIN_FLAG.read_text()
    except OSError:
        return False


class XenHost:
    """This machine: a control domain. zoned is started when it is first needed."""

    name = "xen"

    def __init__(self, store: Store | None = None) -> None:
        self._store = store

    def up(self, progress: Progress) -> None:
        if self.is_up():
            return
        progress.say("starting zoned")
        SOCKET.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        log = open(SOCKET.parent / "zoned.log", "ab")  # noqa: SIM115 - the daemon keeps it
        subprocess.Popen(
            [sys.executable, "-m", "runtime.host.zoned"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        deadline = time.monotonic() + ZONED_START_TIMEOUT_S
        while not self.is_up():
            if time.monotonic() > deadline:
                tail = (SOCKET.parent / "zoned.log").read_text(errors="replace").strip().splitlines()[-1:]
                raise HostDown(
                    "zoned",
                    expected=f"an answer within {ZONED_START_TIMEOUT_S:.0f} s",
                    got=tail[0] if tail else "none",
                    hint=f"see {SOCKET.parent / 'zoned.log'}",
                )
            time.sleep(0.1)

    def is_up(self) -> bool:
        try:
            return bool(self.call("ping", {}, timeout_s=5).get("pong"))
        except RuntimeFault:
            return False

    def call(self, method: str, params: Json, *, on_event: OnEvent | None = None, timeout_s: float = 60.0) -> Json:
        from runtime.host.faults import ConnectionLost
        from runtime.host.wire import Client

        try:
            with Client.connect(SOCKET) as client:
                return dict(client.call(method, params, on_event=on_event, timeout_s=timeout_s))
        except ConnectionLost:
            raise HostDown("zoned", got=f"nothing listens on {SOCKET}", hint="zone host up") from None

    def provide(self, blobs: Iterable[Descriptor]) -> dict[str, Json]:
        store = self._store or Store()
        return {str(blob.digest): {"kind": "file", "path": str(store.path(blob.digest))} for blob in blobs}

    def listen_for(self, ports: Iterable[Port]) -> list[Json]:
        return [
            {
                "host_address": port.host_address,
                "host_port": port.host_port,
                "address": port.host_address,
                "port": port.host_port,
                "zone_port": port.zone_port,
            }
            for port in ports
        ]

    def expose(self, published: Iterable[Json]) -> None:
        """Nothing to do: zoned listens on this machine."""

    def tidy(self) -> None:
        """Nothing to do: zoned gives back its own."""

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class LabHost:
    """The embedded host: Xen and a dom0 in QEMU. Blobs become hot-plugged disks, ports are forwarded by QEMU."""

    name = "lab"

    def __init__(self, store: Store, lab: Lab | None = None, *, flags: Json | None = None) -> None:
        self._store = store
        self._lab = lab
        self._flags = {key: value for key, value in (flags or {}).items() if value is not None}

    @property
    def lab(self) -> Lab:
        """The lab, by its configuration; imported late, as most commands end before it is needed."""
        if self._lab is None:
            from runtime.host.lab.config import load_config
            from runtime.host.lab.lab import Lab

            lab = Lab(load_config(**self._flags), self._store)
            # A lab that runs keeps the settings it was started with, unless this command names others.
            self._lab = lab if self._flags else Lab(lab.running_config(), self._store)
        return self._lab

    def up(self, progress: Progress) -> None:
        self.lab.up(progress)

    def is_up(self) -> bool:
        return self.lab.is_up()

    def call(self, method: str, params: Json, *, on_event: OnEvent | None = None, timeout_s: float = 60.0) -> Json:
        return dict(self.lab.call(method, params, on_event=on_event, timeout_s=timeout_s))

    def provide(self, blobs: Iterable[Descriptor]) -> dict[str, Json]:
        sources: dict[str, Json] = {}
        for blob in blobs:
            if self.lab.is_stale(blob):
                self._replace(blob)
            sources[str(blob.digest)] = {"kind": "disk", "serial": self.lab.attach(blob)}
        return sources

    def _replace(self, blob: Descriptor) -> None:
        for zone in self.call("list", {})["zones"]:
            if zone["state"] in ("creating", "running") and str(blob.digest) in zone["blobs"]:
                raise BlobInUse(
                    f"store object {blob.digest.short}",
                    got=f"zone {zone['name']} runs from a file of it that was found damaged and has been replaced",
                    hint=f"stop {zone['name']} first",
                )
        self.lab.detach(str(blob.digest))

    def listen_for(self, ports: Iterable[Port]) -> list[Json]:
        wanted = list(ports)
        for port in wanted:
            self.lab.check_port(port.host_address, port.host_port)
        return [
            {
                "host_address": port.host_address,
                "host_port": port.host_port,
                "address": self.lab.dom0_address,
                "port": 0,
                "zone_port": port.zone_port,
            }
            for port in wanted
        ]

    def expose(self, published: Iterable[Json]) -> None:
        for rule in published:
            self.lab.forward(rule["host_address"], rule["host_port"], rule["dom0_port"])

    def tidy(self) -> None:
        """Drop the forwards that no zone known to zoned uses, and unplug idle disks beyond a few.

        A disk takes dom0 a moment to find, and kernel and init are the same for most zones: idle ones stay plugged.
        """
        zones = [zone for zone in self.call("list", {})["zones"] if zone["state"] in ("creating", "running")]
        used = {digest for zone in zones for digest in zone["blobs"]}
        open_ports = {(rule["host_address"], rule["host_port"]) for zone in zones for rule in zone["published"]}
        open_ports |= self.lab.own_forwards()
        for address, port in self.lab.forwards():
            if (address, port) not in open_ports:
                with contextlib.suppress(RuntimeFault):
                    self.lab.unforward(address, port)
        idle = [digest for digest in self.lab.attached() if digest not in used]
        for digest in idle[: max(len(idle) - IDLE_DISKS, 0)]:
            with contextlib.suppress(RuntimeFault):
                self.lab.detach(digest)

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        return self.lab.exclusive()
