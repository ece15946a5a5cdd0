"""ControlService by a plain gRPC client: zones, their events, the host."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.controlserver import ControlServer
from support.fakemanager import HOST_ID

from pipeline.bundle.model import Module
from pipeline.initrd.model import InitrdResult
from pipeline.jsonmodel import to_json
from pipeline.oci import Descriptor, canonical_json
from pipeline.store import Store
from runtime.host.api import common_pb2 as common
from runtime.host.api import control_pb2 as pb
from runtime.host.api import host_pb2
from runtime.host.daemon.errors import StateDamaged
from runtime.host.daemon.model import DeviceInfo, ExitStatus, State, VolumeInfo, ZoneInfo
from runtime.host.images.model import Platform


def platform_in(store: Store) -> Platform:
    """One whose blobs are words."""

    def blob(text: str) -> Descriptor:
        return store.put(text.encode())

    modules = (Module("/modules/xen_blkfront.ko"),)
    initrd = InitrdResult(blob("kernel"), "6.1.0", blob("base"), blob("modules"), modules, blob("addons"), "6.1.0 SMP")
    return Platform(initrd, blob("root"))


@pytest.fixture
def ready(control: ControlServer) -> ControlServer:
    control.platform.save(platform_in(control.store))
    return control


def refusal(call: Any, *args: Any) -> tuple[grpc.StatusCode, str]:
    """How a call is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        found = call(*args)
        list(found) if hasattr(found, "__iter__") else None
    return caught.value.code(), caught.value.details()


def create(server: ControlServer, **fields: Any) -> str:
    return str(server.stub.CreateZone(pb.CreateZoneRequest(spec=common.ZoneSpec(**fields))).zone_id)


@pytest.mark.parametrize(
    ("disk", "scratch", "status"),
    [
        ({"image": {"size": 512}}, ("", 512), {"delete": True}),
        ({"block": {"path": "/dev/vg/web"}}, ("/dev/vg/web", 0), {"host_block_device": "/dev/vg/web"}),
    ],
)
def test_scratch_disk_is_made_by_the_host_or_a_device_of_it(
    ready: ControlServer, disk: Any, scratch: tuple[str, int], status: Any
) -> None:
    spec = common.ZoneSpec(name="one", scratch_disk=disk)
    zone_id = ready.stub.CreateZone(pb.CreateZoneRequest(spec=spec)).zone_id
    (request,) = ready.manager.requests
    assert (request.bundle.scratch, request.bundle.scratch_mib) == scratch
    source = scratch[0] or "512 MiB that the host made"
    devices = (
        DeviceInfo("xvda", "disk", "sha256:00", "rootfs", readonly=True),
        DeviceInfo("xvdc", "disk", source, "scratch", readonly=False),
    )
    ready.manager.zones[zone_id] = dataclasses.replace(ready.manager.zones[zone_id], devices=devices[:1])
    assert not ready.stub.GetZone(pb.GetZoneRequest(zone_id=zone_id)).zone.status.HasField("device_status")
    ready.manager.zones[zone_id] = dataclasses.replace(ready.manager.zones[zone_id], devices=devices)
    zone = ready.stub.GetZone(pb.GetZoneRequest(zone_id=zone_id)).zone
    assert zone.spec == spec
    (found,) = zone.status.device_status.disks
    purpose = common.ZONE_DISK_STATUS_DISK_PURPOSE_SCRATCH
    assert found == common.ZoneDiskStatus(zone_block_device="xvdc", purpose=purpose, **status)


def test_the_first_directory_among_a_zones_volumes_is_told(ready: ControlServer) -> None:
    zone_id = create(ready, name="one")
    tmpfs = VolumeInfo("tmpfs", "/tmp", "tmpfs", readonly=False)
    shared = [VolumeInfo(f"/srv/{name}", f"/{name}", "directory", readonly=False) for name in ("a", "b")]
    ready.manager.zones[zone_id] = dataclasses.replace(ready.manager.zones[zone_id], volumes=(tmpfs, *shared))
    status = ready.stub.GetZone(pb.GetZoneRequest(zone_id=zone_id)).zone.status.device_status
    assert status == common.ZoneDeviceStatus(mount=common.ZoneMountStatus(host_path="/srv/a", tag="share0"))


