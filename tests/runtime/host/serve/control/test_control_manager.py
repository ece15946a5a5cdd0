"""ControlService by grpcio's asynchronous client over the real manager, on a simulated Xen with an agent in memory."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpclib.server import Server
from support.daemonworld import Host, run
from support.grpcclient import Stub
from support.kernels import kernel_elf
from support.tars import image_of, tar_of, write_layout

from pipeline.initrd.model import InitrdResult
from pipeline.oci import Descriptor, Digest
from pipeline.store import Store
from runtime.boot.doors import Hypervisor
from runtime.host.api import common_pb2 as common
from runtime.host.api import control_pb2 as pb
from runtime.host.daemon.edge import Edge
from runtime.host.images.model import Platform
from runtime.host.images.platform import PlatformFile
from runtime.host.images.tasks import ImageTasks
from runtime.host.serve.control.context import Context
from runtime.host.serve.control.service import ControlService

SERVICE = pb.DESCRIPTOR.services_by_name["ControlService"]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Host(tmp_path, monkeypatch)
    monkeypatch.setattr(Edge, "plug", lambda edge, domain, device, record: "xvdc")
    monkeypatch.setattr(Edge, "unplug", lambda edge, domain, vdev, record: None)
    yield made
    made.close()


@contextlib.asynccontextmanager
async def served(host: Host) -> AsyncIterator[tuple[Any, Context]]:
    """A stub, and what the service stands on. Its platform is of the host's blobs."""
    manager = await host.start()
    store = Store(host.path / "images")
    platform = PlatformFile(host.path / "platform.json", store)
    kernel, segment = _blob(kernel_elf()), _blob(b"070701" * 1001)
    platform.save(Platform(InitrdResult(kernel, "6.1", segment, segment, ()), _blob(b"rootfs")))
    context = Context(manager, store, ImageTasks(store.root), platform, Hypervisor(host.xen))
    server = Server([ControlService(context)])
    socket = host.path / "zoned.sock"
    await server.start(path=str(socket))
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        yield Stub(channel, SERVICE), context
    server.close()
    await server.wait_closed()
    await context.close()
    await host.stop(end_zones=True)


def _blob(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(data), len(data))


async def until(events: Any, zone_id: str, state: int) -> common.Zone:
    async for event in events:
        zone = event.zone_changed.zone
        if (zone.id, zone.status.state) == (zone_id, state):
            return zone
    raise AssertionError("the events ended")


async def until_workload(events: Any, state: int) -> common.Workload:
    async for event in events:
        if event.workload_changed.workload.status.state == state:
            return event.workload_changed.workload
    raise AssertionError("the events ended")


