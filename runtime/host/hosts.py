"""Which machine zones run on, and what differs between machines: how a blob gets there, and how a port gets back.

    xen                this machine's zoned; it is started when it is first needed
    lab  lab:NAME      Xen in QEMU: blobs are hot-plugged disks, ports are forwarded by QEMU
    ssh: tls: unix:    a zoned that somebody else looks after: blobs are sent, ports are open on that machine

All else is one code path: a HostClient, whatever the address.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.bundle.model import Port
from pipeline.oci import Descriptor
from pipeline.progress import Progress
from pipeline.store import Store
from runtime.errors import RuntimeFault
from runtime.host.client.endpoint import SOCKET, Endpoint, endpoint_of, lab_name
from runtime.host.client.endpoint import host_name as host_name
from runtime.host.faults import HostDown
from runtime.host.unixsocket import connect_unix

if TYPE_CHECKING:
    from runtime.host.api.host_pb2 import PortRule, ZoneInfo
    from runtime.host.client.client import HostClient
    from runtime.host.lab.lab import Lab

SYSTEMD = Path("/run/systemd/system")
UNIT = "zoned.service"
ZONED_START_TIMEOUT_S = 60.0
SYSTEMD_TIMEOUT_S = 90.0  # in which systemd itself gives a service up: systemd-system.conf(5), DefaultTimeoutStartSec
POLL_S = 0.05
IDLE_DISKS = 8

Json = dict[str, Any]


class NoSuchHost(RuntimeFault):
    """A host that a command has no use for."""


class BlobInUse(RuntimeFault):
    """A blob was healed in the store while a zone runs from what it was before."""


class Host(Protocol):
    """A machine with Xen and a zoned."""

    name: str

    def up(self, progress: Progress) -> None:
        """Make it ready for zones; at once if it is."""

    def is_up(self) -> bool:
        """Could `connect` lead anywhere? A cheap look."""

    def connect(self) -> HostClient:
        """A client of its zoned."""

    def provide(self, client: HostClient, blobs: Iterable[Descriptor], progress: Progress) -> None:
        """Make blobs of the local store reachable for its zoned."""

    def listen_for(self, ports: Iterable[Port], *, released: Iterable[Port] = ()) -> list[PortRule]:
        """Where zoned is to listen so that `expose` can lead each port to where users are.

        released:  ends that the same request gives back, and that others of it may have therefore.
        Raises:  what says that one cannot be had, as far as it can be seen from here.
        """

    def expose(self, published: Iterable[PortRule]) -> None:
        """Lead the ports zoned published to the user's machine."""

    def tidy(self, client: HostClient) -> None:
        """Take back what no zone of this host uses any more; only inside `exclusive`."""

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Held from `tidy` until zoned knows the zone that uses what `provide` gave."""


def select_host(store: Store, name: str | None = None, *, flags: Json | None = None) -> Host:
    """The host of that address; see `host_name` for the default. flags: settings of a lab. Raises BadHostAddress."""
    name = host_name(name)
    if name == "xen":
        return XenHost(store)
    if (lab := lab_name(name)) is not None:
        return LabHost(store, flags=flags, named=lab)
    return RemoteHost(store, endpoint_of(name))


class RemoteHost:
    """A zoned behind an address. Its machine is somebody else's to start."""

    def __init__(self, store: Store, endpoint: Endpoint) -> None:
        self.name, self._store, self._endpoint = endpoint.name, store, endpoint

    def up(self, progress: Progress) -> None:
        """Nothing to do: ssh starts a zoned where it leads to, and whoever serves TLS is up."""

    def is_up(self) -> bool:
        return True

    def connect(self) -> HostClient:
        from runtime.host.client import connect

        return connect(self._endpoint)

    def provide(self, client: HostClient, blobs: Iterable[Descriptor], progress: Progress) -> None:
        from runtime.host.upload import upload

        upload(client, self._store, blobs, progress)

    def listen_for(self, ports: Iterable[Port], *, released: Iterable[Port] = ()) -> list[PortRule]:
        from runtime.host.api.host_pb2 import PortRule

        return [
            PortRule(
                host_address=self._seen_from_here(port.host_address),
                host_port=port.host_port,
                address=port.host_address,
                port=port.host_port,
                zone_port=port.zone_port,
                protocol=port.protocol,
            )
            for port in ports
        ]

    def _seen_from_here(self, address: str) -> str:
        """A port open on every address of another machine is reached by that machine's name."""
        return self._endpoint.host if self._endpoint.host and ipaddress.ip_address(address).is_unspecified else address

    def expose(self, published: Iterable[PortRule]) -> None:
        """Nothing to do: zoned listens on its machine."""

    def tidy(self, client: HostClient) -> None:
        """Nothing to do: zoned gives back its own."""

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class XenHost(RemoteHost):
    """This machine: a control domain. zoned is started when it is first needed, by systemd where that knows it."""

    def __init__(self, store: Store | None = None, *, path: Path = SOCKET) -> None:
        super().__init__(store or Store(), Endpoint("host xen", "unix", path=path))
        self.name = "xen"
        self._path = path

    def is_up(self) -> bool:
        try:
            connect_unix(self._path, timeout_s=5).close()
            return True
        except OSError:
            return False

    def up(self, progress: Progress) -> None:
        if self.is_up():
            return
        if os.geteuid() != 0:
            raise HostDown("host xen", expected=f"zoned to listen on {self._path}", got="none", hint="start it as root")
        progress.say("starting zoned")
        log = self._path.parent / "zoned.log"
        if not _start_by_systemd():
            _start(log, self._store)
        deadline = time.monotonic() + ZONED_START_TIMEOUT_S
        while not self.is_up():
            if time.monotonic() > deadline:
                raise HostDown(
                    "zoned",
                    expected=f"it to listen on {self._path} within {ZONED_START_TIMEOUT_S:.0f} s",
                    got=_last_line(log),
                    hint=f"see {log}, or `journalctl -u {UNIT}`",
                )
            time.sleep(POLL_S)


