"""A host that agrees with its ledgers, and then one planted difference of every kind: exactly that one is found."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from runtime.boot.machine import ChannelState, Grant
from runtime.host.check.check import compare_all
from runtime.host.check.expected import Expected, read_ledgers
from runtime.host.check.model import Device, Found, FoundDomain, HostPort, Process

UUID, OTHER = "0f0e0d0c-0b0a-4908-8706-050403020100", "1f0e0d0c-0b0a-4908-8706-050403020100"
ENGINE = Process(500, 12345)
PORT, UDP_PORT = HostPort("0.0.0.0", 8080), HostPort("0.0.0.0", 8080, "udp")
RUN = "/run/zonewright"
ALLOWED = (f"{RUN}/zoned.sock", f"{RUN}/ledger")
STORE = ("/store",)
API = HostPort("192.0.2.1", 7443)
RECORDS: list[dict[str, Any]] = [
    {"kind": "loop", "device": "/dev/loop9", "file": "/store/x"},
    {"kind": "loop.gone", "device": "/dev/loop9", "file": "/store/x"},
    {"kind": "loop", "device": "/dev/loop0", "file": "/store/rootfs"},
    {"kind": "net.directory", "path": f"{RUN}/net/web"},
    {"kind": "net.netns", "name": "zw-web"},
    {"kind": "net.engine", "engine": "proxy", "pid": 400, "start_time": 1},
    {"kind": "net.engine.gone", "pid": 400, "start_time": 1},
    {"kind": "net.engine", "engine": "proxy", "pid": ENGINE.pid, "start_time": ENGINE.start_time},
    {"kind": "net.listener", "address": PORT.address, "port": 9999, "zone_port": 80},
    {"kind": "net.listener.gone", "address": PORT.address, "port": 9999, "zone_port": 80},
    {"kind": "net.listener", "address": PORT.address, "port": PORT.port, "zone_port": 80},
    {"kind": "net.listener", "address": PORT.address, "port": PORT.port, "zone_port": 53, "protocol": "udp"},
    {"kind": "net.listener", "address": PORT.address, "port": 9999, "zone_port": 53, "protocol": "udp"},
    {"kind": "net.listener.gone", "address": PORT.address, "port": 9999, "zone_port": 53, "protocol": "udp"},
    {"kind": "domain", "name": "web", "uuid": UUID},
    {"kind": "xenstore", "domid": 7, "uuid": UUID, "has_vif": True, "disks": [["xvda", "/dev/loop0"]], "shares": [0]},
    {"kind": "share", "domid": 7, "uuid": UUID, "number": 1, "tag": "share1"},
    {"kind": "share", "domid": 7, "uuid": UUID, "number": 2, "tag": "share2"},
    {"kind": "share.gone", "domid": 7, "uuid": UUID, "number": 1, "tag": "share1"},
    {"kind": "console", "domid": 7, "uuid": UUID, "mfn": 1, "port": 2, "log": f"{RUN}/console/web.log"},
    {"kind": "channel", "domid": 7, "uuid": UUID},
    {"kind": "net.vif", "vif": "vif7.0", "netns": "zw-web"},
    {"kind": "vbd", "domid": 7, "uuid": UUID, "vdev": "xvdc", "device": "/dev/loop5"},
    {"kind": "vbd", "domid": 7, "uuid": UUID, "vdev": "xvdd", "device": "/dev/loop6"},
    {"kind": "vbd.gone", "domid": 7, "uuid": UUID, "vdev": "xvdd", "device": "/dev/loop6"},
    {"kind": "process", "pid": 600, "start_time": 6},
    {"kind": "mount", "path": f"{RUN}/volume"},
    {"kind": "cgroup", "path": "/sys/fs/cgroup/zonewright/web"},
    {"kind": "something new", "path": "/x"},
]  # fmt: skip


class Ledger:
    def __init__(self, records: list[dict[str, Any]], name: str = UUID, error: OSError | None = None) -> None:
        self._records, self.name, self._error = records, name, error

    def records(self) -> list[dict[str, Any]]:
        if self._error is not None:
            raise self._error
        return self._records


def healthy() -> Found:
    vbds = {Device("vbd", 7, "51712"), Device("vbd", 7, "51744"), Device("vif", 7, "0"), Device("9pfs", 7, "0"),
            Device("9pfs", 7, "2")}  # fmt: skip
    return Found(
        domains=[FoundDomain(7, UUID, False, 1000), FoundDomain(9, OTHER, False, 5)],
        homes={7: UUID, 9: None},  # 9 is another toolstack's
        backends=vbds | {Device("vbd", 9, "51712"), Device("console", 7, "1")},
        frontends=vbds | {Device("vbd", 9, "51712"), Device("console", 7, "1")},
        kernel={"vbd-7-51712", "vbd-7-51744", "vif-7-0", "vbd-9-51712"},
        channels=[ChannelState(3, True, 7, 4), ChannelState(4, False, 9, 0), ChannelState(5, True, 0, 9)],  # type: ignore[arg-type]
        loops={"/dev/loop0": "/store/rootfs", "/dev/loop1": "/somebody/elses"},
        interfaces={"lo", "eth0", "vif9.0"},
        namespaces={"zw-web": True},
        links={"zw-web": {"lo", "zw0", "vif7.0"}},
        processes={ENGINE, Process(600, 6)},
        engines={ENGINE},
        listening={PORT, UDP_PORT, HostPort("0.0.0.0", 22)},
        held={ENGINE: {PORT, UDP_PORT}},
        own={PORT, UDP_PORT, API},
        mounts={f"{RUN}/volume", "/run/netns/zw-web"},
        cgroups={"/sys/fs/cgroup/zonewright/web"},
        files={
            f"{RUN}/zoned.sock", f"{RUN}/ledger", f"{RUN}/ledger/web.jsonl", f"{RUN}/net", f"{RUN}/net/web",
            f"{RUN}/net/web/control", f"{RUN}/console", f"{RUN}/console/web.log", f"{RUN}/volume",
        },
    )  # fmt: skip


def expected(records: list[dict[str, Any]] = RECORDS) -> Expected:
    return read_ledgers([Ledger(records)])


def findings(found: Found, ledgers: Expected | None = None) -> list[str]:
    return [str(finding) for finding in compare_all(ledgers or expected(), found, ALLOWED, STORE, [API])]


def test_host_that_agrees_with_its_ledgers_has_no_findings() -> None:
    assert findings(healthy()) == []


Change = Callable[[Found], Any]
LEAKS: dict[str, tuple[Change, str]] = {
    "domain": (
        lambda f: f.domains.append(FoundDomain(11, "u")),
        "domain 11 (u): in no ledger (xl destroy 11)",
    ),
    "tree": (
        lambda f: f.homes.update({11: UUID}),
        "xenstore /local/domain/11: the tree of a domain that is gone (xenstore-rm /local/domain/11)",
    ),
    "foreign tree": (
        lambda f: f.homes.update({11: None}),
        "xenstore /local/domain/11: the tree of a domain that is gone (xenstore-rm /local/domain/11)",
    ),
    "back end": (
        lambda f: f.backends.add(Device("vbd", 11, "51712")),
        "xenstore /local/domain/0/backend/vbd/11/51712: a back end for a domain that is gone "
        "(xenstore-rm /local/domain/0/backend/vbd/11/51712)",
    ),
    "disk of ours": (
        lambda f: (f.backends.add(Device("vbd", 7, "51760")), f.frontends.add(Device("vbd", 7, "51760"))),
        "xenstore /local/domain/0/backend/vbd/7/51760: a device of zone web in no ledger "
        "(xenstore-rm /local/domain/0/backend/vbd/7/51760)",
    ),
    "directory of ours": (
        lambda f: (f.backends.add(Device("9pfs", 7, "1")), f.frontends.add(Device("9pfs", 7, "1"))),
        "xenstore /local/domain/0/backend/9pfs/7/1: a device of zone web in no ledger "
        "(xenstore-rm /local/domain/0/backend/9pfs/7/1)",
    ),
    "channel of ours": (
        lambda f: (f.backends.add(Device("console", 7, "2")), f.frontends.add(Device("console", 7, "2"))),
        "xenstore /local/domain/0/backend/console/7/2: a device of zone web in no ledger "
        "(xenstore-rm /local/domain/0/backend/console/7/2)",
    ),
    "error": (
        lambda f: f.errors.update({Device("vif", 11, "0"): "2 reading script"}),
        "xenstore /local/domain/0/error/backend/vif/11: what the kernel said about a domain that is gone "
        "(xenstore-rm /local/domain/0/error/backend/vif/11)",
    ),
    "kernel": (
        lambda f: f.kernel.add("vif-11-0"),
        "device vif-11-0: the kernel still has the vif of a domain that is gone",
    ),
    "channel": (
        lambda f: f.channels.append(ChannelState(8, False, 11, 0)),  # type: ignore[arg-type]
        "event channel 8 of dom0: it leads to domain 11, which is gone (end the process that holds it)",
    ),
    "loop": (
        lambda f: f.loops.update({"/dev/loop4": "/store/old (deleted)"}),
        "loop /dev/loop4 over /store/old (deleted): in no ledger (losetup -d /dev/loop4)",
    ),
    "netns": (
        lambda f: f.namespaces.update({"zw-old": True}),
        "netns zw-old: in no ledger (ip netns delete zw-old)",
    ),
    "vif": (
        lambda f: f.interfaces.add("vif11.0"),
        "vif vif11.0: the interface of a domain that is gone",
    ),
    "vif in a namespace": (
        lambda f: f.links["zw-web"].add("vif9.0"),
        "vif vif9.0 in zw-web: in no ledger (ip -n zw-web link set vif9.0 down)",
    ),
    "engine": (
        lambda f: f.engines.add(Process(501, 5)),
        "process 501 (a network engine): in no ledger (kill -9 501)",
    ),
    "share": (
        lambda f: f.shares.add(Process(503, 7)),
        "process 503 (serves a directory): in no ledger (kill -9 503)",
    ),
    "zombie": (
        lambda f: f.zombies.update({77: "nft"}),
        "process 77 (nft): it ended and zoned did not wait for it",
    ),
    "port": (
        lambda f: f.held[ENGINE].add(HostPort("0.0.0.0", 9999)),
        "port 0.0.0.0:9999: engine 500 listens there, in no ledger (kill -9 500)",
    ),
    "udp port": (
        lambda f: f.held[ENGINE].add(HostPort("0.0.0.0", 9999, "udp")),
        "port 0.0.0.0:9999/udp: engine 500 listens there, in no ledger (kill -9 500)",
    ),
    "image task": (
        lambda f: f.orphans.add(Process(502, 6)),
        "process 502 (an image task): its zoned is gone (kill -9 502)",
    ),
    "zoned's own port": (
        lambda f: f.own.add(HostPort("0.0.0.0", 9999)),
        "port 0.0.0.0:9999: zoned listens there, for no zone (restart zoned, which zones do not notice)",
    ),
    "zoned's own udp port": (
        lambda f: f.own.add(HostPort(*API[:2], "udp")),
        "port 192.0.2.1:7443/udp: zoned listens there, for no zone (restart zoned, which zones do not notice)",
    ),
    "mount": (
        lambda f: f.mounts.add(f"{RUN}/other"),
        f"mount {RUN}/other: in no ledger (umount {RUN}/other)",
    ),
    "cgroup": (
        lambda f: f.cgroups.add("/sys/fs/cgroup/zonewright/old"),
        "cgroup /sys/fs/cgroup/zonewright/old: in no ledger (rmdir /sys/fs/cgroup/zonewright/old)",
    ),
    "file": (
        lambda f: f.files.update({f"{RUN}/net/old", f"{RUN}/net/old/control", f"{RUN}/net/old/log"}),
        f"file {RUN}/net/old: in no ledger (rm -r {RUN}/net/old)",
    ),
}  # fmt: skip
LOSSES: dict[str, tuple[Change, str]] = {
    "domain": (
        lambda f: (f.domains.pop(0), f.homes.pop(7), f.backends.clear(), f.frontends.clear(), f.kernel.clear(),
                   f.channels.clear()),
        f"domain {UUID}: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "tree": (
        lambda f: f.homes.pop(7),
        "xenstore /local/domain/7: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "disk": (
        lambda f: (f.backends.discard(Device("vbd", 7, "51744")), f.frontends.discard(Device("vbd", 7, "51744"))),
        "xenstore /local/domain/0/backend/vbd/7/51744: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "directory": (
        lambda f: (f.backends.discard(Device("9pfs", 7, "2")), f.frontends.discard(Device("9pfs", 7, "2"))),
        "xenstore /local/domain/0/backend/9pfs/7/2: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "vif": (
        lambda f: (f.backends.discard(Device("vif", 7, "0")), f.frontends.discard(Device("vif", 7, "0"))),
        "xenstore /local/domain/0/backend/vif/7/0: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "agent's channel": (
        lambda f: (f.backends.discard(Device("console", 7, "1")), f.frontends.discard(Device("console", 7, "1"))),
        "xenstore /local/domain/0/backend/console/7/1: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "front end": (
        lambda f: f.frontends.discard(Device("vbd", 7, "51712")),
        "xenstore /local/domain/7/device/vbd/51712: zone web has lost its half of a device (zone rm -f web)",
    ),
    "loop": (
        lambda f: f.loops.pop("/dev/loop0"),
        "loop /dev/loop0: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "netns": (
        lambda f: (f.namespaces.clear(), f.links.clear()),
        "netns zw-web: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "name of a netns": (
        lambda f: (f.namespaces.update({"zw-web": False}), f.links.clear()),
        "netns zw-web: a name without a namespace (zone rm -f web)",
    ),
    "interface": (
        lambda f: f.links["zw-web"].discard("vif7.0"),
        "vif vif7.0 in zw-web: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "interface astray": (
        lambda f: (f.links["zw-web"].discard("vif7.0"), f.interfaces.add("vif7.0")),
        "vif vif7.0: it is in the host's network, not in its zone's (ip link set vif7.0 down)",
    ),
    "engine": (
        lambda f: (f.processes.discard(ENGINE), f.engines.clear(), f.held.clear()),
        "process 500: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "process": (
        lambda f: f.processes.discard(Process(600, 6)),
        "process 600: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "port": (
        lambda f: (f.listening.discard(PORT), f.held.clear()),
        "port 0.0.0.0:8080: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "udp port": (
        lambda f: (f.listening.discard(UDP_PORT), f.held.clear()),
        "port 0.0.0.0:8080/udp: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "mount": (
        lambda f: f.mounts.discard(f"{RUN}/volume"),
        f"mount {RUN}/volume: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "cgroup": (
        lambda f: f.cgroups.clear(),
        "cgroup /sys/fs/cgroup/zonewright/web: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "file": (
        lambda f: f.files.discard(f"{RUN}/console/web.log"),
        f"file {RUN}/console/web.log: in the ledger of zone web, but gone (zone rm -f web)",
    ),
    "another file behind the loop": (
        lambda f: f.loops.update({"/dev/loop0": "/store/addons"}),
        "loop /dev/loop0 over /store/addons: the ledger of zone web has it over /store/rootfs (zone rm -f web)",
    ),
    "file behind the loop removed": (
        lambda f: f.loops.update({"/dev/loop0": "/store/rootfs (deleted)"}),
        "loop /dev/loop0 over /store/rootfs: the file has been removed (zone rm -f web)",
    ),
    "words of the kernel": (
        lambda f: f.errors.update({Device("vbd", 7, "51744"): "2 reading dev"}),
        "xenstore /local/domain/0/error/backend/vbd/7: the kernel says: 2 reading dev",
    ),
    "another domain's tree": (
        lambda f: f.homes.update({7: "u"}),
        f"xenstore /local/domain/7: it says domain u, Xen says {UUID} (xenstore-rm /local/domain/7)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("plant", "sentence"), LEAKS.values(), ids=LEAKS)
def test_leak_that_is_planted_is_found_alone(plant: Change, sentence: str) -> None:
    found = healthy()
    plant(found)
    assert findings(found) == [sentence]


@pytest.mark.parametrize(("take", "sentence"), LOSSES.values(), ids=LOSSES)
def test_what_a_ledger_has_and_the_host_has_not_is_found_alone(take: Change, sentence: str) -> None:
    found = healthy()
    take(found)
    assert findings(found) == [sentence]


def test_dying_domain_is_told_with_who_holds_it() -> None:
    found = healthy()
    found.domains.append(FoundDomain(11, "u", True, 42))
    found.grants[11] = (Grant(8, 0, True), Grant(9, 0, True), Grant(10, 0, False), Grant(11, 3, True))  # type: ignore[arg-type]
    assert findings(found) == [
        "domain 11 (u): it ended, but 42 pages of it are still held by somebody (end the process or back end that maps "
        "them)",
        "grant 11 (u): domain 0 still maps 2 pages of this dying domain (end the process or back end there)",
        "grant 11 (u): domain 3 still maps 1 pages of this dying domain (end the process or back end there)",
    ]


def test_listeners_of_a_process_that_does_not_say_why_it_has_them_are_not_compared() -> None:
    found = healthy()
    found.own.add(HostPort("0.0.0.0", 9999))
    assert compare_all(expected(), found, ALLOWED, STORE) == []


def test_every_record_of_an_empty_host_is_missed() -> None:
    """Nothing the ledger names is passed over: an empty host misses all of it."""
    missed = {text.split(" ")[0] for text in findings(Found())}
    assert missed == {"domain", "loop", "netns", "process", "port", "mount", "cgroup", "file"}


def test_without_ledgers_everything_of_ours_is_a_leak() -> None:
    kinds = {text.split(" ")[0] for text in findings(healthy(), Expected())}
    assert kinds == {"domain", "loop", "netns", "vif", "process", "port", "mount", "cgroup", "file"}


def test_two_ledgers_are_read_as_one() -> None:
    at = next(index for index, record in enumerate(RECORDS) if record["kind"] == "domain")
    both = read_ledgers([Ledger(RECORDS[:at]), Ledger(RECORDS[at:])])
    assert findings(healthy(), both) == []
    assert both.zones == {UUID, "web"}, "a ledger that does not say its zone's name is named by its run"


def test_ledger_that_cannot_be_read_is_told_and_the_rest_is_compared() -> None:
    """What only it may name is none to be ended; what is certain is told as ever."""
    found = healthy()
    found.engines.add(Process(501, 5))
    found.homes[11] = UUID
    ledgers = read_ledgers([Ledger([], OTHER, OSError(5, "Input/output error")), Ledger(RECORDS)])
    assert findings(found, ledgers) == [
        f"ledger {OTHER}: it cannot be read: Input/output error",
        "xenstore /local/domain/11: the tree of a domain that is gone (xenstore-rm /local/domain/11)",
        "process 501 (a network engine): in no ledger that can be read",
    ]


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "xenstore", "uuid": UUID, "domid": "seven"},
        {"kind": "net.listener", "address": [], "port": 1},
        {"kind": "loop", "device": {}, "file": ""},
        {"kind": "loop", "device": 7, "file": "/store/x"},
        {"kind": "loop.gone", "device": []},
        {"kind": "domain", "uuid": 7},
        {"kind": "net.engine", "pid": "500", "start_time": 12345},
        {"kind": "net.engine.gone", "pid": 500, "start_time": None},
        {"kind": "process", "pid": 500.5, "start_time": 1},
        {"kind": "net.netns", "name": 7},
        {"kind": "net.vif", "netns": "zw-web", "vif": 7},
        {"kind": "net.listener", "address": 7, "port": 9999},
        {"kind": "net.listener", "address": PORT.address, "port": "http"},
        {"kind": "net.listener", "address": PORT.address, "port": 9999, "protocol": None},
        {"kind": "net.directory"},
        {"kind": "net.directory", "path": 7},
        {"kind": "mount", "path": 7},
        {"kind": "cgroup", "path": 7},
        {"kind": "xenstore", "uuid": UUID, "domid": 7, "disks": [[7, "/dev/loop0"]]},
        {"kind": "xenstore", "uuid": UUID, "domid": 7, "disks": [["sda", "/dev/loop0"]]},
        {"kind": "xenstore", "uuid": UUID, "domid": 7, "shares": ["first"]},
        {"kind": "vbd", "uuid": UUID, "vdev": "sda", "device": "/dev/loop7"},
        {"kind": "share", "uuid": UUID, "number": "first"},
    ],
    ids=str,
)
def test_record_that_cannot_be_read_costs_no_other(record: dict[str, Any]) -> None:
    ledgers = read_ledgers([Ledger([*RECORDS, record])])
    (told,) = findings(healthy(), ledgers)
    assert told.startswith(f"ledger {UUID}: it cannot be read: no such record is known: {{'kind'")


def test_comparing_changes_neither_side() -> None:
    found, ledgers = healthy(), expected()
    before = (copy.deepcopy(found), copy.deepcopy(ledgers))
    findings(found, ledgers)
    assert (found, ledgers) == before


def test_zones_that_share_a_network_have_their_vifs_in_one_namespace() -> None:
    """The network's own ledger names what it has; a zone's, its vif there."""
    vif = next(record for record in RECORDS if record["kind"] == "net.vif")
    network = [{"kind": "network", "name": "back"}, *(record for record in RECORDS if record["kind"] == "net.netns")]
    web = [record for record in RECORDS if record["kind"] != "net.netns"]
    db = [{"kind": "zone", "name": "db"}, {**vif, "vif": "vif6.0"}, {**vif, "vif": "vif8.0"}]
    shared = read_ledgers([Ledger(network), Ledger(web), Ledger(db)])
    found = healthy()
    assert findings(found, shared) == ["vif vif8.0 in zw-web: in the ledger of zone db, but gone (zone rm -f db)"]
    found.links["zw-web"].add("vif8.0")
    assert findings(found, shared) == []
    found.links["zw-web"].add("vif6.0")
    assert len(findings(found, shared)) == 1, "of a domain before"


@pytest.mark.parametrize("order", ["holder first", "holder last"])
def test_loop_device_that_one_zone_gave_back_and_another_has_is_the_others(order: str) -> None:
    def ledger(zone: str, *kinds: str) -> Ledger:
        loop = {"device": "/dev/loop0", "file": f"/store/{zone}"}
        return Ledger([{"kind": "zone", "name": zone}, *({"kind": kind, **loop} for kind in kinds)])

    ledgers = [ledger("holder", "loop"), ledger("before", "loop", "loop.gone")]
    found = read_ledgers(ledgers if order == "holder first" else ledgers[::-1])
    assert found.loops == {"/dev/loop0": ("holder", "/store/holder")}