async def refusal(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return caught.value.code()


def spec(name: str = "one", **fields: Any) -> pb.CreateZoneRequest:
    sizes = common.ZoneResourcesSpec(target_memory=48)
    return pb.CreateZoneRequest(spec=common.ZoneSpec(name=name, initial_resources=sizes, **fields))


def test_a_zone_lives_and_nothing_of_it_is_left(host: Host) -> None:
    async def work() -> None:
        async with served(host) as (stub, _):
            events = stub.WatchEvents(pb.WatchEventsRequest())
            await events.initial_metadata()
            zone_id = (await stub.CreateZone(spec())).zone_id
            zone = await until(events, zone_id, common.ZONE_STATE_READY)
            assert zone.status.domid in host.xen.domains
            assert zone.spec.name == "one"
            assert await refusal(stub.CreateZone(spec())) is grpc.StatusCode.ALREADY_EXISTS
            await stub.DestroyZone(pb.DestroyZoneRequest(zone_id="one"))
            assert (await until(events, zone_id, common.ZONE_STATE_DESTROYED)).spec.name == "one"
            assert await refusal(stub.GetZone(pb.GetZoneRequest(zone_id=zone_id))) is grpc.StatusCode.NOT_FOUND
            events.cancel()

    run(work())
    assert host.leftovers() == []


def test_resources_are_what_xen_counts(host: Host) -> None:
    async def work() -> None:
        async with served(host) as (stub, context):
            events = stub.WatchEvents(pb.WatchEventsRequest())
            await events.initial_metadata()
            sizes = common.ZoneResourcesSpec(target_memory=128, max_memory=256, target_cpus=1, max_cpus=2)
            asked = pb.CreateZoneRequest(spec=common.ZoneSpec(name="one", initial_resources=sizes))
            zone_id = (await stub.CreateZone(asked)).zone_id
            domid = (await until(events, zone_id, common.ZONE_STATE_READY)).status.domid
            events.cancel()

            async def active() -> tuple[int, int]:
                zone = (await stub.GetZone(pb.GetZoneRequest(zone_id=zone_id))).zone
                found = zone.status.resource_status.active_resources
                return found.target_memory, found.target_cpus

            assert await active() == (128, 1)
            wanted = common.ZoneResourcesSpec(target_memory=192, target_cpus=2)
            await stub.UpdateZoneResources(pb.UpdateZoneResourcesRequest(zone_id=zone_id, resources=wanted))
            assert context.manager.list_zones()[0].memory_mib == 192
            assert await active() == (128, 1), "the guest has not done it yet"
            with host.xen.lock:
                domain = host.xen.domains[domid]
                domain.p2m = dict.fromkeys(range(160 * 256), 0)
                domain.online_vcpus = 2
            assert await active() == (160, 2)

    run(work())


def test_specs_and_reservations_survive_a_zoned(host: Host) -> None:
    async def before() -> tuple[str, str]:
        async with served(host) as (stub, _):
            made = await stub.CreateNetworkReservation(pb.CreateNetworkReservationRequest())
            options = common.ZoneNetworkOptionsSpec(
                assume_network_reservation=made.reservation.uuid, retain_network_reservation=True
            )
            events = stub.WatchEvents(pb.WatchEventsRequest())
            await events.initial_metadata()
            zone_id = (await stub.CreateZone(spec(network_options=options))).zone_id
            zone = await until(events, zone_id, common.ZONE_STATE_READY)
            (address, *_) = [ip.address for ip in zone.status.network_status.interfaces[0].ips]
            assert address.partition("/")[0] == made.reservation.ipv4.partition("/")[0]
            events.cancel()
            return zone_id, made.reservation.uuid

    async def after(zone_id: str, reservation: str) -> None:
        async with served(host) as (stub, _):
            zone = (await stub.GetZone(pb.GetZoneRequest(zone_id=zone_id))).zone
            assert zone.status.state == common.ZONE_STATE_EXITED
            assert zone.spec.network_options.assume_network_reservation == reservation
            await stub.DestroyZone(pb.DestroyZoneRequest(zone_id=zone_id))
            replies = [reply async for reply in stub.ListNetworkReservations(pb.ListNetworkReservationsRequest())]
            assert [found.uuid for reply in replies for found in reply.reservations] == [reservation]

    run(after(*run(before())))


def test_a_zone_that_does_not_fit_is_refused_before_it_is_listed(host: Host) -> None:
    async def work() -> None:
        async with served(host) as (stub, _):
            sizes = common.ZoneResourcesSpec(target_memory=1 << 20)
            request = pb.CreateZoneRequest(spec=common.ZoneSpec(name="big", initial_resources=sizes))
            assert await refusal(stub.CreateZone(request)) is grpc.StatusCode.RESOURCE_EXHAUSTED

    run(work())
    assert host.leftovers() == []


def test_a_workload_runs_beside_the_agent(host: Host, tmp_path: Path) -> None:
    image = image_of(tar_of({"a": b"1"}), config={"config": {"Cmd": ["/a"]}})
    archive = shutil.make_archive(str(tmp_path / "image"), "tar", write_layout(tmp_path / "layout", {"t": image}))

    async def work() -> None:
        async with served(host) as (stub, context):
            data = Path(archive).read_bytes()
            requests = [pb.ImportImageRequest(image="example.org/a:v1", chunk=data, last_chunk=True)]
            replies = [reply async for reply in stub.ImportImage(iter(requests))]
            digest = replies[-1].spec.digest
            for path in context.store.blobs.iterdir():  # the host of the test has a store of its own
                shutil.copy(path, host.path / "store" / "blobs" / "sha256" / path.name)
            events = stub.WatchEvents(pb.WatchEventsRequest())
            await events.initial_metadata()
            zone_id = (await stub.CreateZone(spec())).zone_id
            await until(events, zone_id, common.ZONE_STATE_READY)
            wanted = common.WorkloadSpec(name="a", zone_id="one", image=common.OciImageSpec(digest=digest))
            made = (await stub.CreateWorkload(pb.CreateWorkloadRequest(spec=wanted))).workload_id
            method, params = host.guest("one").calls[-1]
            assert (method, params["id"]) == ("create", made)
            assert params["spec"]["root"] == {"readonly": False, "device": "xvdc"}
            assert params["spec"]["process"]["argv"] == ["/a"]
            await stub.StartWorkload(pb.StartWorkloadRequest(workload_id=made))
            await until_workload(events, common.WORKLOAD_STATE_RUNNING)
            await stub.StopWorkload(pb.StopWorkloadRequest(workload_id=made))
            stopped = await until_workload(events, common.WORKLOAD_STATE_COMPLETED)
            assert stopped.status.exit_status.code == 143
            assert (await stub.GetWorkload(pb.GetWorkloadRequest(workload_id="a"))).workload == stopped
            await stub.DestroyWorkload(pb.DestroyWorkloadRequest(workload_id=made))
            await until_workload(events, common.WORKLOAD_STATE_DESTROYED)
            events.cancel()

    run(work())
    assert host.leftovers() == []
