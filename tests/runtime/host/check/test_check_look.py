"""The whole check on a host of one zone: nothing to say; leaks planted for real are found, and gone when taken away."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.checking import UUID, CheckedHost, checked_host, end_orphan, orphan, small_plan
from support.networld import HOST4, VIF, World

from pipeline.bundle.model import Port
from runtime.boot.abi import hypercall, rings
from runtime.host import loops
from runtime.host.check import compare, compare_host
from runtime.host.check.look_host import IMAGE_TASK
from runtime.host.loops import LoopDevice
from runtime.net import netns
from runtime.net.sockets import bind_udp
from runtime.net.strays import ENTRY, KEEPER_ENTRY

pytestmark = pytest.mark.root


@pytest.fixture
def host(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CheckedHost]:
    """One zone: a domain on the fakes, its network and a loop device in this kernel, all in one ledger."""
    if not os.path.exists(loops.CONTROL):
        pytest.skip("needs loop devices")
    with checked_host(tmp_path, f"t{os.getpid()}", monkeypatch) as made:
        ledger = made.ledgers.create("web")
        (made.store / "image").write_bytes(bytes(1 << 20))
        loop = LoopDevice(made.store / "image", ledger.record)
        monkeypatch.setattr(world, "directory", made.directory)
        world.network = world.new_network()
        world.network._record = ledger.record
        network = world.up()
        world.on_host(lambda: network.publish([Port(HOST4, 0, 80), Port(HOST4, 0, 53, "udp")]))
        made.xen.next_domid = 7  # as the name of the world's vif has it
        built = made.build(ledger, small_plan(tmp_path, vif=False))
        yield made
        built.let_go()
        loop.close()


def check(world: World, host: CheckedHost) -> list[str]:
    return [str(finding) for finding in world.on_host(host.check).findings]


def test_zone_that_runs_leaves_nothing_to_say(world: World, host: CheckedHost) -> None:
    report = world.on_host(host.check)
    assert report.findings == ()
    assert report.unseen == ()
    nothing = {kind for kind, count in report.looked_at.items() if not count}
    assert nothing == {"grants", "cgroups", "event channels"}, "no dying domain, no cgroup; dom0's ports are the fake's"
    assert "0 findings" in str(report)


Undo = Callable[[], Any]


def plant_domain(world: World, host: CheckedHost) -> Undo:
    domid = host.hypervisor().create_domain("1" + UUID[1:], max_vcpus=1)
    return lambda: host.xen.domains.pop(domid)


def plant_dying(world: World, host: CheckedHost) -> Undo:
    domid = host.hypervisor().create_domain("1" + UUID[1:], max_vcpus=1)
    host.xen.lingering.add(domid)
    host.hypervisor().destroy_domain(domid)
    return lambda: (host.xen.lingering.clear(), host.xen.release(domid))


def plant_grant(world: World, host: CheckedHost) -> Undo:
    """A page that a process still has mapped: it keeps the domain it belongs to from going."""
    domid = host.hypervisor().create_domain("1" + UUID[1:], max_vcpus=1)
    entry = struct.pack("<HHI", rings.GTF_PERMIT_ACCESS | rings.GTF_IN_USE, 0, 1)
    host.xen.domains[domid].grants[8 * 9 : 8 * 10] = entry
    host.xen.lingering.add(domid)
    host.hypervisor().destroy_domain(domid)
    return lambda: (host.xen.lingering.clear(), host.xen.release(domid))


def plant_tree(world: World, host: CheckedHost) -> Undo:
    host.xenstore.write("/local/domain/12/name", "old")
    return lambda: host.xenstore.remove("/local/domain/12")


def plant_backend(world: World, host: CheckedHost) -> Undo:
    host.xenstore.write("/local/domain/0/backend/vif/12/0/state", "6")
    return lambda: host.xenstore.remove("/local/domain/0/backend/vif/12")


def plant_disk(world: World, host: CheckedHost) -> Undo:
    host.xenstore.write("/local/domain/0/backend/vbd/7/51760/state", "4")
    host.xenstore.write("/local/domain/7/device/vbd/51760/state", "4")
    return lambda: (
        host.xenstore.remove("/local/domain/0/backend/vbd/7/51760"),
        host.xenstore.remove("/local/domain/7/device/vbd/51760"),
    )


def plant_error(world: World, host: CheckedHost) -> Undo:
    host.xenstore.write("/local/domain/0/error/backend/vif/12/0/error", "2 reading script")
    return lambda: host.xenstore.remove("/local/domain/0/error/backend/vif/12")


def plant_device(world: World, host: CheckedHost) -> Undo:
    (host.devices / "vif-12-0").mkdir()
    return (host.devices / "vif-12-0").rmdir


def plant_channel(world: World, host: CheckedHost) -> Undo:
    host.xen.ports[4] = (hypercall.EVTCHNSTAT_UNBOUND, 12, 0)
    return host.xen.ports.clear


def plant_loop(world: World, host: CheckedHost) -> Undo:
    (host.store / "old").write_bytes(bytes(4096))
    return LoopDevice(host.store / "old", lambda kind, **fields: None).close


def plant_netns(world: World, host: CheckedHost) -> Undo:
    name = f"zw-{host.mine}-old"
    netns.create(name)
    return lambda: netns.delete(name)


def plant_name_of_netns(world: World, host: CheckedHost) -> Undo:
    path = netns.path_of(f"zw-{host.mine}-half")
    path.touch()
    return path.unlink


def plant_vif(world: World, host: CheckedHost) -> Undo:
    world.ip(world.host, "link add vif12.0 type veth peer name other")
    host.mine = "vif12.0"
    return lambda: world.ip(world.host, "link del vif12.0")


def plant_vif_inside(world: World, host: CheckedHost) -> Undo:
    world.ip(world.network.netns, "link add vif12.0 type veth peer name other")
    return lambda: world.ip(world.network.netns, "link del vif12.0")


def plant_engine(world: World, host: CheckedHost, entry: str = ENTRY) -> Undo:
    code = f"import time; time.sleep(600)  # {entry}"
    child = subprocess.Popen([sys.executable, "-c", code])
    host.mine = str(child.pid)
    return lambda: (child.kill(), child.wait())


def plant_image_task(world: World, host: CheckedHost) -> Undo:
    """One that did not notice its zoned's end."""
    pid = orphan(IMAGE_TASK)
    host.mine = str(pid)
    return lambda: end_orphan(pid)