def _start_by_systemd() -> bool:
    """Start the unit; False where there is no systemd, or it has no such unit."""
    systemctl = shutil.which("systemctl")
    if systemctl is None or not SYSTEMD.is_dir():
        return False
    argv = [systemctl, "start", UNIT]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SYSTEMD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        expected = f"systemd to start it within {SYSTEMD_TIMEOUT_S:g} s"
        raise HostDown(UNIT, expected=expected, got="no answer", hint=f"journalctl -u {UNIT}") from None
    if done.returncode == 5:  # systemctl(1), exit status: program not installed
        return False
    if done.returncode != 0:
        got = done.stderr.strip().splitlines()[:1] or [f"code {done.returncode}"]
        raise HostDown(UNIT, expected="systemd to start it", got=got[0], hint=f"journalctl -u {UNIT}")
    return True


def _start(log: Path, store: Store) -> None:
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    with open(log, "ab") as said:
        subprocess.Popen(
            [sys.executable, "-m", "runtime.host.zoned", "--store", str(store.root)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )


def _last_line(log: Path) -> str:
    try:
        return (log.read_text(errors="replace").strip().splitlines() or ["nothing said"])[-1]
    except OSError:
        return "nothing said"


class LabHost:
    """The embedded host: Xen and a dom0 in QEMU. Blobs become hot-plugged disks, ports are forwarded by QEMU.

    named:  which lab; "" for the one its flavour names.
    """

    def __init__(self, store: Store, lab: Lab | None = None, *, flags: Json | None = None, named: str = "") -> None:
        self.name = f"lab:{named}" if named else "lab"
        self._store, self._named = store, named
        self._lab = lab
        self._flags = {key: value for key, value in (flags or {}).items() if value is not None}

    @property
    def lab(self) -> Lab:
        """The lab, by its configuration; imported late, as most commands end before it is needed."""
        if self._lab is None:
            from runtime.host.lab.config import load_config
            from runtime.host.lab.lab import Lab

            lab = Lab(load_config(**self._flags), self._store, name=self._named)
            # A lab that runs keeps the settings it was started with, unless this command names others.
            self._lab = lab if self._flags else Lab(lab.running_config(), self._store, name=self._named, keeps=True)
        return self._lab

    def up(self, progress: Progress) -> None:
        self.lab.up(progress)

    def is_up(self) -> bool:
        return self.lab.is_up()

    def connect(self) -> HostClient:
        from runtime.host.client import connect

        # The lab's own files say where: looking further would cost each command its settings' schema.
        return connect(endpoint_of(self.name) if self._lab is None else self._lab.endpoint())

    def provide(self, client: HostClient, blobs: Iterable[Descriptor], progress: Progress) -> None:
        """zoned finds the disk of a blob by its serial number."""
        for blob in blobs:
            if self.lab.is_stale(blob):
                self._replace(client, blob)
            self.lab.attach(blob)

    def _replace(self, client: HostClient, blob: Descriptor) -> None:
        for zone in _live(client):
            if str(blob.digest) in zone.blobs:
                raise BlobInUse(
                    f"store object {blob.digest.short}",
                    got=f"zone {zone.name} runs from a file of it that was found damaged and has been replaced",
                    hint=f"stop {zone.name} first",
                )
        self.lab.detach(str(blob.digest))

    def listen_for(self, ports: Iterable[Port], *, released: Iterable[Port] = ()) -> list[PortRule]:
        from runtime.host.api.host_pb2 import PortRule

        wanted = list(ports)
        own = {_end(port) for port in released}
        found = iter(self.lab.find_free(_end(port) for port in wanted if _end(port) not in own))
        free = [port.host_port if _end(port) in own else next(found) for port in wanted]
        return [
            PortRule(
                host_address=port.host_address,
                host_port=number,
                address=self.lab.dom0_address,
                port=0,
                zone_port=port.zone_port,
                protocol=port.protocol,
            )
            for port, number in zip(wanted, free, strict=True)
        ]

    def expose(self, published: Iterable[PortRule]) -> None:
        for rule in published:
            self.lab.forward(rule.host_address, rule.host_port, rule.port, rule.protocol)

    def tidy(self, client: HostClient) -> None:
        """Drop the forwards that no zone known to zoned uses, and unplug idle disks beyond a few.

        A disk takes dom0 a moment to find, and kernel and init are the same for most zones: idle ones stay plugged.
        """
        zones = _live(client)
        used = {digest for zone in zones for digest in zone.blobs}
        # A zone that was restarted has other ports of dom0 than before.
        rules = [rule for zone in zones for rule in zone.ports]
        wanted = {((rule.host_address, rule.host_port, rule.protocol), rule.port) for rule in rules}
        own = self.lab.own_forwards()
        for end, dom0_port in self.lab.forwards().items():
            if (end, dom0_port) not in wanted and end not in own:
                with contextlib.suppress(RuntimeFault):
                    self.lab.unforward(*end)
        idle = [digest for digest in self.lab.attached() if digest not in used]
        for digest in idle[: max(len(idle) - IDLE_DISKS, 0)]:
            with contextlib.suppress(RuntimeFault):
                self.lab.detach(digest)

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        return self.lab.exclusive()


def _end(port: Port) -> tuple[str, int, str]:
    return port.host_address, port.host_port, port.protocol


def _live(client: HostClient) -> list[ZoneInfo]:
    """Every zone that holds, or will soon hold, anything."""
    from runtime.host.api.host_pb2 import ListZonesRequest

    return list(client.call(client.host.ListZones, ListZonesRequest()).zones)
