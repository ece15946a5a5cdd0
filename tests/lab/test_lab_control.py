"""ControlService of the lab's zoned by a plain gRPC client over TLS: a zone without an image, workloads put into it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from support.labcontrol import control_of, import_shell
from support.labzones import wait_for
from support.registry import FakeRegistry
from support.tars import image_of, tar_of

from pipeline import task
from pipeline.bundle.capabilities import CAPABILITIES, EVERY_CAPABILITY
from pipeline.initrd.model import InitrdResult
from pipeline.jsonmodel import to_json
from pipeline.oci import canonical_json
from pipeline.progress import Progress
from pipeline.store import Store
from runtime.host.api import common_pb2 as common
from runtime.host.api import control_pb2 as pb
from runtime.host.api import host_pb2
from runtime.host.client import connect
from runtime.host.images.platform import blobs
from runtime.host.images.work import platform_of
from runtime.host.lab.lab import Lab
from runtime.host.upload import upload

pytestmark = [pytest.mark.xen, pytest.mark.slow]

SCRIPT = "echo to stdout; echo to stderr >&2; read line; echo got $line; exit 7"
# Answers on TCP port 7070 until it is told to end; needs no module of perl's.
SERVER = """$SIG{TERM}=sub{exit 3};socket(S,2,1,6);bind(S,pack("SnCCCCx8",2,7070,0,0,0,0))or die;listen(S,9);
while(accept(C,S)){syswrite(C,"got $b")while sysread(C,$b,4096);close C}"""


@pytest.fixture(scope="module")
def control(lab: Lab) -> Iterator[Any]:
    """A grpcio stub, as any client of Edera's API makes one."""
    with control_of(lab) as stub:
        yield stub


@pytest.fixture(scope="module")
def reservation(control: Any) -> Iterator[Any]:
    """Addresses for one zone."""
    made = control.CreateNetworkReservation(pb.CreateNetworkReservationRequest()).reservation
    yield made
    control.DestroyNetworkReservation(pb.DestroyNetworkReservationRequest(reservation_id=made.uuid))
    (reply,) = control.ListNetworkReservations(pb.ListNetworkReservationsRequest())
    assert not reply.reservations


@pytest.fixture(scope="module")
def zone(lab: Lab, control: Any, store: Store, reservation: Any) -> Iterator[str]:
    """A zone of the default platform with the reserved addresses, ready."""
    platform = platform_of(store, task.read_result(InitrdResult, "initrd", "recipe-debian-cloud"))
    with connect(lab.endpoint()) as client:
        upload(client, store, blobs(platform), Progress())
        request = host_pb2.SetPlatformRequest(platform=canonical_json(to_json(platform)))
        client.call(client.host.SetPlatform, request)
    events = control.WatchEvents(pb.WatchEventsRequest(), timeout=300)
    events.initial_metadata()
    sizes = common.ZoneResourcesSpec(target_memory=128, max_memory=192, max_cpus=2)
    addresses = common.ZoneNetworkOptionsSpec(
        assume_network_reservation=reservation.uuid, retain_network_reservation=True
    )
    spec = common.ZoneSpec(name="idle", initial_resources=sizes, network_options=addresses)
    zone_id = control.CreateZone(pb.CreateZoneRequest(spec=spec)).zone_id
    for event in events:
        status = event.zone_changed.zone.status
        assert status.state not in (common.ZONE_STATE_FAILED, common.ZONE_STATE_EXITED), status
        if status.state == common.ZONE_STATE_READY:
            break
    events.cancel()
    yield zone_id
    control.DestroyZone(pb.DestroyZoneRequest(zone_id=zone_id))


