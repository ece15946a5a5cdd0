"""zoned's methods over a host whose domains and networks only note what is done to them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from runtime.host.service import BootCancelled, Service, UnknownZone, ZoneBusy

from pipeline.bundle.model import Bundle, Process
from pipeline.jsonmodel import to_json
from pipeline.oci import Descriptor, Digest
from runtime.boot.model import ZoneState as GuestState
from runtime.errors import RuntimeFault
from runtime.host import service as service_module


def blob(text: bytes) -> Descriptor:
    return Descriptor("x", Digest.of(text), len(text))


def request(name: str = "web") -> dict[str, Any]:
    bundle = Bundle(
        name=name,
        kernel=blob(b"k"),
        kernel_release="6",
        initrd=(blob(b"i"),),
        modules=(),
        rootfs=blob(b"r"),
        process=Process(("/x",), (), stop_timeout_s=0),
    )
    return {"bundle": to_json(bundle), "sources": {}, "listen": []}


class Call:
    """Somebody who waits for an answer."""

    gone = False

    def __call__(self, **event: Any) -> bool:
        return True


class FakeDomain:
    """A domain that powers off when it is asked to stop."""

    domid, uuid, timings, vif_name = 7, "u", {}, "vif7.0"

    def __init__(self, world: World) -> None:
        self.world = world
        self.guest = GuestState(phase="workload", timings={"workload": 1.0})

    def wait_vif(self) -> str:
        return self.vif_name

    def connect_vif(self) -> None: ...

    def unpause(self) -> None:
        self.world.did.append("unpause")
        if self.world.dies_at_once:
            self.guest = GuestState(phase="exited", exit="code 3")
            self.world.service._died(self.domid, "poweroff")

    def state(self) -> GuestState:
        return self.guest

    def request_stop(self, signal: int, timeout_s: float) -> None:
        self.guest = GuestState(phase="exited", exit="code 0")
        self.world.service._died(self.domid, "poweroff")

    def destroy(self) -> None:
        self.world.did.append("domain destroyed")


class FakeNetwork:
    """A network that may fail to be made."""

    def __init__(self, world: World) -> None:
        self.world = world

    def create(self) -> None:
        if self.world.network_fails:
            raise RuntimeFault("network", got="no")
        self.world.did.append("network")

    def listen(self, ports: Any) -> tuple[tuple[str, int], ...]:
        return ()

    def serve(self) -> None:
        self.world.did.append("serves")

    def attach(self, vif: str) -> None:
        self.world.did.append(f"attached {vif}")

    def destroy(self) -> None:
        self.world.did.append("network destroyed")


class World:
    """What the fakes share."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.network_fails = self.dies_at_once = False
        self.build_waits: threading.Event | None = None
        self.building = threading.Event()
        self.torn_down: list[list[dict[str, Any]]] = []
        self.service: Service = None  # type: ignore[assignment]


@pytest.fixture
def world(tmp_path, monkeypatch) -> World:
    world = World()

    def build(plan: Any, hypervisor: Any, xenstore: Any, record: Any, *, console_log: Any) -> FakeDomain:
        record("domain", name="web", uuid="u")
        world.building.set()
        if world.build_waits is not None:
            world.build_waits.wait(10)
        world.did.append("built")
        return FakeDomain(world)

    class Deaths:
        def __init__(self, *_: Any) -> None: ...
        def add(self, *_: Any) -> None: ...
        def discard(self, *_: Any) -> None: ...

    monkeypatch.setattr(service_module, "build_domain", build)
    monkeypatch.setattr(service_module, "ZoneNetwork", lambda *_, **__: FakeNetwork(world))
    monkeypatch.setattr(service_module, "Deaths", Deaths)
    monkeypatch.setattr(service_module, "teardown_domain", lambda records, *_: world.torn_down.append(records))
    monkeypatch.setattr(service_module, "teardown_network", lambda records: None)
    monkeypatch.setattr(service_module.Zone, "plan", lambda self, sources: "the plan")
    world.service = Service(tmp_path, None, None)  # type: ignore[arg-type]
    world.service.start()
    return world


