"""What must not wear out: boots and destroys in a row, builds in a row, zoned killed under load."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from run import Measure

from pipeline.oci import Descriptor

if TYPE_CHECKING:
    from bench_zone import World

FULL_BOOTS, BUILDS = 50, 200
KILLS, ZONES_UNDER_LOAD = 100, 5
BACK_TIMEOUT_S = 300.0
PAUSE_S = 0.5  # between one client's requests: five that hardly pause leave a lab's zoned no processor to start on
# What dom0 shows where zoned stays away: its log, who runs, and what each of its threads waits for.
LOOK_AT_ZONED = """tail -n 60 /run/zonewright/zoned.log; top -b -n 1 | head -n 30; dmesg | tail -n 20
for pid in $(pgrep -f runtime.host.zoned); do grep -H . /proc/$pid/task/*/wchan /proc/$pid/task/*/stack; done"""
BUILD_MANY = "cd /opt/zonewright; python3 /tmp/many.py {count}"
# Runs in dom0: builds a domain, destroys it, again and again; then what is left against what there was.
MANY = """
import json, sys, uuid
from runtime.boot import build, doors, elf, plan, xenstore
from runtime.boot.model import DomainSpec, FileRange, Vif
spec = json.load(open("/tmp/many.json"))
kernel, ramdisk = FileRange(*spec["kernel"]), (FileRange(*spec["ramdisk"]),)
hypervisor, store = doors.open_doors(), xenstore.XenStore()
info = elf.read_kernel(kernel)
def left():
    return [len(list(hypervisor.domains())), len(store.children("/local/domain")), hypervisor.free_pages()]
def one():
    wanted = DomainSpec("soak", str(uuid.uuid4()), kernel, ramdisk, memory_mib=128, vif=Vif("02:00:00:00:00:01"))
    with build.build_domain(plan.plan_domain(wanted, info), hypervisor, store, lambda *a, **k: None,
                            console_log=__import__("pathlib").Path("/tmp/many.log")):
        pass
one()
before = left()
for _ in range(int(sys.argv[1])):
    one()
print(json.dumps([before, left()]))
"""


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
    """Domains built and destroyed in a row, without booting; free memory exact to the page afterwards."""
    bundle = here.base
    spec = {"kernel": _in_dom0(here, bundle.kernel), "ramdisk": _in_dom0(here, bundle.initrd[0])}
    here.host.lab.shell("cat >/tmp/many.json", input=json.dumps(spec))
    here.host.lab.shell("cat >/tmp/many.py", input=MANY)
    code, said = here.host.lab.shell(BUILD_MANY.format(count=BUILDS), timeout_s=1800)
    if code:
        return Measure("boots_build", None, "builds", said[-300:])
    before, after = json.loads(said.strip().splitlines()[-1])
    return Measure("boots_build", BUILDS if before == after else 0, "builds", "" if before == after else said)


def kills(here: World) -> list[Measure]:
    """zoned killed under load, again and again, with zones that serve; how many kills they all survived."""
    from bench_zone import free_port, get

    ports = [free_port() for _ in range(ZONES_UNDER_LOAD)]
    for number, port in enumerate(ports):
        here.boot(here.bundle(f"loaded{number}", port, 128))
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
    for _ in range(KILLS):
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
        unharmed += 1
    stop.set()
    for thread in threads:
        thread.join(60)
    found = list[str]()
    if not why:  # else zoned may be down, and what went wrong is said already
        found = here.findings()
        for number in range(ZONES_UNDER_LOAD):
            here.remove(f"loaded{number}")
    return [
        Measure("kills_unharmed", unharmed, "kills", why or "; ".join(found)),
        Measure("kills_requests", served[0], "requests"),
        Measure("kills_back", round(sorted(back)[len(back) // 2], 2) if back else None, "s", why),
    ]


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


def _in_dom0(here: World, blob: Descriptor) -> tuple[str, int]:
    """A blob's disk in dom0."""
    serial = here.host.lab.attach(blob)
    find = f'for d in /sys/block/vd*; do [ "$(cat $d/serial)" = {serial} ] && echo /dev/${{d##*/}}; done'
    for _ in range(50):
        path = here.host.lab.shell(find)[1].strip()
        if path:
            return path, blob.size_bytes
        time.sleep(0.2)
    raise SystemExit(f"bench: the disk {serial} did not come up in dom0")
