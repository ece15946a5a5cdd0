"""Building on the simulated Xen with a real-wire xenstored: what a guest would find, and what is left after faults."""

from __future__ import annotations

import dataclasses
import struct
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hypervisor import GARBAGE, FakeXen
from support.kernels import BASE, INIT_P2M, NOTES, VIRT_BASE, kernel_elf
from support.xenstored import FakeXenstored

from runtime.boot import build, domain, elf, vbd
from runtime.boot import teardown as teardowns
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import BadSpec, NotOnXen, OutOfMemory, TeardownFault
from runtime.boot.model import Disk, DomainSpec, FileRange, Vif
from runtime.boot.plan import DomainPlan, plan_domain
from runtime.boot.teardown import teardown
from runtime.boot.xenstore import XenStore
from runtime.errors import RuntimeFault

UUID = "0f0e0d0c-0b0a-4908-8706-050403020100"


@pytest.fixture
def xenstored(tmp_path: Path) -> Iterator[FakeXenstored]:
    daemon = FakeXenstored(tmp_path)
    yield daemon
    daemon.close()


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DomainPlan:
    monkeypatch.setattr(vbd, "device_number", lambda device: (254, 16))
    (tmp_path / "kernel").write_bytes(kernel_elf())
    (tmp_path / "initrd").write_bytes(b"070701" * 1001)
    kernel = FileRange(str(tmp_path / "kernel"), len(kernel_elf()))
    spec = DomainSpec(
        name="web",
        uuid=UUID,
        kernel=kernel,
        ramdisk=(FileRange(str(tmp_path / "initrd"), 6001),),
        launch_segment=b"launch!",
        memory_mib=64,
        vcpus=2,
        vcpus_max=3,
        disks=(Disk("xvda", "/dev/vdb"), Disk("xvdb", "/dev/vdc")),
        vif=Vif("02:00:00:00:00:01", 1400),
    )
    return plan_domain(spec, elf.read_kernel(kernel))


class Ledger:
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def __call__(self, kind: str, **fields: Any) -> None:
        self.records.append({"kind": kind, **fields})


def build_one(
    plan: DomainPlan, xen: FakeXen, xenstored: FakeXenstored, tmp_path: Path, ledger: Any = None
) -> domain.Domain:
    store = XenStore(xenstored.path, timeout_s=60)
    try:
        return build.build_domain(
            plan, Hypervisor(xen), store, ledger or Ledger(), console_log=tmp_path / "console.log"
        )
    except BaseException:
        store.close()
        raise


def end(built: domain.Domain) -> None:
    built.destroy()
    built.xenstore.close()


@pytest.mark.parametrize("big_blocks", [1 << 30, 7, 0], ids=["2 MiB", "mixed", "4 KiB"])
@pytest.mark.parametrize("memory_mib", [64, 67])
def test_guest_finds_its_memory_as_planned(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path, big_blocks: int, memory_mib: int
) -> None:
    plan = plan_domain(dataclasses.replace(plan.spec, memory_mib=memory_mib), plan.kernel)
    xen = FakeXen(big_blocks=big_blocks)
    built = build_one(plan, xen, xenstored, tmp_path)
    guest, layout = xen.domains[built.domid], plan.layout
    assert xen.refusing_l4 == ""
    assert guest.pinned_l4 == guest.p2m[layout.l4_pfn]
    table = array("Q", xen.guest_bytes(built.domid, layout.p2m.first_pfn, memory_mib * 256 * 8))
    assert list(table) == [guest.p2m[pfn] for pfn in range(memory_mib * 256)]
    for pfn in range(layout.main.nr_pages):
        translated = xen.walk(guest.pinned_l4, VIRT_BASE + pfn * 4096)
        assert translated is not None
        assert translated[0] == guest.p2m[pfn]
        assert translated[1] & 0xFFF == (0x21 if pfn in layout.main_tables else 0x23)
    assert xen.walk(guest.pinned_l4, VIRT_BASE + layout.main.nr_pages * 4096) is None
    for page in range(layout.p2m.nr_pages):
        translated = xen.walk(guest.pinned_l4, INIT_P2M + page * 4096)
        assert translated == (guest.p2m[layout.p2m.first_pfn + page], translated[0] << 12 | 0x23)  # type: ignore[index]
    end(built)
    assert xen.leftovers() == []


