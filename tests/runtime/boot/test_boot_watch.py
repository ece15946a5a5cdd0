"""Deaths are told once, for the right domain, whether by event or by looking."""

from __future__ import annotations

import queue
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hypervisor import FakeXen
from support.xenstored import FakeXenstored

from runtime.boot import watch
from runtime.boot.doors import Hypervisor
from runtime.boot.model import Domid
from runtime.boot.watch import Deaths
from runtime.boot.xenstore import XenStore


class World:
    def __init__(self, tmp_path: Path) -> None:
        self.xen, self.daemon = FakeXen(), FakeXenstored(tmp_path)
        self.store = XenStore(self.daemon.path, timeout_s=60)
        self.hypervisor = Hypervisor(self.xen)
        self.told: queue.Queue[tuple[int, str]] = queue.Queue()
        self.deaths = Deaths(self.hypervisor, self.store, lambda domid, reason: self.told.put((domid, reason)))

    def domain(self) -> tuple[Domid, str]:
        uuid = str(uuids.uuid4())
        domid = self.hypervisor.create_domain(uuid, max_vcpus=1)
        self.deaths.add(domid, uuid)
        return domid, uuid


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.deaths.close()
    world.store.close()
    world.daemon.close()


def test_shutdown_is_told_once_with_its_reason(world: World) -> None:
    one, _ = world.domain()
    other, _ = world.domain()
    world.xen.domains[one].shutdown = 3
    world.daemon.fire("@releaseDomain")
    assert world.told.get(timeout=60) == (one, "crash")
    world.daemon.fire("@releaseDomain")
    world.xen.domains[other].shutdown = 0
    world.daemon.fire("@releaseDomain")
    assert world.told.get(timeout=60) == (other, "poweroff")
    assert world.told.empty()


def test_domain_that_ended_before_it_was_added_is_told(world: World) -> None:
    world.deaths.add(Domid(9), str(uuids.uuid4()))
    assert world.told.get(timeout=60) == (9, "destroyed")


def test_domid_that_another_domain_got_counts_as_destroyed(world: World) -> None:
    domid, _ = world.domain()
    world.hypervisor.destroy_domain(domid)
    world.xen.next_domid = domid
    world.hypervisor.create_domain(str(uuids.uuid4()), max_vcpus=1)
    world.daemon.fire("@releaseDomain")
    assert world.told.get(timeout=60) == (domid, "destroyed")


def test_discarded_domain_is_not_told(world: World) -> None:
    domid, _ = world.domain()
    other, _ = world.domain()
    world.deaths.discard(domid)
    world.xen.domains[domid].shutdown = 0
    world.xen.domains[other].shutdown = 0
    world.daemon.fire("@releaseDomain")
    assert world.told.get(timeout=60) == (other, "poweroff")
    assert world.told.empty()


def test_deaths_are_seen_without_xenstored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_LOOK_AGAIN_S", 0.05)
    domid, _ = world.domain()
    world.daemon.close()
    world.xen.domains[domid].shutdown = 0
    assert world.told.get(timeout=60) == (domid, "poweroff")