def plant_keeper(world: World, host: CheckedHost) -> Undo:
    return plant_engine(world, host, KEEPER_ENTRY)


def plant_zombie(world: World, host: CheckedHost) -> Undo:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    host.mine = str(pid)
    return lambda: os.waitpid(pid, 0)


def plant_port(world: World, host: CheckedHost) -> Undo:
    listener = world.on_host(lambda: socket.create_server((HOST4, 0)))
    address, port = listener.getsockname()
    engine = world.network.engine
    assert engine is not None
    engine.publish(world.network.name, listener, f"{address}:{port}", 80)
    listener.close()
    return lambda: engine.unpublish(world.network.name, f"{address}:{port}")


def plant_udp_port(world: World, host: CheckedHost) -> Undo:
    listener = world.on_host(lambda: bind_udp(HOST4, 0))
    address, port = listener.getsockname()
    engine = world.network.engine
    assert engine is not None
    engine.publish(world.network.name, listener, f"{address}:{port}/udp", 53)
    listener.close()
    return lambda: engine.unpublish(world.network.name, f"{address}:{port}/udp")


def plant_mount(world: World, host: CheckedHost) -> Undo:
    (host.run / world.network.name / "mounted").mkdir()
    path = str(host.run / world.network.name / "mounted")
    netns.mount("tmpfs", Path(path), "tmpfs", 0)
    return lambda: (netns.call("umount2", path.encode(), 0), os.rmdir(path))


def plant_cgroup(world: World, host: CheckedHost) -> Undo:
    (host.cgroups / "old").mkdir()
    return (host.cgroups / "old").rmdir


def plant_file(world: World, host: CheckedHost) -> Undo:
    (host.run / "old").mkdir()
    (host.run / "old" / "log").touch()
    return lambda: ((host.run / "old" / "log").unlink(), (host.run / "old").rmdir())