def test_kernel_and_initrd_are_whole_and_all_else_is_zero(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path
) -> None:
    xen = FakeXen()
    built = build_one(plan, xen, xenstored, tmp_path)
    layout = plan.layout
    kernel = xen.guest_bytes(built.domid, BASE >> 12, 0x104000)
    assert kernel[:0x3000] == b"\x11" * 0x3000
    assert not any(kernel[0x3000:0x100000])
    assert kernel[0x100000:0x101234] == b"\x22" * 0x1234
    assert not any(kernel[0x101234:])
    initrd = xen.guest_bytes(built.domid, layout.initrd_pfn, 2 * 4096)
    expected = (b"070701" * 1001)[:6001] + bytes(3) + b"launch!"
    assert initrd == expected + bytes(2 * 4096 - len(expected))
    for pfn in (layout.store_pfn, layout.console_pfn, layout.stack_pfn):
        assert not any(xen.guest_page(built.domid, pfn))
    touched = [*range(layout.kernel_pfn, layout.stack_pfn + 1), *range(layout.p2m.first_pfn, layout.end_pfn)]
    assert not any(xen.guest_page(built.domid, pfn) == GARBAGE for pfn in touched), "a page was left as it was found"
    end(built)


def test_start_state_names_the_pages_and_ports(plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path) -> None:
    xen = FakeXen()
    built = build_one(plan, xen, xenstored, tmp_path)
    guest, layout = xen.domains[built.domid], plan.layout
    page = xen.guest_page(built.domid, layout.start_info_pfn)
    store, console = guest.p2m[layout.store_pfn], guest.p2m[layout.console_pfn]
    assert struct.unpack_from("<QI", page, 56) == (store, 1)
    assert struct.unpack_from("<QI", page, 72) == (console, 2)
    assert struct.unpack_from("<Q", page, 40) == (guest.shared_info_mfn << 12,)
    assert xen.pages[guest.shared_info_mfn][:128] == bytes([0, 1, *[0] * 62] * 2)
    assert guest.grants[:16] == struct.pack("<HHIHHI", 1, 0, console, 1, 0, store)
    assert xenstored.introduced == [(built.domid, store, 1)]
    assert struct.unpack_from("<Q", guest.context, 5008) == (guest.p2m[layout.l4_pfn] << 12,)
    assert (guest.max_vcpus, guest.max_kib, guest.address_size, guest.memory_map_bytes) == (3, 64 * 1024 + 2048, 64, 0)
    assert guest.paused
    built.unpause()
    assert not guest.paused
    end(built)


def test_memory_that_may_grow_gets_a_memory_map(plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path) -> None:
    xen = FakeXen()
    plan = plan_domain(dataclasses.replace(plan.spec, memory_max_mib=512), plan.kernel)
    built = build_one(plan, xen, xenstored, tmp_path)
    guest = xen.domains[built.domid]
    assert (guest.memory_map_bytes, guest.max_kib, len(guest.p2m)) == (512 << 20, 64 * 1024 + 2048, 64 * 256)
    end(built)


def test_hypercall_page_is_initialised_where_a_kernel_has_one(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path
) -> None:
    data = kernel_elf(notes=NOTES | {2: struct.pack("<Q", VIRT_BASE + BASE + 0x2000)})
    Path(plan.spec.kernel.path).write_bytes(data)
    kernel = dataclasses.replace(plan.spec.kernel, size_bytes=len(data))
    plan = plan_domain(dataclasses.replace(plan.spec, kernel=kernel), elf.read_kernel(kernel))
    xen = FakeXen()
    built = build_one(plan, xen, xenstored, tmp_path)
    guest = xen.domains[built.domid]
    assert guest.hypercall_page == guest.p2m[(BASE >> 12) + 2]
    end(built)


@pytest.mark.parametrize("domctl", [0x15, 0x16, 0x17, 0x18])
def test_every_interface_version_is_found(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path, domctl: int
) -> None:
    xen = FakeXen(domctl=domctl, sysctl=0x16)
    assert Hypervisor(xen).domctl_version == domctl
    end(build_one(plan, xen, xenstored, tmp_path))


def test_unknown_interface_version_is_refused_in_a_sentence() -> None:
    with pytest.raises(NotOnXen, match="0x15 to 0x18"):
        Hypervisor(FakeXen(domctl=0x40))


