"""Directories given to a running domain and taken back: the nodes of both halves, and whose tree they are in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hypervisor import FakeXen
from support.xenstored import FakeXenstored

from runtime.boot import ninepfs, nodes, shareplug
from runtime.boot.domain import Domain
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import BadSpec, DomainGone, XenstoreFault
from runtime.boot.model import DomainSpec, FileRange
from runtime.boot.xenstore import XenStore

UUID = "0f0e0d0c-0b0a-4908-8706-050403020100"
BACK, FRONT = "/local/domain/0/backend/9pfs/1/3", "/local/domain/1/device/9pfs/3"
NAMED = {"domid": 1, "uuid": UUID, "number": 3, "tag": "share3"}


class Running:
    """A running domain of the fake Xen, and its records."""

    def __init__(self, where: Path) -> None:
        self.xenstored = FakeXenstored(where)
        hypervisor, store = Hypervisor(FakeXen()), XenStore(self.xenstored.path, timeout_s=60)
        domid = hypervisor.create_domain(UUID, max_vcpus=1)
        store.apply(nodes.plan_domain_nodes(DomainSpec("web", UUID, FileRange("/k", 1)), domid))
        self.records: list[dict[str, Any]] = []
        self.domain = Domain(domid, UUID, "web", hypervisor, store, None, None, ())  # type: ignore[arg-type]

    def record(self, kind: str, **fields: Any) -> None:
        self.records.append({"kind": kind, "there": self.xenstored.value(f"{BACK}/state"), **fields})

    def plug(self) -> None:
        shareplug.plug_share(self.domain, "share3", 3, self.record)

    def unplug(self) -> None:
        shareplug.unplug_share(self.domain, "share3", 3, self.record)

    def left(self) -> list[str]:
        return [path for path in self.xenstored.nodes if ("9pfs" in path and path.endswith("/3")) or "9pfs/1/3" in path]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    yield made
    made.domain.xenstore.close()
    made.xenstored.close()


def test_both_halves_come_and_go_as_one_and_are_recorded_before_and_after(running: Running) -> None:
    commits = running.xenstored.commits
    running.plug()
    assert running.xenstored.commits == commits + 1
    for node in ninepfs.plan_share("share3", 3, running.domain.domid):
        assert node.value is None or running.xenstored.value(node.path) == node.value
    assert running.xenstored.value(f"{FRONT}/tag") == "share3"
    running.unplug()
    assert running.xenstored.commits == commits + 2
    assert running.left() == []
    assert running.records == [{"kind": kind, "there": None, **NAMED} for kind in ("share", "share.gone")]


def test_number_that_is_taken_is_refused_and_its_share_stays(running: Running) -> None:
    running.plug()
    with pytest.raises(BadSpec, match="zone web, share 3: expected a free number"):
        running.plug()
    assert running.xenstored.value(f"{BACK}/state") == "2"
    assert [record["kind"] for record in running.records] == ["share", "share", "share.gone"]


def test_what_the_guest_has_written_in_advance_is_no_offer(running: Running) -> None:
    for name, value in {"version": "1", "num-rings": "1", "ring-ref0": "8", "event-channel-0": "9"}.items():
        running.xenstored.put(f"{FRONT}/{name}", value.encode(), (b"n1",))
    running.plug()
    assert "None rings" in str(ninepfs.offered(running.domain.xenstore.read, FRONT))
    assert running.xenstored.value(f"{FRONT}/state") == "1"


@pytest.mark.parametrize("uuid", [b"", b"another"], ids=["gone", "another's"])
def test_share_of_a_domain_that_has_gone_is_not_made_nor_anothers_removed(running: Running, uuid: bytes) -> None:
    running.plug()
    if uuid:
        running.xenstored.put("/local/domain/1/zone/uuid", uuid)
    else:
        for path in ("/local/domain/1", "/local/domain/0/backend/9pfs/1"):
            running.domain.xenstore.remove(path)
    before = running.xenstored.below("/local")
    running.unplug()
    assert running.xenstored.below("/local") == before
    with pytest.raises(DomainGone, match="zone web: expected it running"):
        shareplug.plug_share(running.domain, "share4", 4, running.record)
    assert running.xenstored.below("/local") == before
    assert [record["kind"] for record in running.records] == ["share", "share.gone"] * 2


def test_xenstored_that_fails_leaves_the_record_of_what_may_be_there(running: Running) -> None:
    running.xenstored.fail_at = len(running.xenstored.requests) + 4
    with pytest.raises(XenstoreFault):
        running.plug()
    assert [record["kind"] for record in running.records] == ["share"]
    running.xenstored.fail_at = None
    running.unplug()
    assert running.left() == []
