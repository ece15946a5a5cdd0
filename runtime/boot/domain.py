"""A built domain: what the host does with a zone between its building and its end."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.boot import nodes, vif
from runtime.boot.channel import Channel
from runtime.boot.console import Console
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import DeviceFault, TeardownFault
from runtime.boot.model import Domid, EvtchnPort, Mfn, ShutdownState, ZoneState
from runtime.boot.teardown import Record, teardown

if TYPE_CHECKING:
    from runtime.boot.attend import Attendant
    from runtime.boot.xenstore import Watch, XenStore

log = logging.getLogger(__name__)

_NETWORK_INTERFACES = Path("/sys/class/net")
_MAX_STATE_CHARACTERS = 1024


@dataclass
class Domain:
    """A domain of ours. Leaving its `with` block destroys it.

    records: what the ledger holds of it; enough for `teardown` and `adopt`.
    channel: the bytes of its agent, where it has one.
    timings: seconds by phase of the build.
    """

    domid: Domid
    uuid: str
    name: str
    hypervisor: Hypervisor
    xenstore: XenStore
    console: Console
    channel: Channel | None
    records: tuple[Record, ...]
    backend_domid: int = 0
    has_vif: bool = False
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def vif_name(self) -> str | None:
        """The host half of the zone's network interface, or None for a zone without network."""
        return vif.interface_name(self.domid) if self.has_vif else None

    def wait_vif(self, timeout_s: float = 30.0) -> str:
        """Wait until netback has made the interface; its name.

        Raises:  DeviceFault with netback's own words where it failed.
        """
        name = vif.interface_name(self.domid)
        error_path = nodes.error_path(self.backend_domid, self.domid, "vif", vif.HANDLE)
        deadline = time.monotonic() + timeout_s
        while not os.path.exists(_NETWORK_INTERFACES / name):
            problem = self.xenstore.read(error_path)
            if problem or time.monotonic() > deadline:
                got = problem or f"nothing for {timeout_s:g} s"
                raise DeviceFault(f"zone {self.name}, network", expected=f"the interface {name}", got=got)
            time.sleep(0.01)
        return name

    def connect_vif(self) -> None:
        """Tell netback that the interface is wired; the guest sees its network from here on."""
        backend = nodes.backend_path(self.backend_domid, self.domid, "vif", vif.HANDLE)
        self.xenstore.write(f"{backend}/hotplug-status", "connected")

    def unpause(self) -> None:
        """Let it run."""
        self.hypervisor.unpause(self.domid)

    def shutdown_state(self) -> ShutdownState | None:
        """How it ended, or None while it lives."""
        return shutdown_state(self.hypervisor, self.domid, self.uuid)

    def state(self) -> ZoneState:
        """What the zone's init reports."""
        home = f"{nodes.domain_path(self.domid)}/zone/state"
        phase, timings, end = (self.xenstore.read(f"{home}/{key}") for key in ("phase", "timings", "exit"))
        return ZoneState(_guest_text(phase), _guest_timings(_guest_text(timings)), _guest_text(end))

    def watch_state(self) -> Watch:
        """A watch on what the zone's init reports; a context manager."""
        return self.xenstore.watch(f"{nodes.domain_path(self.domid)}/zone/state")

    def request_stop(self, signal: int, timeout_s: float) -> None:
        """Ask the zone's init to stop the workload: signal first, SIGKILL after timeout_s."""
        path = f"{nodes.domain_path(self.domid)}/zone/control/stop"
        self.xenstore.write(path, f"{signal} {timeout_s:g}")

    def let_go(self) -> None:
        """Give up console and channel; the domain goes on, and whoever comes next may `adopt` it. Twice is fine."""
        if self.channel is not None:
            self.channel.close()
        self.console.close()

    def destroy(self, *, timeout_s: float = 30.0) -> None:
        """End it and remove all that belongs to it; twice is fine. Raises TeardownFault where Xen does not let go."""
        self.let_go()
        teardown(self.records, self.hypervisor, self.xenstore, timeout_s=timeout_s)

    def __enter__(self) -> Domain:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()


def shutdown_state(hypervisor: Hypervisor, domid: Domid, uuid: str) -> ShutdownState | None:
    """How a domain ended, or None while it lives."""
    info = hypervisor.domain_info(domid)
    if info is None or info.uuid != uuid:
        return ShutdownState(domid, "destroyed")
    if info.reason:
        return ShutdownState(domid, info.reason)
    return ShutdownState(domid, "destroyed") if info.dying else None


def adopt(
    records: Sequence[Record], hypervisor: Hypervisor, xenstore: XenStore, *, attendant: Attendant | None = None
) -> Domain | None:
    """Take over a running domain from its records, after the process that built it is gone; None if it is gone too.

    Raises:  TeardownFault where the records are of a build that was never finished: tear it down.
    """
    by_kind = {str(record["kind"]): record for record in records}
    info = hypervisor.find_domain(str(by_kind["domain"]["uuid"])) if "domain" in by_kind else None
    if info is None or info.dying:
        return None
    name = str(by_kind["domain"]["name"])
    has_channel = bool(by_kind.get("xenstore", {}).get("agent_channel"))
    if "console" not in by_kind or "xenstore" not in by_kind or has_channel > ("channel" in by_kind):
        raise TeardownFault(f"domain {info.domid} of zone {name}", got="its build was not finished")
    ring = by_kind["console"]
    console = Console(
        hypervisor,
        info.domid,
        Mfn(int(ring["mfn"])),
        EvtchnPort(int(ring["port"])),
        Path(str(ring["log"])),
        name=name,
        attendant=attendant,
    )
    try:
        channel = None
        if has_channel:
            channel = Channel(hypervisor, xenstore, info.domid, name=name, attendant=attendant)
    except BaseException:
        console.close()
        raise
    return Domain(
        domid=info.domid,
        uuid=info.uuid,
        name=name,
        hypervisor=hypervisor,
        xenstore=xenstore,
        console=console,
        channel=channel,
        records=tuple(records),
        backend_domid=int(by_kind["xenstore"]["backend_domid"]),
        has_vif=bool(by_kind["xenstore"]["has_vif"]),
    )


def _guest_text(value: str | None) -> str:
    """Guest-written text, cut and made printable."""
    text = (value or "")[:_MAX_STATE_CHARACTERS]
    return "".join(character if character.isprintable() else "?" for character in text)


def _guest_timings(text: str) -> dict[str, float]:
    timings = {}
    for word in text.split():
        phase, _, seconds = word.partition("=")
        try:
            value = float(seconds)
        except ValueError:
            continue
        if phase and math.isfinite(value) and value >= 0:
            timings[phase] = value
    return timings