def test_nodes_are_owned_by_their_side_and_never_open_to_other_zones(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path
) -> None:
    built = build_one(plan, FakeXen(), xenstored, tmp_path)
    home, backend = "/local/domain/1", "/local/domain/0/backend/vbd/1/51712"
    values = {
        f"{home}/name": "web",
        f"{home}/zone/uuid": UUID,
        f"{home}/cpu/1/availability": "online",
        f"{home}/cpu/2/availability": "offline",
        f"{home}/device/vbd/51712/backend": backend,
        f"{home}/device/vif/0/mtu": "1400",
        f"{backend}/physical-device": "fe:10",
        f"{backend}/mode": "r",
        "/local/domain/0/backend/vbd/1/51728/dev": "xvdb",
        "/local/domain/0/backend/vif/1/0/script": "/bin/true",
        "/local/domain/0/backend/vif/1/0/hotplug-status": None,
    }
    assert {path: xenstored.value(path) for path in values} == values
    perms = {path: xenstored.nodes[path].perms for path in xenstored.below(home)}
    assert perms[home] == perms[f"{home}/zone/control"] == perms[f"{home}/name"] == (b"n0", b"r1")
    assert perms[f"{home}/zone/state"] == perms[f"{home}/data"] == (b"n1",)
    assert perms[f"{home}/device/vbd/51712/state"] == (b"n1", b"r0")
    assert xenstored.nodes[f"{backend}/params"].perms == (b"n0", b"r1")
    assert all(perm[0][:1] == b"n" for perm in perms.values())
    built.connect_vif()
    assert xenstored.value("/local/domain/0/backend/vif/1/0/hotplug-status") == "connected"
    built.request_stop(15, 10)
    assert xenstored.value(f"{home}/zone/control/stop") == "15 10"
    end(built)
    assert xenstored.below(home) == []
    assert xenstored.below("/local/domain/0/backend/vbd/1") == []


def test_zone_state_is_read_and_nonsense_in_it_is_harmless(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path
) -> None:
    built = build_one(plan, FakeXen(), xenstored, tmp_path)
    assert built.state() == domain.ZoneState("", {}, "")
    base = "/local/domain/1/zone/state/"
    xenstored.put(base + "phase", b"workload")
    xenstored.put(base + "timings", b"init=0.12 root=0.5 x=nan =3 y=1e999 z net=-1")
    xenstored.put(base + "exit", b"code 3")
    assert built.state() == domain.ZoneState("workload", {"init": 0.12, "root": 0.5}, "code 3")
    xenstored.put(base + "phase", b"\x1b[31m\xff\n" + b"x" * 4000)
    text = built.state().phase
    assert text.isprintable()
    assert len(text) <= 1024
    end(built)


def test_stale_nodes_of_an_earlier_domain_are_gone(plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path) -> None:
    xenstored.put("/local/domain/1/device/vbd/7/state", b"4")
    xenstored.put("/local/domain/0/backend/vif/1/9/state", b"4")
    built = build_one(plan, FakeXen(), xenstored, tmp_path)
    assert xenstored.value("/local/domain/1/device/vbd/7/state") is None
    assert xenstored.below("/local/domain/0/backend/vif/1/9") == []
    end(built)


def test_too_little_memory_in_xen_is_refused_before_anything_is_made(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path
) -> None:
    xen, ledger = FakeXen(total_pages=64 * 256), Ledger()
    with pytest.raises(OutOfMemory, match=r"expected 66 MiB of free memory in Xen, got 64 MiB"):
        build_one(plan, xen, xenstored, tmp_path, ledger)
    assert ledger.records == []
    assert xen.leftovers() == []


def test_file_shorter_than_its_range_is_refused_and_undone(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path
) -> None:
    (tmp_path / "initrd").write_bytes(b"x" * 6000)
    xen = FakeXen()
    with pytest.raises(BadSpec, match="expected 6001 bytes, got 6000"):
        build_one(plan, xen, xenstored, tmp_path)
    assert xen.leftovers() == []
    assert xenstored.below("/local/domain/1") == []


def test_every_door_call_may_fail_and_nothing_is_left(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path
) -> None:
    """The n-th call through the door fails, for every n of a build."""
    counting = FakeXen()
    opening = FakeXen()
    Hypervisor(opening)
    built = build_one(plan, counting, xenstored, tmp_path)
    points = len(counting.calls)
    end(built)
    assert points > len(opening.calls) + 20
    for number in range(len(opening.calls) + 1, points + 1):
        xen = FakeXen()
        xen.fail_at = number
        with pytest.raises(RuntimeFault) as caught:
            build_one(plan, xen, xenstored, tmp_path)
        assert xen.leftovers() == [], f"call {number}, {xen.calls[number - 1]}"
        assert not getattr(caught.value, "__notes__", [])
        assert xenstored.below("/local/domain/1") == []
        assert xenstored.below("/local/domain/0/backend/vbd/1") == []


