"""Opening the doors of a machine that is no control domain, and hypercalls that say no."""

from __future__ import annotations

import errno
import struct
from array import array
from pathlib import Path

import pytest
from support.descriptors import descriptors, opened_since
from support.hypervisor import FakeXen

from runtime.boot import doors, grants, privcmd
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import HypervisorFault, NotOnXen
from runtime.boot.model import Domid, GrantRef

UUID = "0f0e0d0c-0b0a-4908-8706-050403020100"


def test_machine_without_xen_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "_CAPABILITIES", tmp_path / "none")
    with pytest.raises(NotOnXen, match="not booted on Xen"):
        doors.open_doors()


def test_guest_of_xen_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "capabilities").write_text("\n")
    monkeypatch.setattr(doors, "_CAPABILITIES", tmp_path / "capabilities")
    with pytest.raises(NotOnXen, match=r"control domain \(dom0\), got a guest"):
        doors.open_doors()


def test_missing_device_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privcmd, "_PRIVCMD", str(tmp_path / "privcmd"))
    with pytest.raises(NotOnXen, match="privcmd: No such file or directory"):
        privcmd.Privcmd()


def test_second_device_missing_closes_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "privcmd").touch()
    monkeypatch.setattr(privcmd, "_PRIVCMD", str(tmp_path / "privcmd"))
    monkeypatch.setattr(privcmd, "_HYPERCALL", str(tmp_path / "hypercall"))
    before = descriptors()
    with pytest.raises(NotOnXen, match="hypercall"):
        privcmd.Privcmd()
    assert not opened_since(before)


def test_hypercall_memory_is_zeroed_memory_of_the_asked_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain file in place of the devices: the mapping is real, the ioctl fails, and nothing stays mapped."""
    for name in ("privcmd", "hypercall"):
        (tmp_path / name).write_bytes(bytes(8192))
        monkeypatch.setattr(privcmd, f"_{name.upper()}", str(tmp_path / name))
    door = privcmd.Privcmd()

    def mapped() -> bool:
        return str(tmp_path) in Path("/proc/self/maps").read_text()

    with door.buffer(5000) as buffer:
        assert len(buffer.view) == 5000
        buffer.view[4999] = 7
        assert mapped()
    assert not mapped()
    assert (tmp_path / "hypercall").read_bytes()[4999] == 7
    with pytest.raises(HypervisorFault, match="mapping test") as caught:
        door.hypercall("mapping test", 36, 0)
    assert caught.value.errno == errno.ENOTTY
    with pytest.raises(HypervisorFault), door.map_foreign(Domid(1), array("Q", [1, 2])):
        pass
    with pytest.raises(HypervisorFault), door.map_grant_table(Domid(1)):
        pass
    assert not mapped()
    door.close()
    door.close()


@pytest.mark.parametrize("domctl", [0x15, 0x17], ids=["4.17 answers with the next domain", "4.20 answers with none"])
def test_a_free_domid_between_domains_hides_none_of_them(domctl: int) -> None:
    hypervisor = Hypervisor(FakeXen(domctl=domctl))
    first = hypervisor.create_domain(UUID, max_vcpus=1)
    second = hypervisor.create_domain(UUID.replace("0f", "1f"), max_vcpus=1)
    hypervisor.destroy_domain(first)
    assert hypervisor.domain_info(first) is None
    assert [info.domid for info in hypervisor.domains()] == [0, second]
    found = hypervisor.find_domain(UUID.replace("0f", "1f"))
    assert found is not None
    assert found.domid == second
    assert hypervisor.find_domain(UUID) is None


def test_destroying_what_is_gone_is_fine() -> None:
    Hypervisor(FakeXen()).destroy_domain(Domid(77))


def test_populate_asks_in_batches_and_stops_at_the_first_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "_POPULATE_BATCH", 4)
    xen = FakeXen(big_blocks=6)
    hypervisor = Hypervisor(xen)
    domid = hypervisor.create_domain(UUID, max_vcpus=1)
    hypervisor.set_max_memory(domid, 1 << 20)
    mfns = hypervisor.populate(domid, array("Q", range(0, 10 * 512, 512)), 9)
    assert len(mfns) == 6
    assert [xen.domains[domid].p2m[512 * i] for i in range(6)] == list(mfns)
    assert xen.calls.count("populate_physmap") == 2


@pytest.fixture
def plain_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> privcmd.Privcmd:
    """A door of plain files: mappings are real, ioctls are not."""
    for name, module in (("privcmd", privcmd), ("hypercall", privcmd), ("gntdev", grants)):
        (tmp_path / name).write_bytes(bytes(4096) + b"granted!" * 1024)
        monkeypatch.setattr(module, f"_{name.upper()}", str(tmp_path / name))
    return privcmd.Privcmd()


def test_a_grant_is_mapped_where_the_driver_says_and_given_back(
    plain_door: privcmd.Privcmd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, bytes]] = []

    def ioctl(descriptor: int, number: int, data: bytearray, mutate: bool) -> int:
        asked.append((number, bytes(data)))
        if number == 0x184700:
            data[8:16] = (4096).to_bytes(8, "little")
        else:
            assert "gntdev" not in Path("/proc/self/maps").read_text(), "unmapped before the place is given back"
        return 0

    monkeypatch.setattr(grants.fcntl, "ioctl", ioctl)
    with plain_door.map_grant(Domid(3), GrantRef(9)) as view:
        assert bytes(view[:8]) == b"granted!"
        view[:4] = b"GRAN"
    assert (tmp_path / "gntdev").read_bytes()[4096:4104] == b"GRANted!"
    assert asked == [
        (0x184700, struct.pack("<IIQII", 1, 0, 0, 3, 9)),
        (0x104701, struct.pack("<QII", 4096, 1, 0)),
    ]
    plain_door.close()


def test_grants_are_mapped_one_after_the_other(plain_door: privcmd.Privcmd, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bytes]] = []

    def ioctl(descriptor: int, number: int, data: bytearray, mutate: bool) -> int:
        asked.append((number, bytes(data)))
        if number == 0x184700:
            data[8:16] = (4096).to_bytes(8, "little")
        return 0

    device = grants.GrantDevice()
    monkeypatch.setattr(grants.fcntl, "ioctl", ioctl)
    with device.map(Domid(3), [GrantRef(9), GrantRef(7)]) as view:
        assert bytes(view) == b"granted!" * 1024
    assert asked == [
        (0x184700, struct.pack("<IIQIIII", 2, 0, 0, 3, 9, 3, 7)),
        (0x104701, struct.pack("<QII", 4096, 2, 0)),
    ]
    device.close()


def test_a_grant_that_is_none_is_told_and_nothing_stays_mapped(plain_door: privcmd.Privcmd) -> None:
    with pytest.raises(HypervisorFault, match="map grant 9 of domain 3"), plain_door.map_grant(Domid(3), GrantRef(9)):
        pass
    assert "gntdev" not in Path("/proc/self/maps").read_text()
    plain_door.close()


def test_without_gntdev_domains_can_be_built_and_the_first_grant_says_why(
    plain_door: privcmd.Privcmd, tmp_path: Path
) -> None:
    (tmp_path / "gntdev").unlink()
    with pytest.raises(NotOnXen, match="gntdev: No such file"), plain_door.map_grant(Domid(3), GrantRef(9)):
        pass
    plain_door.close()
