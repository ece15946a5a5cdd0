"""What the ledgers say this host should have: the records of all zones, those taken back by KIND.gone left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from runtime.boot.errors import BadSpec
from runtime.boot.vbd import virtual_device
from runtime.errors import RuntimeFault
from runtime.host.check.model import HostPort, Process

Record = Mapping[str, Any]

_KINDS = {  # what each says at least, and what takes it back as well
    "domain": {"uuid"},
    "xenstore": {"uuid", "domid"},
    "channel": {"uuid"},
    "vbd": {"uuid", "vdev", "device"},
    "share": {"uuid", "number"},
    "console": {"log"},
    "loop": {"device", "file"},
    "file": {"path"},
    "mount": {"path"},
    "cgroup": {"path"},
    "process": {"pid", "start_time"},
    "net.directory": {"path"},
    "net.netns": {"name"},
    "net.vif": {"vif", "netns"},
    "net.listener": {"address", "port"},
    "net.engine": {"pid", "start_time"},
}
# What these are: things of other types are neither equal to what is found nor to be sorted with it.
_FIELDS = {
    **dict.fromkeys(("uuid", "name", "vdev", "device", "file", "log", "path"), str),
    **dict.fromkeys(("netns", "vif", "address", "protocol"), str),
    **dict.fromkeys(("domid", "backend_domid", "number", "port", "pid", "start_time"), int),
}


class LedgerLike(Protocol):
    """A ledger, as far as a check reads it."""

    @property
    def name(self) -> str:
        """The zone's."""

    def records(self) -> list[dict[str, Any]]:
        """All records in the order they were written."""


@dataclass
class ExpectedDomain:
    """A domain of a ledger.

    domid:        None until its xenstore tree was recorded.
    disks:        name there -> device here.
    shares:       numbers of the directories it has.
    has_channel:  does zoned serve a second console of it, the agent's?
    """

    zone: str
    uuid: str
    domid: int | None = None
    backend_domid: int = 0
    disks: dict[str, str] = field(default_factory=dict)
    shares: set[int] = field(default_factory=set)
    has_vif: bool = False
    has_channel: bool = False


@dataclass
class Expected:
    """Everything the ledgers name, each with the zone it belongs to.

    unread: ledgers that name more than could be read, and why.
    """

    unread: dict[str, str] = field(default_factory=dict)
    zones: set[str] = field(default_factory=set)
    domains: dict[str, ExpectedDomain] = field(default_factory=dict)  # by uuid
    loops: dict[str, tuple[str, str]] = field(default_factory=dict)  # device -> zone, file
    namespaces: dict[str, str] = field(default_factory=dict)
    vifs: dict[str, dict[str, str]] = field(default_factory=dict)  # netns -> vif -> zone
    engines: dict[Process, str] = field(default_factory=dict)
    listeners: dict[HostPort, str] = field(default_factory=dict)
    processes: dict[Process, str] = field(default_factory=dict)
    mounts: dict[str, str] = field(default_factory=dict)
    cgroups: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)  # files and directories

    def domain_of(self, domid: int) -> ExpectedDomain | None:
        """The domain a ledger has under this domid."""
        return next((domain for domain in self.domains.values() if domain.domid == domid), None)


def read_ledgers(ledgers: Iterable[LedgerLike]) -> Expected:
    """What all ledgers name together, as far as they can be read."""
    expected = Expected()
    for ledger in ledgers:
        try:
            records = ledger.records()
        except FileNotFoundError:
            continue  # its run has ended just now
        except OSError as error:
            expected.unread[ledger.name] = error.strerror or str(error)
            continue
        except RuntimeFault as fault:
            expected.unread[ledger.name] = str(fault)
            continue
        # A ledger is named by its run; people know the zone.
        named = ("zone", "domain", "network")
        names = (str(record["name"]) for record in records if record["kind"] in named and "name" in record)
        zone = next(names, ledger.name)
        expected.zones.add(zone)
        loops: dict[str, tuple[str, str]] = {}
        for record in records:
            try:
                _check(record)
                _note(expected, zone, record)
                _note_loop(loops, zone, record)
            except (TypeError, ValueError, BadSpec):  # of another version, or a hand's
                expected.unread[ledger.name] = f"no such record is known: {str(record)[:200]}"
        expected.loops |= loops  # what it has given back may be another's by now, and be in that one's ledger
    return expected