def test_every_xenstore_request_may_fail_and_nothing_is_left(plan: DomainPlan, tmp_path: Path) -> None:
    def one(number: int | None, where: Path) -> tuple[FakeXenstored, FakeXen, RuntimeFault | None]:
        where.mkdir()
        daemon, xen = FakeXenstored(where), FakeXen()
        daemon.fail_at = number
        try:
            built = build_one(plan, xen, daemon, tmp_path)
            count = len(daemon.requests)
            end(built)
            daemon.requests = daemon.requests[:count]
            return daemon, xen, None
        except RuntimeFault as fault:
            return daemon, xen, fault
        finally:
            daemon.close()

    daemon, _, _ = one(None, tmp_path / "all")
    points = len(daemon.requests)
    assert points > 60
    for number in range(1, points + 1):
        daemon, xen, fault = one(number, tmp_path / str(number))
        assert fault is not None, f"request {number}, {daemon.requests[number - 1]}, failed unseen"
        assert xen.leftovers() == []
        assert daemon.below("/local/domain/1") == []
        assert daemon.below("/local/domain/0/backend/vif/1") == []


@pytest.mark.parametrize("kind", ["domain", "xenstore", "console", "channel"])
def test_ledger_that_cannot_be_written_stops_the_build_and_nothing_is_left(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path, kind: str
) -> None:
    def record(written: str, **_: Any) -> None:
        if written == kind:
            raise OSError(28, "No space left on device")

    xen = FakeXen()
    with pytest.raises(OSError, match="No space"):
        build_one(plan, xen, xenstored, tmp_path, record)
    assert xen.leftovers() == []
    assert xenstored.below("/local/domain/1") == []


def test_interrupt_undoes_the_build(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build.pagetable, "plan_tables", interrupted)
    xen = FakeXen()
    with pytest.raises(KeyboardInterrupt):
        build_one(plan, xen, xenstored, tmp_path)
    assert xen.leftovers() == []


def test_records_precede_what_they_name(plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path) -> None:
    xen = FakeXen()
    seen: list[tuple[str, int, int]] = []

    def record(kind: str, **_: Any) -> None:
        seen.append((kind, len(xen.domains), xenstored.commits + len(xen.channels)))

    end(build_one(plan, xen, xenstored, tmp_path, record))
    assert seen == [("domain", 1, 0), ("xenstore", 2, 0), ("console", 2, 1), ("channel", 2, 2)]


def test_teardown_from_records_alone_and_twice(plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path) -> None:
    """The process that built the zone was killed: its mappings went with it, a later process has the records."""
    xen, ledger = FakeXen(), Ledger()
    built = build_one(plan, xen, xenstored, tmp_path, ledger)
    built.console.close()
    with XenStore(xenstored.path) as store:
        for _ in range(2):
            teardown(ledger.records, Hypervisor(xen), store)
            assert xen.leftovers() == []
            assert xenstored.below("/local/domain/1") == []
    built.xenstore.close()


def test_teardown_spares_another_domain_that_got_the_domid(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path
) -> None:
    xen, old = FakeXen(), Ledger()
    end(build_one(plan, xen, xenstored, tmp_path, old))
    xen.next_domid = 1
    newer = plan_domain(dataclasses.replace(plan.spec, uuid=UUID.replace("0f", "1f")), plan.kernel)
    built = build_one(newer, xen, xenstored, tmp_path)
    before = xenstored.below("/local")
    teardown(old.records, Hypervisor(xen), built.xenstore)
    assert xenstored.below("/local") == before
    assert 1 in xen.domains
    end(built)


def test_domain_that_stays_dying_is_told_with_its_pages(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path
) -> None:
    xen = FakeXen()
    built = build_one(plan, xen, xenstored, tmp_path)
    xen.lingering.add(built.domid)
    with pytest.raises(TeardownFault, match="still dying, 16384 pages") as caught:
        built.destroy(timeout_s=0.01)
    assert caught.value.temporary
    xen.lingering.clear()
    xen.release(built.domid)
    end(built)
    assert xen.leftovers() == []


