"""What outlives what: a new domain under an old domid, a host that was rebooted, a xenstored that was restarted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.checking import UUID, number_disks, small_plan
from support.hypervisor import FakeXen
from support.xenstored import FakeXenstored

from runtime.boot import build, hotplug, resize
from runtime.boot.domain import Domain, adopt
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import DomainGone, XenstoreFault
from runtime.boot.model import Disk
from runtime.boot.plan import plan_domain
from runtime.boot.teardown import teardown
from runtime.boot.xenstore import XenStore

OTHER = "1" + UUID[1:]


class Host:
    """Xen, xenstored and a zone; parts of it go and come back."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.xen, self.xenstored = FakeXen(), FakeXenstored(directory)
        self.store = XenStore(self.xenstored.path, timeout_s=60)
        self.records: list[dict[str, Any]] = []
        self.plan = small_plan(directory)

    def record(self, kind: str, **fields: Any) -> None:
        self.records.append({"kind": kind, **fields})

    def build(self, uuid: str = UUID) -> Domain:
        plan = plan_domain(dataclasses.replace(self.plan.spec, uuid=uuid), self.plan.kernel)
        log = self.directory / f"{uuid}.log"
        return build.build_domain(plan, Hypervisor(self.xen), self.store, self.record, console_log=log)

    def reboot(self) -> None:
        """Nothing is left of any domain; domids begin anew. The records are those of before."""
        self.store.close()
        self.xenstored.close()
        Path(self.xenstored.path).unlink()
        self.xen = FakeXen()
        self.xenstored = FakeXenstored(self.directory)
        self.store = XenStore(self.xenstored.path, timeout_s=60)

    def restart_xenstored(self) -> None:
        """With the tree it had, as a live update or oxenstored would; connections, watches and transactions go."""
        nodes = self.xenstored.nodes
        self.xenstored.close()
        Path(self.xenstored.path).unlink()
        self.xenstored = FakeXenstored(self.directory)
        self.xenstored.nodes = nodes

    def close(self) -> None:
        self.store.close()
        self.xenstored.close()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    number_disks(monkeypatch)
    made = Host(tmp_path)
    yield made
    made.close()


def test_domain_that_got_the_domid_of_another_is_not_touched_by_the_old_ones_handle(host: Host) -> None:
    old = host.build()
    old.console.close()
    old.hypervisor.destroy_domain(old.domid)  # destroyed by somebody else, and the domid wrapped round
    host.xen.next_domid = old.domid
    newer = host.build(OTHER)
    assert newer.domid == old.domid
    before = dict(host.xenstored.nodes)
    for act in (
        lambda: resize.set_memory(old.hypervisor, old.xenstore, old.domid, old.uuid, 32, least_mib=16),
        lambda: resize.set_vcpus(old.hypervisor, old.xenstore, old.domid, old.uuid, 1),
        lambda: hotplug.plug_disk(old, Disk("xvdc", "/dev/loop7"), host.record, timeout_s=60),
    ):
        with pytest.raises(DomainGone):
            act()
    end = old.shutdown_state()
    assert end is not None and end.reason == "destroyed"
    teardown([record for record in host.records if record.get("uuid") == UUID], old.hypervisor, host.store)
    assert host.xenstored.nodes == before
    assert newer.domid in host.xen.domains
    newer.destroy()
    assert host.xen.leftovers() == []


def test_records_of_before_a_reboot_find_nothing_and_harm_nothing(host: Host) -> None:
    host.build().console.close()
    old = list(host.records)
    host.reboot()
    newer = host.build(OTHER)
    before = dict(host.xenstored.nodes)
    assert adopt(old, Hypervisor(host.xen), host.store) is None
    teardown(old, Hypervisor(host.xen), host.store)
    assert host.xenstored.nodes == before
    newer.destroy()
    assert host.xen.leftovers() == []


def test_xenstored_that_restarts_in_the_middle_of_a_change_leaves_all_or_nothing(host: Host) -> None:
    built = host.build()
    before = dict(host.xenstored.nodes)

    def body(transaction: Any) -> None:
        transaction.write("/local/domain/1/memory/target", "1")
        transaction.finish()
        host.restart_xenstored()
        transaction.write("/local/domain/1/memory/target", "2")

    with pytest.raises(XenstoreFault, match="went away"):
        host.store.transaction(body)
    assert host.xenstored.nodes == before
    built.console.close()


def test_zone_is_adopted_and_ended_over_a_new_connection_after_a_restart_of_xenstored(host: Host) -> None:
    built = host.build()
    watch = built.watch_state()
    assert watch.wait(60)
    host.restart_xenstored()
    with pytest.raises(XenstoreFault):
        watch.wait(60)
    with pytest.raises(XenstoreFault):
        built.state()
    built.console.close()
    host.store.close()
    host.store = XenStore(host.xenstored.path, timeout_s=60)
    adopted = adopt(host.records, Hypervisor(host.xen), host.store)
    assert adopted is not None
    with adopted.watch_state() as news:
        assert news.wait(60)
        host.xenstored.put("/local/domain/1/zone/state/phase", b"workload")
        assert news.wait(60)
    assert adopted.state().phase == "workload"
    asked = resize.set_memory(adopted.hypervisor, adopted.xenstore, adopted.domid, adopted.uuid, 48, least_mib=16)
    assert asked.memory_mib == 48
    adopted.destroy()
    assert host.xen.leftovers() == []
    assert host.xenstored.below("/local/domain/1") == []