def _check(record: Record) -> None:
    """Raises TypeError, ValueError, BadSpec for a record of a kind that is known, which says what none of it says."""
    kind = str(record["kind"])
    wanted = _KINDS.get(kind.removesuffix(".gone"))
    if wanted is None:
        return
    if missing := wanted - record.keys():
        raise ValueError(str(missing))
    for name, value in record.items():
        if type(value) is not _FIELDS.get(name, type(value)):
            raise TypeError(name)
    if kind in ("vbd", "vbd.gone"):
        virtual_device(record["vdev"])
    elif kind == "xenstore":
        for vdev, _ in record.get("disks", ()):
            virtual_device(vdev)
        for number in record.get("shares", ()):
            int(number)


def _note_loop(loops: dict[str, tuple[str, str]], zone: str, record: Record) -> None:
    match record:
        case {"kind": "loop", "device": device, "file": file}:
            loops[device] = (zone, file)
        case {"kind": "loop.gone", "device": device}:
            loops.pop(device, None)


def _note(expected: Expected, zone: str, record: Record) -> None:
    """One record. Kinds this check knows nothing of are passed over."""
    match record:
        case {"kind": "domain", "uuid": uuid}:
            expected.domains[uuid] = ExpectedDomain(zone, uuid)
        case {"kind": "domain.gone", "uuid": uuid}:
            expected.domains.pop(uuid, None)
        case {"kind": "xenstore", "uuid": uuid, "domid": domid} if uuid in expected.domains:
            domain = expected.domains[uuid]
            domain.domid, domain.backend_domid = int(domid), int(record.get("backend_domid", 0))
            domain.disks, domain.has_vif = dict(record.get("disks", ())), bool(record.get("has_vif"))
            domain.shares = set(record.get("shares", ()))
        case {"kind": "channel", "uuid": uuid} if uuid in expected.domains:
            expected.domains[uuid].has_channel = True
        case {"kind": "vbd", "uuid": uuid, "vdev": vdev, "device": device} if uuid in expected.domains:
            expected.domains[uuid].disks[vdev] = device
        case {"kind": "vbd.gone", "uuid": uuid, "vdev": vdev} if uuid in expected.domains:
            expected.domains[uuid].disks.pop(vdev, None)
        case {"kind": "share", "uuid": uuid, "number": number} if uuid in expected.domains:
            expected.domains[uuid].shares.add(number)
        case {"kind": "share.gone", "uuid": uuid, "number": number} if uuid in expected.domains:
            expected.domains[uuid].shares.discard(number)
        case {"kind": "console", "log": path} | {"kind": "net.directory" | "file", "path": path}:
            expected.paths[path] = zone
        case {"kind": "net.directory.gone" | "file.gone", "path": path}:
            expected.paths.pop(path, None)
        case _:
            _note_network(expected, zone, record)


def _note_network(expected: Expected, zone: str, record: Record) -> None:
    match record:
        case {"kind": "net.netns", "name": name}:
            expected.namespaces[name] = zone
        case {"kind": "net.netns.gone", "name": name}:
            expected.namespaces.pop(name, None)
            expected.vifs.pop(name, None)
        case {"kind": "net.vif", "netns": name, "vif": vif}:
            vifs = expected.vifs.setdefault(name, {})
            for other in [other for other, owner in vifs.items() if owner == zone]:
                del vifs[other]  # a zone has one: this is of its next domain
            vifs[vif] = zone
        case {"kind": "net.engine", "pid": pid, "start_time": start_time}:
            expected.engines[Process(pid, start_time)] = zone
        case {"kind": "net.engine.gone", "pid": pid, "start_time": start_time}:
            expected.engines.pop(Process(pid, start_time), None)
        case {"kind": "net.listener", "address": address, "port": port}:
            expected.listeners[HostPort(address, port, record.get("protocol", "tcp"))] = zone
        case {"kind": "net.listener.gone", "address": address, "port": port}:
            expected.listeners.pop(HostPort(address, port, record.get("protocol", "tcp")), None)
        case {"kind": "process", "pid": pid, "start_time": start_time}:
            expected.processes[Process(pid, start_time)] = zone
        case {"kind": "process.gone", "pid": pid, "start_time": start_time}:
            expected.processes.pop(Process(pid, start_time), None)
        case {"kind": "mount" | "cgroup" as kind, "path": path}:
            (expected.mounts if kind == "mount" else expected.cgroups)[path] = zone
        case {"kind": "mount.gone" | "cgroup.gone" as kind, "path": path}:
            (expected.mounts if kind == "mount.gone" else expected.cgroups).pop(path, None)