def test_a_zone_boots_from_the_platform_and_comes_back_as_it_was_asked_for(ready: ControlServer) -> None:
    spec = common.ZoneSpec(
        name="one",
        initial_resources=common.ZoneResourcesSpec(target_memory=128, max_memory=512, max_cpus=2, target_cpus=1),
        annotations=[common.AnnotationSpec(key="team", value="a")],
        kernel_options=common.KernelOptionsSpec(
            cmdline=["debug"], sysctl_parameters=[common.KernelSysctlParameter(key="net.core.somaxconn", value="64")]
        ),
    )
    spec.network_options.dns_config.nameservers.append("9.9.9.9")
    spec.network_options.dns_config.options.append("ndots:2")
    zone_id = ready.stub.CreateZone(pb.CreateZoneRequest(spec=spec)).zone_id
    (request,) = ready.manager.requests
    platform = ready.platform.need()
    bundle = request.bundle
    assert (bundle.kernel, bundle.initrd) == (
        platform.initrd.kernel_elf,
        (platform.initrd.base, platform.initrd.modules_segment),
    )
    assert (bundle.rootfs, bundle.addons, bundle.process.argv) == (platform.root, platform.initrd.addons, ())
    assert bundle.cmdline.endswith("quiet debug") and bundle.sysctls == {"net.core.somaxconn": "64"}
    assert (bundle.network.nameservers, bundle.network.options) == (("9.9.9.9",), ("ndots:2",))
    assert request.ports == ()
    zone = ready.stub.GetZone(pb.GetZoneRequest(zone_id=zone_id)).zone
    assert zone.spec == spec
    assert zone.status.state == common.ZONE_STATE_READY
    assert (zone.status.host, zone.status.domid) == (HOST_ID, 5)
    assert (zone.status.created_at.seconds, zone.status.created_at.nanos) == (1000, 250_000_000)
    (interface,) = zone.status.network_status.interfaces
    assert interface.host_interface == "vif5.0"
    assert [(ip.version, ip.address, ip.gateway) for ip in interface.ips] == [
        (common.ZONE_NETWORK_IP_VERSION_V4, "10.75.0.2/24", "10.75.0.1"),
        (common.ZONE_NETWORK_IP_VERSION_V6, "fd00::2/64", "fd00::1"),
    ]
    assert zone.status.resource_status.active_resources.target_memory == 128
    assert [found for reply in ready.stub.ListZones(pb.ListZonesRequest()) for found in reply.zones] == [zone]


def test_create_answers_before_the_domain_is_built(ready: ControlServer) -> None:
    gate = ready.manager.gate = ready.call(asyncio.Event)
    zone_id = create(ready, name="slow")
    zone = ready.stub.GetZone(pb.GetZoneRequest(zone_id=zone_id)).zone
    assert zone.status.state == common.ZONE_STATE_CREATING
    assert zone.status.domid == (1 << 32) - 1
    stream = watch(ready)
    ready.call(gate.set)
    assert next(stream).zone_changed.zone.status.state == common.ZONE_STATE_READY
    stream.cancel()


def watch(server: ControlServer) -> Any:
    """The stream of events; when this returns nothing after it is missed."""
    stream = server.stub.WatchEvents(pb.WatchEventsRequest(), timeout=120)
    stream.initial_metadata()
    return stream


def test_events_bring_whole_zones_and_a_removed_one_as_it_was_last(ready: ControlServer) -> None:
    stream = watch(ready)
    zone_id = create(ready, name="one")
    first, second = next(stream).zone_changed.zone, next(stream).zone_changed.zone
    assert first.id == second.id == zone_id
    assert second.status.state == common.ZONE_STATE_READY
    ready.stub.DestroyZone(pb.DestroyZoneRequest(zone_id="one"))
    last = next(stream).zone_changed.zone
    assert (last.id, last.spec.name, last.status.state) == (zone_id, "one", common.ZONE_STATE_DESTROYED)
    stream.cancel()


