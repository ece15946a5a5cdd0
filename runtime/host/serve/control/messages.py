"""Messages of the control API from the core's dataclasses."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Mapping, Sequence

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from runtime.host.api import common_pb2 as pb
from runtime.host.daemon import model
from runtime.host.daemon.disks import tag_of

NO_DOMID = (1 << 32) - 1
SPEC_LABEL = "dev.zonewright.control.spec"  # what was asked for, as it came
INTERFACE = "eth0"
XVDA = 202 << 8  # the first number of Xen's block devices; 16 further for each one after it

Streams = frozenset[str]
STREAMS: Streams = frozenset({"stdout", "stderr"})

_ZONE_STATES = {
    model.State.QUEUED: pb.ZONE_STATE_CREATING,
    model.State.CREATING: pb.ZONE_STATE_CREATING,
    model.State.RUNNING: pb.ZONE_STATE_CREATED,
    model.State.READY: pb.ZONE_STATE_READY,
    model.State.STOPPING: pb.ZONE_STATE_DESTROYING,
    model.State.RESTARTING: pb.ZONE_STATE_CREATING,
    model.State.EXITED: pb.ZONE_STATE_EXITED,
    model.State.FAILED: pb.ZONE_STATE_FAILED,
}
_PURPOSES = {
    "addons": pb.ZONE_DISK_STATUS_DISK_PURPOSE_ADDONS,
    "scratch": pb.ZONE_DISK_STATUS_DISK_PURPOSE_SCRATCH,
}
_DEPTH = 8  # of the tree of metrics: what has more dots in its name is one leaf
_UNITS = {
    "bytes": pb.METRIC_FORMAT_BYTES,
    "count": pb.METRIC_FORMAT_INTEGER,
    "seconds": pb.METRIC_FORMAT_DURATION_SECONDS,
    "percent": pb.METRIC_FORMAT_PERCENT,
    # Of these there is no format: the name has the unit.
    "KiB": pb.METRIC_FORMAT_INTEGER,
    "milliseconds": pb.METRIC_FORMAT_INTEGER,
    "microseconds": pb.METRIC_FORMAT_INTEGER,
}


def spec_label(spec: Message) -> dict[str, str]:
    """The label that keeps a spec as it came, whatever fields it has."""
    return {SPEC_LABEL: base64.b64encode(spec.SerializeToString(deterministic=True)).decode()}


def _kept(labels: Mapping[str, str], spec: Message) -> bool:
    try:
        spec.ParseFromString(base64.b64decode(labels[SPEC_LABEL], validate=True))
    except (KeyError, binascii.Error, DecodeError):
        return False
    return True


def timestamp(unix_s: float) -> Timestamp | None:
    """None for never."""
    if not unix_s:
        return None
    return Timestamp(seconds=int(unix_s), nanos=int(unix_s % 1 * 1e9))


# -- zones -------------------------------------------------------------------------------------------------------------


def zone_spec(zone: model.ZoneInfo) -> pb.ZoneSpec:
    """What was asked for; of a zone that did not come by this API, what is known of it."""
    spec = pb.ZoneSpec()
    if not _kept(zone.labels, spec):
        spec.initial_resources.CopyFrom(resources(zone))
    spec.name = zone.name
    return spec


def zone_message(zone: model.ZoneInfo, host_id: str) -> pb.Zone:
    """A zone as it is."""
    return pb.Zone(id=zone.id, spec=zone_spec(zone), status=zone_status(zone, host_id))


def zone_gone(zone: pb.Zone) -> pb.Zone:
    """A zone that is there no more, from how it was last."""
    gone = pb.Zone()
    gone.CopyFrom(zone)
    gone.status.state = pb.ZONE_STATE_DESTROYED
    gone.status.domid = NO_DOMID
    return gone


def zone_status(zone: model.ZoneInfo, host_id: str) -> pb.ZoneStatus:
    """How a zone is."""
    state = _ZONE_STATES[zone.state]
    if zone.state is model.State.RUNNING and zone.agent:
        state = pb.ZONE_STATE_READY
    status = pb.ZoneStatus(
        state=state,
        host=host_id,
        domid=zone.domid or NO_DOMID,
        resource_status=pb.ZoneResourceStatus(active_resources=resources(zone)),
        created_at=timestamp(zone.created_unix_s),
        ready_at=timestamp(zone.ready_unix_s),
    )
    if zone.addresses:
        status.network_status.interfaces.append(interface(zone))
    if disks := [disk(device) for device in zone.devices if device.purpose in _PURPOSES]:
        status.device_status.disks.extend(disks)  # also of nothing it would be there
    if directory := next((volume for volume in zone.volumes if volume.type == "directory"), None):
        mount = pb.ZoneMountStatus(device_id=0, host_path=directory.source, tag=tag_of(0))
        status.device_status.mount.CopyFrom(mount)
    if zone.exit is not None and not zone.state.live:
        if zone.state is model.State.FAILED:
            status.error_status.message = zone.exit.text or zone.exit.reason or "failed"
        else:
            status.exit_status.code = zone.exit.code
    return status


def disk(device: model.DeviceInfo) -> pb.ZoneDiskStatus:
    """A disk of a zone; one that the host made goes with the zone."""
    purpose = _PURPOSES[device.purpose]
    found = pb.ZoneDiskStatus(zone_block_device=device.name, purpose=purpose)
    if device.purpose == "scratch":
        given = device.source.startswith("/")
        found.host_block_device, found.delete = device.source if given else "", not given
    return found


def resources(zone: model.ZoneInfo) -> pb.ZoneResourcesSpec:
    """What a zone has now, as Xen counts it where it has just been asked; else what it was asked to have."""
    return pb.ZoneResourcesSpec(
        max_memory=zone.memory_max_mib,
        target_memory=zone.memory_seen_mib or zone.memory_mib,
        max_cpus=zone.vcpus_max,
        target_cpus=zone.vcpus_seen or zone.vcpus,
        adjustment_policy=pb.ZONE_RESOURCE_ADJUSTMENT_POLICY_STATIC,
    )


def interface(zone: model.ZoneInfo) -> pb.ZoneNetworkInterfaceStatus:
    """The one interface of a zone."""
    gateways = {ipaddress.ip_interface(text).version: text for text in zone.gateways}
    ips = []
    for address in zone.addresses:
        version = ipaddress.ip_interface(address).version
        number = pb.ZONE_NETWORK_IP_VERSION_V4 if version == 4 else pb.ZONE_NETWORK_IP_VERSION_V6
        ips.append(pb.ZoneNetworkIp(version=number, address=address, gateway=gateways.get(version, "")))
    host = f"vif{zone.domid}.0" if zone.domid else ""
    return pb.ZoneNetworkInterfaceStatus(host_interface=host, zone_interface=INTERFACE, zone_mac=zone.mac, ips=ips)


def metric_tree(metrics: Sequence[model.Metric], processes: Sequence[model.ZoneProcess]) -> pb.MetricNode:
    """Figures with dots in their names as a tree, and the processes below it, each under its number."""
    root = pb.MetricNode(name="zone")
    known: dict[tuple[str, ...], pb.MetricNode] = {}  # by their path: to look through the children takes too long

    def node_of(*path: str) -> pb.MetricNode:
        if not path:
            return root
        if path not in known:
            known[path] = node_of(*path[:-1]).children.add(name=path[-1])
        return known[path]

    for metric in metrics:
        node = node_of(*metric.name.split(".", _DEPTH - 1))
        node.value.number_value = metric.value
        node.format = _UNITS.get(metric.unit, pb.METRIC_FORMAT_UNKNOWN)
    for process in processes:
        node = node_of("process", str(process.pid))
        _child(node, "command").value.string_value = process.command
        _child(node, "state").value.string_value = process.state
        figures = (("parent", process.parent), ("uid", process.uid))
        for name, value in figures:
            _number(node, name, value, pb.METRIC_FORMAT_INTEGER)
        _number(_child(node, "memory"), "resident", process.resident_kib * 1024, pb.METRIC_FORMAT_BYTES)
        _number(node, "cpu", process.cpu_s, pb.METRIC_FORMAT_DURATION_SECONDS)
    return root


def _child(node: pb.MetricNode, name: str) -> pb.MetricNode:
    found: pb.MetricNode | None = next((child for child in node.children if child.name == name), None)
    return found or node.children.add(name=name)


def _number(node: pb.MetricNode, name: str, value: float, format: pb.MetricFormat) -> None:
    child = _child(node, name)
    child.value.number_value, child.format = value, format


# -- processes ---------------------------------------------------------------------------------------------------------


def streams(process: pb.ProcessSpec) -> Streams:
    """Which of its outputs are wanted: those that are named; both where neither is, as by a client that says nothing.

    A terminal has one output only, which is stdout.
    """
    named = {name for name in STREAMS if getattr(process, name)}
    return frozenset(named) if named and not process.tty else STREAMS


def streams_of(workload: model.WorkloadInfo) -> Streams:
    """Which outputs of a workload are wanted; all of one that did not come by this API."""
    spec = pb.WorkloadSpec()
    return streams(spec.process) if _kept(workload.request.labels, spec) else STREAMS


# -- workloads ---------------------------------------------------------------------------------------------------------


def workload_message(workload: model.WorkloadInfo) -> pb.Workload:
    """A workload as it is."""
    spec = pb.WorkloadSpec()
    if not _kept(workload.request.labels, spec):
        spec.image.CopyFrom(pb.OciImageSpec(digest=workload.request.image, format=pb.OCI_IMAGE_FORMAT_SQUASHFS))
    spec.name, spec.zone_id = workload.name, workload.zone_id
    status = pb.WorkloadStatus(
        state=pb.WorkloadState.Value(f"WORKLOAD_STATE_{workload.state.name}"),
        created_at=timestamp(workload.created_unix_s),
    )
    if workload.exit is not None:
        status.exit_status.code = workload.exit.code
    if workload.error:
        status.error_status.message = workload.error
    if workload.device:
        index = ord(workload.device[-1]) - ord("a")
        status.block_device_status.devices.add(block_index=index, device_id=XVDA + 16 * index)
    for volume, tag in zip(workload.request.mounts, workload.tags, strict=False):
        status.mount_status.mounts.add(tag=tag, host_path=volume.source, target_path=volume.target)
    return pb.Workload(id=workload.id, spec=spec, status=status)


def workload_gone(workload: pb.Workload) -> pb.Workload:
    """A workload that is there no more, from how it was last."""
    gone = pb.Workload()
    gone.CopyFrom(workload)
    gone.status.state = pb.WORKLOAD_STATE_DESTROYED
    return gone


# -- networks ----------------------------------------------------------------------------------------------------------


def reservation_message(reservation: model.Reservation) -> pb.NetworkReservation:
    """Kept addresses; the zone's own with their prefix lengths."""
    return pb.NetworkReservation(
        uuid=reservation.id,
        ipv4=f"{reservation.ipv4}/{reservation.prefix4}" if reservation.ipv4 else "",
        ipv6=f"{reservation.ipv6}/{reservation.prefix6}" if reservation.ipv6 else "",
        mac=reservation.mac,
        gateway_ipv4=reservation.gateway4,
        gateway_ipv6=reservation.gateway6,
        gateway_mac=reservation.gateway_mac,
    )