def plant_ledger(world: World, host: CheckedHost) -> Undo:
    (host.ledgers.root / "old.jsonl").mkdir()
    return (host.ledgers.root / "old.jsonl").rmdir


PLANTS = {
    plant_domain: "domain",
    plant_dying: "domain",
    plant_tree: "xenstore",
    plant_backend: "xenstore",
    plant_disk: "xenstore",
    plant_error: "xenstore",
    plant_device: "device",
    plant_channel: "event channel",
    plant_grant: "grant",
    plant_loop: "loop",
    plant_netns: "netns",
    plant_name_of_netns: "netns",
    plant_vif: "vif",
    plant_vif_inside: "vif",
    plant_engine: "process",
    plant_image_task: "process",
    plant_keeper: "process",
    plant_zombie: "process",
    plant_port: "port",
    plant_udp_port: "port",
    plant_mount: "mount",
    plant_cgroup: "cgroup",
    plant_file: "file",
    plant_ledger: "ledger",
}
# A domain that is held by a mapping shows as well, and so does a namespace's mount.
MORE = {plant_grant: {"domain"}, plant_netns: {"mount"}, plant_name_of_netns: {"mount"}}


def test_every_kind_that_a_check_tells_is_planted() -> None:
    sources = [Path(module.__file__).read_text() for module in (compare, compare_host)]
    told = {kind for source in sources for kind in re.findall(r'Finding\(\s*"([^"]+)"', source)}
    assert told == set(PLANTS.values())


@pytest.mark.parametrize(("plant", "kind"), PLANTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_planted_leak_is_found_and_when_it_is_gone_no_more(
    world: World, host: CheckedHost, plant: Callable[[World, CheckedHost], Undo], kind: str
) -> None:
    undo = plant(world, host)
    try:
        found = world.on_host(host.check).findings
        kinds = {finding.kind for finding in found}
        assert kind in kinds
        assert kinds <= {kind, *MORE.get(plant, ())}, [str(finding) for finding in found]
        assert all(finding.problem for finding in found)
    finally:
        undo()
    assert check(world, host) == []


def lose_domain(world: World, host: CheckedHost) -> None:
    del host.xen.domains[7]


def lose_tree(world: World, host: CheckedHost) -> None:
    host.xenstore.remove("/local/domain/7")


def lose_disk(world: World, host: CheckedHost) -> None:
    host.xenstore.remove("/local/domain/0/backend/vbd/7/51712")


def lose_engine(world: World, host: CheckedHost) -> None:
    engine = world.network.engine
    assert engine is not None
    host.mine = str(engine.pid)
    os.kill(engine.pid, signal.SIGKILL)
    world.wait_until(lambda: not world.network.alive())


def lose_vif(world: World, host: CheckedHost) -> None:
    world.ip(world.network.netns, f"link del {VIF}")


def lose_directory(world: World, host: CheckedHost) -> None:
    os.rename(host.run / world.network.name, host.directory / "elsewhere")


@pytest.mark.parametrize(
    ("lose", "kind"),
    [
        (lose_domain, "domain"),
        (lose_tree, "xenstore"),
        (lose_disk, "xenstore"),
        (lose_engine, "process"),
        (lose_vif, "vif"),
        (lose_directory, "file"),
    ],
)
def test_what_is_lost_is_missed(
    world: World, host: CheckedHost, lose: Callable[[World, CheckedHost], None], kind: str
) -> None:
    lose(world, host)
    found = world.on_host(host.check).findings
    assert [finding for finding in found if finding.kind == kind and "gone" in finding.problem]


def test_difference_that_passes_while_it_is_looked_at_is_no_finding(world: World, host: CheckedHost) -> None:
    """A zone that is booted meanwhile: its domain is there before the check has read its ledger."""
    undo = plant_domain(world, host)
    plain, looks = host.ledgers.all, []

    def reading() -> Any:
        looks.append(1)
        if len(looks) == 2:
            undo()
        return plain()

    host.ledgers.all = reading  # type: ignore[method-assign]
    assert world.on_host(host.check).findings == ()
    assert len(looks) == 4, "looked at twice, as the first time there was a difference"