def test_event_of_a_zone_that_cannot_be_read_ends_no_stream(
    ready: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = watch(ready)
    zone_id = create(ready, name="one")
    assert [next(stream).zone_changed.zone.id for _ in range(2)] == [zone_id] * 2
    get = ready.manager.get

    async def unread(ref: str, *, fresh: bool = False) -> ZoneInfo:
        if ref == zone_id:
            raise StateDamaged("zone one", got="its row in the database cannot be read")
        return await get(ref)

    monkeypatch.setattr(ready.manager, "get", unread)
    ready.call(lambda: ready.manager.tell("zone.updated", ready.manager.find(zone_id)))
    assert next(stream).zone_changed.zone.status.state == common.ZONE_STATE_DESTROYED
    other = create(ready, name="two")
    assert next(stream).zone_changed.zone.id == other
    stream.cancel()


def test_how_a_zone_ended_is_told(ready: ControlServer) -> None:
    zone = ready.manager.find(create(ready, name="one"))
    ready.call(lambda: ready.manager.change(zone, state=State.EXITED, exit=ExitStatus(code=137, signal=9)))
    status = ready.stub.GetZone(pb.GetZoneRequest(zone_id="one")).zone.status
    assert (status.state, status.exit_status.code) == (common.ZONE_STATE_EXITED, 137)
    failed = ExitStatus(code=127, reason="kernel", text="its kernel did not start")
    ready.call(lambda: ready.manager.change(zone, state=State.FAILED, exit=failed))
    status = ready.stub.GetZone(pb.GetZoneRequest(zone_id="one")).zone.status
    assert (status.state, status.error_status.message) == (common.ZONE_STATE_FAILED, "its kernel did not start")


def test_names_resolve_and_unknown_ones_to_nothing(ready: ControlServer) -> None:
    zone_id = create(ready, name="one")
    assert ready.stub.ResolveZoneId(pb.ResolveZoneIdRequest(name="one")).zone_id == zone_id
    assert ready.stub.ResolveZoneId(pb.ResolveZoneIdRequest(name="two")).zone_id == ""
    assert list(ready.stub.ResolveZoneIds(pb.ResolveZoneIdsRequest(name=zone_id[:8])).zone_ids) == [zone_id]
    assert list(ready.stub.ResolveZoneIds(pb.ResolveZoneIdsRequest(name="two")).zone_ids) == []


def test_without_a_name_one_is_made_up(ready: ControlServer) -> None:
    zone = ready.stub.GetZone(pb.GetZoneRequest(zone_id=create(ready))).zone
    assert zone.spec.name.startswith("zone-")


def test_without_a_platform_a_zone_needs_a_kernel(control: ControlServer) -> None:
    code, text = refusal(create_call(control), common.ZoneSpec(name="one"))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "zone host platform" in text


def create_call(server: ControlServer) -> Any:
    return lambda spec: server.stub.CreateZone(pb.CreateZoneRequest(spec=spec))


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({"name": "a b"}, "INVALID_ARGUMENT", "name"),
        ({"initial_resources": {"target_memory": 600, "max_memory": 500}}, "INVALID_ARGUMENT", "initial_resources"),
        ({"initial_resources": {"min_cpus": 4, "target_cpus": 2}}, "INVALID_ARGUMENT", "initial_resources"),
        ({"initial_resources": {"target_memory": 2000}}, "RESOURCE_EXHAUSTED", "zone"),
        ({"initial_resources": {"adjustment_policy": 2}}, "UNIMPLEMENTED", "adjustment_policy"),
        ({"devices": [{"name": "gpu"}]}, "UNIMPLEMENTED", "devices"),
        ({"scratch_disk": {"image": {"size": 9}}}, "INVALID_ARGUMENT", "scratch_disk: expected 16 MiB to 16 TiB"),
        ({"scratch_disk": {"image": {}}}, "INVALID_ARGUMENT", "scratch_disk: expected a size"),
        ({"scratch_disk": {"block": {"path": "512"}}}, "INVALID_ARGUMENT", "scratch_disk.block.path: expected a block"),
        ({"scratch_disk": {"block": {"path": "/etc"}}}, "INVALID_ARGUMENT", "scratch_disk"),
        ({"scratch_disk": {"block": {"device": "fast"}}}, "UNIMPLEMENTED", "scratch_disk.block.device"),
        ({"virtualization_options": {"backend": 2}}, "UNIMPLEMENTED", "virtualization_options"),
        ({"network_options": {"backend": 1}}, "UNIMPLEMENTED", "network_options.backend"),
        ({"network_options": {"dns_config": {"nameservers": ["x"]}}}, "INVALID_ARGUMENT", "nameservers"),
        ({"network_options": {"dns_config": {"searches": ["a\nb"]}}}, "INVALID_ARGUMENT", "dns_config.searches"),
        ({"network_options": {"dns_config": {"options": ["a b"]}}}, "INVALID_ARGUMENT", "dns_config.options"),
        ({"kernel": {"digest": "latest"}}, "INVALID_ARGUMENT", "digest"),
        ({"kernel_options": {"cmdline_append": "a\nb"}}, "INVALID_ARGUMENT", "cmdline"),
        ({"kernel_options": {"cmdline_append": "a" * 1024}}, "INVALID_ARGUMENT", "cmdline_append"),
        ({"kernel_options": {"modules": ["../x"]}}, "INVALID_ARGUMENT", "modules"),
        ({"kernel_options": {"sysctl_parameters": [{"key": "a b", "value": "1"}]}}, "INVALID_ARGUMENT", "sysctl"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(ready: ControlServer, fields: Any, code: str, named: str) -> None:
    found, text = refusal(create_call(ready), common.ZoneSpec(**fields))
    assert found.name == code
    assert named in text
    assert ready.manager.zones == {}


def test_a_name_is_given_once(ready: ControlServer) -> None:
    create(ready, name="one")
    assert refusal(create_call(ready), common.ZoneSpec(name="one"))[0] is grpc.StatusCode.ALREADY_EXISTS


def test_errors_carry_their_parts(control: ControlServer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        control.stub.GetZone(pb.GetZoneRequest(zone_id="none"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    parts = json.loads(dict(caught.value.trailing_metadata())["zonewright-error-bin"])
    assert (parts["kind"], parts["subject"]) == ("UnknownZone", "zone none")


def test_resources_change_within_what_the_zone_was_made_with(ready: ControlServer) -> None:
    sizes = common.ZoneResourcesSpec(target_memory=128, min_memory=100, max_memory=512, max_cpus=2)
    zone_id = create(ready, name="one", initial_resources=sizes)

    def update(**fields: int) -> None:
        wanted = common.ZoneResourcesSpec(**fields)
        ready.stub.UpdateZoneResources(pb.UpdateZoneResourcesRequest(zone_id=zone_id, resources=wanted))

    update(target_memory=256, target_cpus=2, max_memory=512)
    active = ready.stub.GetZone(pb.GetZoneRequest(zone_id=zone_id)).zone.status.resource_status.active_resources
    assert (active.target_memory, active.target_cpus, active.max_memory) == (256, 2, 512)
    for wrong in (
        {"max_memory": 1024},
        {"max_cpus": 4},
        {"target_memory": 64},
        {"target_memory": 80, "min_memory": 90},
    ):
        with pytest.raises(grpc.RpcError) as caught:
            update(**wrong)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError, match=r"adjustment_policy: DYNAMIC") as caught:
        update(target_memory=128, adjustment_policy=common.ZONE_RESOURCE_ADJUSTMENT_POLICY_DYNAMIC)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert ready.manager.find(zone_id).memory_mib == 256
    update(adjustment_policy=common.ZONE_RESOURCE_ADJUSTMENT_POLICY_STATIC)
    zone = ready.manager.find(zone_id)
    ready.call(lambda: ready.manager.change(zone, state=State.EXITED))
    with pytest.raises(grpc.RpcError) as caught:
        update(target_memory=128)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_metrics_are_a_tree(ready: ControlServer) -> None:
    root = ready.stub.ReadZoneMetrics(pb.ReadZoneMetricsRequest(zone_id=create(ready, name="one"))).root

    def at(*path: str) -> common.MetricNode:
        node = root
        for name in path:
            (node,) = [child for child in node.children if child.name == name]
        return node

    assert root.name == "zone"
    assert (at("memory", "used").value.number_value, at("memory", "used").format) == (5, common.METRIC_FORMAT_BYTES)
    assert at("uptime").format == common.METRIC_FORMAT_DURATION_SECONDS
    assert at("process", "7", "command").value.string_value == "web -f"
    assert at("process", "7", "memory", "resident").value.number_value == 12 * 1024


def test_reservations_are_kept_used_and_given_back(ready: ControlServer) -> None:
    stub = ready.stub
    kept, gone = (stub.CreateNetworkReservation(pb.CreateNetworkReservationRequest()).reservation for _ in range(2))
    assert (kept.ipv4, kept.gateway_ipv4) == ("10.75.0.2/24", "10.75.0.1")
    for name, reservation, retain in (("one", kept, True), ("two", gone, False)):
        options = common.ZoneNetworkOptionsSpec(
            assume_network_reservation=reservation.uuid, retain_network_reservation=retain
        )
        create(ready, name=name, network_options=options)
        assert ready.manager.requests[-1].reservation == reservation.uuid
        stub.DestroyZone(pb.DestroyZoneRequest(zone_id=name))
    (reply,) = stub.ListNetworkReservations(pb.ListNetworkReservationsRequest())
    assert [found.uuid for found in reply.reservations] == [kept.uuid]
    stub.DestroyNetworkReservation(pb.DestroyNetworkReservationRequest(reservation_id=kept.uuid))
    wrong = pb.DestroyNetworkReservationRequest(reservation_id=kept.uuid)
    assert refusal(stub.DestroyNetworkReservation, wrong)[0] is grpc.StatusCode.NOT_FOUND


def test_addresses_that_are_to_stay_get_a_reservation_of_their_own(ready: ControlServer) -> None:
    stub = ready.stub

    def reserved() -> list[str]:
        (reply,) = stub.ListNetworkReservations(pb.ListNetworkReservationsRequest())
        return [found.uuid for found in reply.reservations]

    options = common.ZoneNetworkOptionsSpec(retain_network_reservation=True)
    create(ready, name="one", network_options=options)
    (made,) = reserved()
    assert ready.manager.requests[-1].reservation == made
    found = stub.GetZone(pb.GetZoneRequest(zone_id="one")).zone.spec.network_options
    assert (found.assume_network_reservation, found.retain_network_reservation) == (made, True)
    assert refusal(create_call(ready), common.ZoneSpec(name="one", network_options=options))[0].name == "ALREADY_EXISTS"
    assert reserved() == [made], "of a zone that is refused nothing stays"
    stub.DestroyZone(pb.DestroyZoneRequest(zone_id="one"))
    assert reserved() == [made]
    again = common.ZoneNetworkOptionsSpec(assume_network_reservation=made)
    create(ready, name="two", network_options=again)
    stub.DestroyZone(pb.DestroyZoneRequest(zone_id="two"))
    assert reserved() == []


def test_a_network_is_configured_within_what_the_host_gave(ready: ControlServer) -> None:
    create(ready, name="one")

    def configure(**fields: Any) -> None:
        config = common.ZoneNetworkConfig(**fields)
        ready.stub.ConfigureZoneNetwork(pb.ConfigureZoneNetworkRequest(zone_id="one", config=config))

    configure(
        interfaces=[{"zone_interface": "eth0", "mtu": 1400, "ips": [{"address": "10.75.0.2/24"}]}],
        routes=[
            {"destination": "10.9.0.0/16", "gateway": "10.75.0.1", "pref_source": "10.75.0.2"},
            {"destination": "default", "version": 2, "gateway": "fd00::1"},
        ],
        neighbors=[{"ip_address": "10.75.0.1", "link_layer_address": "02:00:00:00:00:01"}],
    )
    assert ready.manager.network_changes == [
        (
            "one",
            {
                "interface": "eth0",
                "mtu": 1400,
                "routes": [
                    {"destination": "10.9.0.0/16", "gateway": "10.75.0.1", "source": "10.75.0.2"},
                    {"destination": "::/0", "gateway": "fd00::1", "source": ""},
                ],
                "neighbors": [{"address": "10.75.0.1", "mac": "02:00:00:00:00:01", "state": "permanent"}],
            },
        )
    ]
    for code, wrong in (
        ("INVALID_ARGUMENT", {"interfaces": [{"ips": [{"address": "10.75.0.77/24"}]}]}),
        ("INVALID_ARGUMENT", {"interfaces": [{"zone_mac": "02:00:00:00:00:ff"}]}),
        ("INVALID_ARGUMENT", {"interfaces": [{"mtu": 9000}]}),
        ("INVALID_ARGUMENT", {"routes": [{"destination": "10.9.0.0/16", "gateway": "fd00::1"}]}),
        ("INVALID_ARGUMENT", {"routes": [{"destination": "10.9.0.0/16", "output_interface": "eth1"}]}),
        ("INVALID_ARGUMENT", {"neighbors": [{"ip_address": "10.75.0.1", "link_layer_address": "x"}]}),
        ("UNIMPLEMENTED", {"routes": [{"destination": "10.9.0.0/16", "table": 7}]}),
        ("UNIMPLEMENTED", {"interfaces": [{}, {}]}),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            configure(**wrong)
        assert caught.value.code().name == code, wrong


def test_the_host_says_who_it_is(control: ControlServer) -> None:
    status = control.stub.GetHostStatus(pb.GetHostStatusRequest())
    assert (status.host_uuid, status.protect_version, status.hyp_free_mem) == (HOST_ID, "0.1.0", 2048)
    assert control.stub.ListDevices(pb.ListDevicesRequest()) == pb.ListDevicesReply()


@pytest.mark.parametrize(
    ("method", "instead"),
    [
        ("SetHostPowerManagementPolicy", "command line"),
        ("HypervisorDebugInfo", "ReadHypervisorConsole"),
        ("GetHostCpuTopology", "no hypervisor"),
        ("ReadHypervisorConsole", "no hypervisor"),
    ],
)
def test_what_is_not_served_says_why(control: ControlServer, method: str, instead: str) -> None:
    code, text = refusal(getattr(control.stub, method), getattr(pb, f"{method}Request")())
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert instead in text


def test_kernel_events_are_not_served(control: ControlServer) -> None:
    requests = iter([pb.MonitorZoneKernelEventRequest(zone_id="one")])
    code, text = refusal(control.stub.MonitorZoneKernelEvents, requests)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "WatchEvents" in text


def test_a_platform_that_cannot_be_read_counts_as_none(control: ControlServer, tmp_path: Path) -> None:
    control.platform.save(platform_in(control.store))
    assert control.platform.load() == platform_in(control.store)
    (tmp_path / "platform.json").write_text('{"initrd": 1}')
    assert control.platform.load() is None


def test_a_client_gives_the_host_its_platform(control: ControlServer) -> None:
    platform = platform_in(control.store)
    request = host_pb2.SetPlatformRequest(platform=canonical_json(to_json(platform)))
    control.manager.missing = {str(platform.initrd.base.digest)}
    code, text = refusal(control.host.SetPlatform, request)
    assert code is grpc.StatusCode.NOT_FOUND and str(platform.initrd.base.digest) in text
    assert control.platform.load() is None
    control.manager.missing = set()
    control.host.SetPlatform(request)
    assert control.platform.load() == platform
    assert create(control, name="one")
    broken = host_pb2.SetPlatformRequest(platform=b'{"initrd":1}')
    assert refusal(control.host.SetPlatform, broken)[0] is grpc.StatusCode.INVALID_ARGUMENT