@pytest.fixture(scope="module")
def image(control: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with a shell, and a perl for what a shell cannot do, imported."""
    return import_shell(control, tmp_path_factory.mktemp("image"), "perl")


@pytest.fixture(scope="module")
def server(control: Any, zone: str, image: str) -> Iterator[str]:
    """A workload that serves on port 7070 of the zone."""
    spec = common.WorkloadSpec(
        name="server",
        zone_id=zone,
        image=common.OciImageSpec(digest=image, format=common.OCI_IMAGE_FORMAT_SQUASHFS),
        process=common.ProcessSpec(command=["/bin/perl", "-e", SERVER]),
    )
    workload = control.CreateWorkload(pb.CreateWorkloadRequest(spec=spec), timeout=120).workload_id
    control.StartWorkload(pb.StartWorkloadRequest(workload_id=workload), timeout=300)
    yield workload
    control.DestroyWorkload(pb.DestroyWorkloadRequest(workload_id=workload), timeout=300)


def said(control: Any, zone: str, workload: str, script: str) -> bytes:
    """What a shell in a workload says; it must end with 0."""
    process = common.ProcessSpec(command=["/bin/sh", "-c", script])
    start = pb.ExecuteZoneCommandStart(zone_id=zone, workload_id=workload, process=process)
    *output, last = control.ExecuteZoneCommand(iter([pb.ExecuteZoneCommandRequest(start=start)]), timeout=300)
    assert last.exited.exit_code == 0
    return b"".join(reply.output.stdout for reply in output)


def test_the_host_and_its_hypervisor_are_described(control: Any) -> None:
    status = control.GetHostStatus(pb.GetHostStatusRequest())
    assert status.host_uuid and status.host_ipv4 == "10.0.2.15/24" and status.hyp_free_mem
    assert control.GetHostCpuTopology(pb.GetHostCpuTopologyRequest()).cpus
    assert "Xen version" in control.ReadHypervisorConsole(pb.ReadHypervisorConsoleRequest()).data


def test_a_zone_without_an_image_idles_and_is_measured(control: Any, zone: str, reservation: Any) -> None:
    found = control.GetZone(pb.GetZoneRequest(zone_id=zone)).zone
    assert found.status.domid < 1 << 16
    (interface,) = found.status.network_status.interfaces
    assert interface.zone_interface == "eth0"
    assert reservation.ipv4.partition("/")[0] in [ip.address for ip in interface.ips]
    root = control.ReadZoneMetrics(pb.ReadZoneMetricsRequest(zone_id=zone)).root
    assert {"memory_kib", "process"} & {child.name for child in root.children}


def test_resources_and_network_change_while_it_runs(control: Any, zone: str, server: str) -> None:
    more = common.ZoneResourcesSpec(target_memory=160, target_cpus=2)
    control.UpdateZoneResources(pb.UpdateZoneResourcesRequest(zone_id=zone, resources=more))
    active = control.GetZone(pb.GetZoneRequest(zone_id=zone)).zone.status.resource_status.active_resources
    assert (active.target_memory, active.target_cpus) == (160, 2)
    config = common.ZoneNetworkConfig(interfaces=[common.ZoneNetworkInterfaceConfig(mtu=1400)])
    control.ConfigureZoneNetwork(pb.ConfigureZoneNetworkRequest(zone_id=zone, config=config))
    assert said(control, zone, server, "read mtu </sys/class/net/eth0/mtu; echo $mtu") == b"1400\n"


def test_the_console_is_replayed(control: Any, zone: str) -> None:
    first = pb.ZoneConsoleRequest(zone_id=zone, replay_history=True)
    stream = control.AttachZoneConsole(iter([first]), timeout=300)
    assert next(stream).data
    stream.cancel()


def test_a_workload_runs_in_a_zone_that_is_there(control: Any, zone: str, image: str) -> None:
    spec = common.WorkloadSpec(
        name="web",
        zone_id=zone,
        image=common.OciImageSpec(digest=image, format=common.OCI_IMAGE_FORMAT_SQUASHFS),
        process=common.ProcessSpec(command=["/bin/sh", "-c", SCRIPT], stdin=True),
    )
    workload = control.CreateWorkload(pb.CreateWorkloadRequest(spec=spec), timeout=120).workload_id
    control.StartWorkload(pb.StartWorkloadRequest(workload_id=workload), timeout=300)
    assert said(control, zone, workload, "id -u") == b"33\n"
    typed = pb.WorkloadConsoleRequest(workload_id=workload, stdin=b"hello\n")
    replies = list(control.AttachWorkloadConsole(iter([typed]), timeout=300))
    assert b"".join(reply.stdout for reply in replies) == b"to stdout\ngot hello\n"
    assert b"".join(reply.stderr for reply in replies) == b"to stderr\n"
    status = control.GetWorkload(pb.GetWorkloadRequest(workload_id=workload)).workload.status
    assert (status.state, status.exit_status.code) == (common.WORKLOAD_STATE_COMPLETED, 7)
    control.DestroyWorkload(pb.DestroyWorkloadRequest(workload_id=workload), timeout=300)


def test_a_port_of_the_zone_is_dialled(control: Any, zone: str, server: str) -> None:
    first = pb.DialNetworkSocketStart(zone_id=zone, address="127.0.0.1", port=7070)
    data = [pb.DialNetworkSocketData(content=content) for content in (b"hello", b"")]
    requests = [pb.DialNetworkSocketRequest(start=first), *(pb.DialNetworkSocketRequest(data=each) for each in data)]

    def answer() -> bytes:
        with contextlib.suppress(grpc.RpcError):  # it may not listen yet
            return b"".join(reply.data.content for reply in control.DialNetworkSocket(iter(requests), timeout=300))
        return b""

    assert wait_for(answer, "answer on port 7070") == b"got hello"


def test_a_workload_is_stopped_and_listed_until_it_is_destroyed(control: Any, zone: str, server: str) -> None:
    control.StopWorkload(pb.StopWorkloadRequest(workload_id=server, timeout=20), timeout=300)
    status = control.GetWorkload(pb.GetWorkloadRequest(workload_id=server)).workload.status
    assert (status.state, status.exit_status.code) == (common.WORKLOAD_STATE_COMPLETED, 3), status
    listed = control.ListWorkloads(pb.ListWorkloadsRequest())
    assert server in [one.id for reply in listed for one in reply.workloads]


# In the zone's own process ids, of which 1 is its init; numbers of ptrace and keyctl: arch/x86/entry/syscalls.
CONFINED = """read line
while read key value; do case $key in CapBnd:|NoNewPrivs:) echo $key $value;; esac; done </proc/self/status
read limit </sys/fs/cgroup/pids.max; echo pids $limit
(read x </proc/1/mem) 2>&1; (echo x >/proc/1/exe) 2>&1; (echo x >/proc/1/fd/0) 2>&1
perl -e 'print syscall(101, 16, 1, 0, 0), " ", $! + 0, "\\n", syscall(250, 0, -3, 1), " ", $! + 0, "\\n"'
"""


def test_a_workload_is_confined_as_its_spec_says_and_has_no_way_to_init(control: Any, zone: str, image: str) -> None:
    spec = common.WorkloadSpec(
        name="confined",
        zone_id=zone,
        image=common.OciImageSpec(digest=image, format=common.OCI_IMAGE_FORMAT_SQUASHFS),
        process=common.ProcessSpec(command=["/bin/sh", "-c", CONFINED], stdin=True, user=common.IdOrNameValue(id=0)),
        security=common.WorkloadSecuritySpec(
            drop_capabilities=["CAP_MKNOD"], disable_namespaces=[common.PROCESS_NAMESPACE_PID]
        ),
        cgroup_limits=[common.CgroupLimit(limit_name="pids.max", value="77")],
    )
    workload = control.CreateWorkload(pb.CreateWorkloadRequest(spec=spec), timeout=120).workload_id
    control.StartWorkload(pb.StartWorkloadRequest(workload_id=workload), timeout=300)
    typed = pb.WorkloadConsoleRequest(workload_id=workload, stdin=b"go\n")
    heard = b"".join(reply.stdout for reply in control.AttachWorkloadConsole(iter([typed]), timeout=300)).decode()
    control.DestroyWorkload(pb.DestroyWorkloadRequest(workload_id=workload), timeout=300)
    lines = heard.splitlines()
    kept = sum(1 << EVERY_CAPABILITY.index(name) for name in CAPABILITIES if name != "MKNOD")
    assert lines[:3] == [f"CapBnd: {kept:016x}", "NoNewPrivs: 1", "pids 77"]
    assert len(lines) == 8 and all("Permission denied" in line for line in lines[3:6]), heard
    assert lines[6:] == ["-1 1"] * 2, "EPERM: init is not traced, keys are for nobody"


def test_an_image_is_pulled_by_dom0_itself(lab: Lab, control: Any) -> None:
    with contextlib.closing(FakeRegistry()) as registry:
        reference = registry.add("app", "v1", image_of(tar_of({"a": b"1" * 100_000}), compression="zstd"))
        seen = reference.removeprefix("docker://").replace("127.0.0.1", "10.0.2.2")
        host = seen.partition("/")[0]
        settings = f'[registries."{host}"]\ninsecure = true\n'
        lab.shell(f"mkdir -p /etc/zonewright; cat > /etc/zonewright/config.toml <<'E'\n{settings}E\n")
        *progress, last = control.PullImage(pb.PullImageRequest(image=seen), timeout=300)
    assert progress[-1].progress.phase == common.OCI_IMAGE_PROGRESS_PHASE_COMPLETE
    listed = [one.digest for reply in control.ListImages(pb.ListImagesRequest()) for one in reply.images]
    assert last.spec.digest in listed
    removed = control.RemoveImage(pb.RemoveImageRequest(digest=last.spec.digest))
    assert removed.removed
