"""A boot as a user's command sees it, on a host that records what it is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fakerefusals import Refused
from support.fakezoned import FakeZoned

from pipeline.bundle import manifest
from pipeline.bundle.model import Bundle, Port, Process, RestartPolicy, Volume
from pipeline.errors import StoreDamaged
from pipeline.jsonmodel import from_json
from pipeline.oci import parse_json
from pipeline.progress import Progress
from pipeline.recipe import UnknownName
from pipeline.store import Store
from runtime.errors import RuntimeFault
from runtime.host import actions
from runtime.host.client.endpoint import endpoint_of
from runtime.host.faults import RemoteFault
from runtime.host.hosts import RemoteHost


class RecordingHost(RemoteHost):
    """A host whose zoned is a script; notes the order of what it is asked, and can be told to fail."""

    def __init__(self, store: Store, zoned: FakeZoned) -> None:
        super().__init__(store, endpoint_of(zoned.address))
        self.asked: list[str] = []
        self.failing = ""
        zoned.on_call = self._note

    def _note(self, what: str) -> None:
        self.asked.append(what)
        if what == self.failing:
            raise RuntimeFault("port 8080", got="taken")

    def up(self, progress: Progress) -> None:
        self._note("up")

    def provide(self, *arguments: Any) -> None:
        self._note("provide")
        super().provide(*arguments)

    def listen_for(self, ports: Any, *, released: Any = ()) -> list[Any]:
        self._note("listen_for")
        return super().listen_for(ports, released=released)

    def expose(self, published: Any) -> None:
        self._note("expose")

    def tidy(self, client: Any) -> None:
        self._note("tidy")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    bundle = Bundle(
        name="web",
        kernel=store.put(b"kernel"),
        kernel_release="6",
        initrd=(store.put(b"initrd"),),
        modules=(),
        rootfs=store.put(b"rootfs"),
        process=Process(("/x",), ()),
        ports=(Port("127.0.0.1", 1, 80),),  # nothing answers at port 1
        restart=RestartPolicy("on-failure", 3),
        labels={"tier": "front"},
        stdin_open=True,
    )
    manifest.write(store, bundle)
    return store


@pytest.fixture
def zoned(tmp_path: Path) -> Iterator[FakeZoned]:
    with FakeZoned(tmp_path / "zoned.sock") as fake:
        yield fake


@pytest.fixture
def host(store: Store, zoned: FakeZoned) -> RecordingHost:
    return RecordingHost(store, zoned)


def test_boot_checks_then_brings_up_then_builds_then_opens_ports(host, store) -> None:
    booted = actions.boot(host, store, "web", progress=Progress())
    sent = ["FindBlobs", "PutBlob", "PutBlob", "PutBlob"]
    assert host.asked == ["up", "ListZones", "tidy", "provide", *sent, "listen_for", "BootZone", "expose"]
    assert [name for name, *_ in booted.steps] == [
        "check artifacts",
        "host up",
        "plug disks",
        "build domain",
        "open ports",
        "zone boots",
        "workload answers",
        "first answer",
    ]
    ends = [end for _, _, end in booted.steps]
    assert ends == sorted(ends) and all(start <= end for _, start, end in booted.steps)
    assert booted.urls == ["tcp://127.0.0.1:1"] and booted.zone.state == "ready"


def test_udp_ports_are_named_and_not_asked(host, store, zoned) -> None:
    ports = (Port("127.0.0.1", 1, 80), Port("127.0.0.1", 1, 53, "udp"))
    bundle = dataclasses.replace(manifest.find(store, "web")[1], ports=ports)
    booted = actions.boot_bundle(host, store, manifest.write(store, bundle), bundle, progress=Progress())
    assert booted.urls == ["tcp://127.0.0.1:1", "udp://127.0.0.1:1"]


def test_the_bundle_says_how_its_zone_is_kept(host, store, zoned) -> None:
    actions.boot(host, store, "web", progress=Progress())
    (request,) = [message for method, message in zoned.calls if method == "BootZone"]
    assert (request.restart.name, request.restart.max_retries, request.stdin_open) == ("on-failure", 3, True)
    assert (
        dict(request.labels) == {"tier": "front"}
        and not request.fresh
        and request.until_ports_answer
        and not request.remove
    )
    found = from_json(Bundle, parse_json(request.bundle, subject="bundle"), subject="bundle")
    assert found == manifest.find(store, "web")[1]


def test_boot_without_waiting_is_over_when_the_domain_runs(host, store, zoned) -> None:
    booted = actions.boot(host, store, "web", wait=False, progress=Progress())
    request = zoned.calls[-1][1]
    assert not request.until_ready and not request.until_ports_answer and booted.urls == []
    assert not request.start_timeout_s, "nobody waits for its workload"


@pytest.mark.parametrize(("given", "asked"), [(None, 300.0), (0.0, 0.0), (12.5, 12.5)])
def test_workload_that_is_waited_for_has_a_time_to_start_in(
    host, store, zoned, given: float | None, asked: float
) -> None:
    actions.boot(host, store, "web", start_timeout_s=given, progress=Progress())
    (request,) = [message for method, message in zoned.calls if method == "BootZone"]
    assert request.start_timeout_s == asked


def test_a_port_that_cannot_be_opened_ends_the_boot_and_so_the_zone(host, store, zoned) -> None:
    zoned.hold_boots = True
    host.failing = "expose"
    with pytest.raises(RuntimeFault, match="port 8080: taken"):
        actions.boot(host, store, "web", progress=Progress())
    zoned.wait(zoned.until(lambda: zoned.cancelled_boots == ["web"]))


def test_interrupt_ends_the_boot_and_so_the_zone(host, store, zoned) -> None:
    zoned.hold_boots = True
    host.expose = lambda published: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        actions.boot(host, store, "web", progress=Progress())
    zoned.wait(zoned.until(lambda: zoned.cancelled_boots == ["web"]))


def test_unknown_zone_names_near_ones(host, store) -> None:
    with pytest.raises(UnknownName, match="did you mean web"):
        actions.boot(host, store, "wep", progress=Progress())


def test_altered_artifact_is_named_before_the_host_is_touched(host, store) -> None:
    _, bundle = manifest.find(store, "web")
    path = store.path(bundle.rootfs.digest)
    path.chmod(0o644)
    path.write_bytes(b"rootfX")
    with pytest.raises(StoreDamaged, match=r"zone web: rootfs.squashfs .*\./doit bundle zone=web"):
        actions.boot(host, store, "web", progress=Progress())
    assert host.asked == []


def test_a_refusal_by_zoned_is_its_sentence_and_takes_back_what_was_plugged(host, store, zoned) -> None:
    zoned.boot_error = Refused("zone web", expected="128 MiB free", got="12 MiB")
    with pytest.raises(RemoteFault, match="zone web: expected 128 MiB free, got 12 MiB") as caught:
        actions.boot(host, store, "web", progress=Progress())
    assert caught.value.kind == "Refused"
    assert host.asked.index("tidy", host.asked.index("BootZone")) == len(host.asked) - 1


def test_stop_takes_back_what_the_zone_had(host, zoned) -> None:
    zoned.add("web")
    zone = actions.stop(host, "web", timeout_s=2, progress=Progress())
    assert host.asked == ["StopZone", "tidy"] and zoned.calls[0][1].timeout_s == 2
    assert actions.stopped_line(zone) == "zone web is stopped: exit code 0"


def test_zones_of_a_host_that_is_down_are_none(host, zoned) -> None:
    zoned.add("web")
    assert [zone.name for zone in actions.zones(host)] == ["web"]
    host.is_up = lambda: False
    assert actions.zones(host) == []


def test_bundle_of_another_gets_no_block_device_it_was_not_given(host, store) -> None:
    bundle = dataclasses.replace(manifest.find(store, "web")[1], volumes=(Volume("/disk", "block", "/dev/sda"),))
    own = manifest.write(store, bundle)
    pulled = dataclasses.replace(own, annotations={manifest.ORIGIN: "docker://example.org/web"})
    store.tag("zones/web", pulled)
    for boot in (
        lambda: actions.boot_bundle(host, store, pulled, bundle, progress=Progress()),
        lambda: actions.boot(host, store, "web", progress=Progress()),
    ):
        with pytest.raises(actions.ForeignDevices, match=r"zone web from docker://example\.org/web: .* got /dev/sda"):
            boot()
    with pytest.raises(actions.ForeignDevices, match="got /dev/sdb"):
        actions.overridden(pulled, dataclasses.replace(bundle, volumes=(), scratch="/dev/sdb"), actions.Overrides())
    assert host.asked == []
    assert actions.overridden(own, bundle, actions.Overrides()) == bundle  # made here: it is our own choice
    actions.boot(host, store, "web", overrides=actions.Overrides(devices=True), progress=Progress())
    assert "provide" in host.asked


def test_scratch_of_whoever_boots_a_bundle_takes_the_place_of_its_own(host, store) -> None:
    bundle = dataclasses.replace(manifest.find(store, "web")[1], overlay_size_mib=8, scratch="/dev/sdb")
    own = manifest.write(store, bundle)
    pulled = dataclasses.replace(own, annotations={manifest.ORIGIN: "docker://example.org/web"})
    for scratch in (("", 512), ("/dev/vg/web", 0)):
        made = actions.overridden(pulled, bundle, actions.Overrides(scratch=scratch))
        assert (made.scratch, made.scratch_mib, made.overlay_size_mib) == (*scratch, 0)
    made_there = dataclasses.replace(bundle, scratch="", scratch_mib=512)
    assert actions.overridden(pulled, made_there, actions.Overrides()) == made_there, "a size is no device"


def test_bundle_of_another_joins_no_network_it_was_not_let_into(host, store, zoned) -> None:
    plain = manifest.find(store, "web")[1]
    bundle = dataclasses.replace(plain, network=dataclasses.replace(plain.network, name="back"))
    own = manifest.write(store, bundle)
    pulled = dataclasses.replace(own, annotations={manifest.ORIGIN: "docker://example.org/web"})
    with pytest.raises(actions.ForeignNetwork, match=r"zone web from docker://example\.org/web: .* got back"):
        actions.boot_bundle(host, store, pulled, bundle, progress=Progress())
    assert host.asked == []
    assert actions.overridden(own, bundle, actions.Overrides()) == bundle
    let_in = actions.Overrides(network="front", isolated=True)
    actions.boot_bundle(host, store, pulled, bundle, overrides=let_in, progress=Progress())
    (request,) = [message for method, message in zoned.calls if method == "BootZone"]
    assert (request.network, request.isolated) == ("front", True)


def test_bundle_of_another_opens_nothing_that_is_closed_unless_whoever_boots_it_says_so(host, store) -> None:
    plain = manifest.find(store, "web")[1]
    pulled = dataclasses.replace(
        manifest.write(store, plain), annotations={manifest.ORIGIN: "docker://example.org/web"}
    )

    def with_rules(*rules: str) -> Bundle:
        return dataclasses.replace(plain, network=dataclasses.replace(plain.network, egress=rules))

    for rule in ("allow 169.254.169.254 80", "allow 127.0.0.0/8", "allow 192.0.2.1"):
        with pytest.raises(actions.ForeignRules, match=rf"zone web from docker://example\.org/web: .* got {rule}"):
            actions.boot_bundle(host, store, pulled, with_rules("deny any 25", rule), progress=Progress())
    assert host.asked == []
    harmless = with_rules("deny 169.254.169.254", "allow 192.0.2.0/24", "allow any 443", "deny any")
    assert actions.overridden(pulled, harmless, actions.Overrides()) == harmless
    own = actions.overridden(pulled, with_rules("allow 127.0.0.1"), actions.Overrides(egress=("deny any",)))
    assert own.network.egress == ("deny any",)