def listed(world: World) -> list[tuple[str, str]]:
    return [(zone["name"], zone["state"]) for zone in world.service.list_zones({}, Call())["zones"]]


def test_boot_builds_attaches_and_only_then_unpauses(world):
    world.service.boot(request(), Call())
    assert world.did.index("built") < world.did.index("attached vif7.0") < world.did.index("unpause")
    assert listed(world) == [("web", "running")]
    assert world.service.zones["web"].ledger.records()[0]["kind"] == "domain"


def test_zone_that_dies_while_it_is_unpaused_ends_up_exited(world):
    world.dies_at_once = True
    world.service.boot(request(), Call())
    assert listed(world) == [("web", "exited")]
    assert world.service.list_zones({}, Call())["zones"][0]["exit_text"] == "exit code 3"
    assert not list(world.service.ledgers.all())


def test_failed_network_takes_the_domain_down_and_frees_the_name(world):
    world.network_fails = True
    with pytest.raises(RuntimeFault, match="network: no"):
        world.service.boot(request(), Call())
    assert "domain destroyed" in world.did or "built" in world.did
    assert not list(world.service.ledgers.all())
    world.network_fails = False
    world.service.boot(request(), Call())
    assert listed(world) == [("web", "running")]


def test_running_zone_is_not_booted_again(world):
    world.service.boot(request(), Call())
    with pytest.raises(ZoneBusy, match="zone web: it runs already"):
        world.service.boot(request(), Call())


def test_stop_of_a_zone_under_construction_calls_its_boot_off(world):
    world.build_waits = threading.Event()
    failures: list[BaseException] = []

    def boot() -> None:
        try:
            world.service.boot(request(), Call())
        except BaseException as error:
            failures.append(error)

    booter = threading.Thread(target=boot)
    booter.start()
    assert world.building.wait(10)
    stopper = threading.Thread(target=world.service.stop, args=({"name": "web"}, Call()))
    stopper.start()
    world.service.zones["web"].cancelled.wait(10)
    world.build_waits.set()
    booter.join(10)
    stopper.join(10)
    assert isinstance(failures[0], BootCancelled)
    assert "unpause" not in world.did and "domain destroyed" in world.did
    assert listed(world) == []


def test_boot_nobody_waits_for_is_called_off(world):
    call = Call()
    call.gone = True
    with pytest.raises(BootCancelled):
        world.service.boot(request(), call)
    assert "unpause" not in world.did


def test_stop_reports_the_exit_and_forgets_the_zone(world):
    world.service.boot(request(), Call())
    assert world.service.stop({"name": "web"}, Call())["exit"] == "code 0"
    with pytest.raises(UnknownZone, match="there are: none"):
        world.service.stop({"name": "web"}, Call())


def test_addresses_are_given_again_after_a_zone_ended(world):
    first = world.service.boot(request("one"), Call())["addresses"]
    second = world.service.boot(request("two"), Call())["addresses"]
    world.service.stop({"name": "one"}, Call())
    third = world.service.boot(request("three"), Call())["addresses"]
    assert first == third != second


def test_new_zoned_ends_what_its_predecessor_left(world, tmp_path):
    ledger = world.service.ledgers.create("orphan")
    ledger.record("domain", name="orphan", uuid="o")
    Service(tmp_path, None, None).start()  # type: ignore[arg-type]
    assert [{"kind": "domain", "name": "orphan", "uuid": "o"}] in world.torn_down
    assert not list(world.service.ledgers.all())


@pytest.mark.parametrize("name", ["../etc", "", "a b", "-x", "x" * 64])
def test_names_that_are_no_names_are_refused(world, name):
    with pytest.raises(RuntimeFault, match="a name of letters"):
        world.service.boot(request(name), Call())