def test_back_end_that_stays_is_told_by_name(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = tmp_path / "devices"
    for name in ("vif-1-0", "vif-11-0", "vbd-2-51712"):
        (devices / name).mkdir(parents=True)
    monkeypatch.setattr(teardowns, "_BACKENDS", devices)
    xen = FakeXen()
    built = build_one(plan, xen, xenstored, tmp_path)
    with pytest.raises(TeardownFault, match="its back ends vif-1-0 stay") as caught:
        built.destroy(timeout_s=0.01)
    assert caught.value.temporary
    threading.Timer(0.1, (devices / "vif-1-0").rmdir).start()
    end(built)
    assert not (devices / "vif-1-0").exists()


def test_nodes_that_a_driver_writes_once_more_are_taken_away_with_its_device(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As netback does whose probe comes after the trees have gone; the kernel keeps the device until its node goes."""
    root, error = "/local/domain/0/backend/vif/1", "/local/domain/0/error/backend/vif/1"
    device = tmp_path / "devices" / "vif-1-0"
    device.mkdir(parents=True)
    xen = FakeXen()
    built = build_one(plan, xen, xenstored, tmp_path)
    probed = []

    def look(directory: Path) -> list[str]:
        if not xenstored.below(root) and not probed:
            probed.append(True)
            xenstored.put(f"{root}/0/feature-sg", b"1")
            xenstored.put(f"{error}/0/error", b"2 reading handle")
        elif not xenstored.below(root) and device.exists():
            device.rmdir()
        return sorted(path.name for path in directory.iterdir()) if directory == device.parent else []

    monkeypatch.setattr(teardowns, "_BACKENDS", device.parent)
    monkeypatch.setattr(teardowns, "_names", look)
    end(built)
    assert probed
    assert not device.exists()
    assert xenstored.below(root) + xenstored.below(error) == []


def test_running_domain_is_adopted_from_its_records(plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path) -> None:
    xen, ledger = FakeXen(), Ledger()
    built = build_one(plan, xen, xenstored, tmp_path, ledger)
    built.console.close()
    adopted = domain.adopt(ledger.records, Hypervisor(xen), built.xenstore)
    assert adopted is not None
    assert (adopted.domid, adopted.name, adopted.vif_name) == (built.domid, "web", "vif1.0")
    assert adopted.channel is not None
    end(adopted)
    assert xen.leftovers() == []
    assert domain.adopt(ledger.records, Hypervisor(xen), built.xenstore) is None
    recreate(xen)
    for unfinished in (ledger.records[:1], ledger.records[:3]):
        with pytest.raises(TeardownFault, match="not finished"):
            domain.adopt(unfinished, Hypervisor(xen), built.xenstore)


def test_a_domain_without_an_agent_channel_has_no_nodes_of_one(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path
) -> None:
    plan = plan_domain(dataclasses.replace(plan.spec, agent_channel=False), plan.kernel)
    xen, ledger = FakeXen(), Ledger()
    built = build_one(plan, xen, xenstored, tmp_path, ledger)
    assert built.channel is None
    assert [record["kind"] for record in ledger.records] == ["domain", "xenstore", "console"]
    assert not [path for path in xenstored.below("/local/domain") if "console" in path]
    built.console.close()
    adopted = domain.adopt(ledger.records, Hypervisor(xen), built.xenstore)
    assert adopted is not None
    assert adopted.channel is None
    end(adopted)


def recreate(xen: FakeXen) -> None:
    """A domain of that uuid exists, but nothing else was done."""
    Hypervisor(xen).create_domain(UUID, max_vcpus=1)


@pytest.mark.parametrize(
    ("code", "reason"), [(0, "poweroff"), (1, "reboot"), (3, "crash"), (4, "watchdog"), (77, "reason 77")]
)
def test_shutdown_reason_is_told(
    plan: DomainPlan, xenstored: FakeXenstored, tmp_path: Path, code: int, reason: str
) -> None:
    xen = FakeXen()
    built = build_one(plan, xen, xenstored, tmp_path)
    assert built.shutdown_state() is None
    xen.domains[built.domid].shutdown = code
    state = built.shutdown_state()
    assert state is not None
    assert state.reason == reason
    end(built)
    state = built.shutdown_state()
    assert state is not None
    assert state.reason == "destroyed"
