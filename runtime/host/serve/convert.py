"""Messages of host.proto from the core's dataclasses, and requests into them: fields of one name mean one thing."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pipeline.bundle.model import Bundle
from pipeline.jsonmodel import from_json
from pipeline.oci import Descriptor, Digest
from runtime.host.api import host_pb2 as pb
from runtime.host.daemon import model
from runtime.host.daemon.errors import BadRequest
from runtime.net.capture import CaptureRequest

BLOB_MEDIA_TYPE = "application/octet-stream"

M = TypeVar("M", bound=Message)


def fill(message: M, data: object) -> M:
    """Copy every field of `message` from the attribute of `data` with its name; None stays unset, as what is not there.

    Shape:   the message itself.
    """
    for field in message.DESCRIPTOR.fields:
        value = getattr(data, field.name, None)
        if value is None:
            continue
        if field.message_type is None:
            _fill_scalar(message, field, value)
        elif field.message_type.GetOptions().map_entry:
            getattr(message, field.name).update(value)
        elif isinstance(value, (tuple, list)):
            for item in value:
                fill(getattr(message, field.name).add(), item)
        else:
            fill(getattr(message, field.name), value).SetInParent()
    return message


def _fill_scalar(message: Message, field: FieldDescriptor, value: Any) -> None:
    if isinstance(value, (tuple, list)):
        getattr(message, field.name).extend(value)
    else:
        setattr(message, field.name, value.value if isinstance(value, Enum) else value)


def capture_request(request: pb.CaptureNetworkRequest) -> CaptureRequest:
    """What a client wants captured."""
    return CaptureRequest(request.count, request.seconds, request.snap_bytes, request.host, request.port)


def zone_message(zone: model.ZoneInfo) -> pb.ZoneInfo:
    """A zone."""
    return fill(pb.ZoneInfo(), zone)


def boot_request(request: pb.BootZoneRequest) -> model.BootRequest:
    """What a client wants booted. Raises BadRequest, BadModel."""
    import json

    try:
        document = json.loads(request.bundle)
    except (ValueError, RecursionError) as error:
        raise BadRequest("boot request", expected="a bundle as JSON", got=str(error)) from error
    return model.BootRequest(
        bundle=from_json(Bundle, document, subject="boot request"),
        manifest=request.manifest,
        ports=tuple(map(port_rule, request.ports)) or None,
        restart=restart_policy(request.restart) if request.HasField("restart") else model.RestartPolicy(),
        remove=request.remove,
        stdin_open=request.stdin_open,
        labels=dict(request.labels),
        until_ready=request.until_ready,
        until_ports_answer=request.until_ports_answer,
        attach=request.attach,
        network=request.network,
        isolated=request.isolated,
        start_timeout_s=request.start_timeout_s,
        fresh=request.fresh,
    )


def port_rule(rule: pb.PortRule) -> model.PortRule:
    """A published port."""
    return model.PortRule(
        zone_port=rule.zone_port,
        address=rule.address or "127.0.0.1",
        port=rule.port,
        host_address=rule.host_address,
        host_port=rule.host_port,
        protocol=rule.protocol or "tcp",
    )


def restart_policy(policy: pb.RestartPolicy) -> model.RestartPolicy:
    """A restart policy."""
    return model.RestartPolicy(policy.name or "no", policy.max_retries)


def update(request: pb.UpdateZoneRequest) -> model.Update:
    """Changes to a zone; what a request does not name stays."""
    return model.Update(
        memory_mib=request.memory_mib if request.HasField("memory_mib") else None,
        vcpus=request.vcpus if request.HasField("vcpus") else None,
        restart=restart_policy(request.restart) if request.HasField("restart") else None,
        add_ports=tuple(map(port_rule, request.add_ports)),
        remove_ports=tuple(map(port_rule, request.remove_ports)),
        egress=tuple(request.egress.rules) if request.HasField("egress") else None,
        bandwidth_bit_s=request.bandwidth_bit_s if request.HasField("bandwidth_bit_s") else None,
        limits=dict(request.limits),
    )


def terminal_size(size: pb.TerminalSize) -> model.TerminalSize:
    """The size of a terminal."""
    return model.TerminalSize(size.rows, size.columns)


def process_start(start: pb.ProcessStart) -> model.ProcessStart:
    """What to run, or what to attach to."""
    return model.ProcessStart(
        zone=start.zone,
        workload=start.workload,
        argv=tuple(start.argv),
        env=tuple(start.env),
        cwd=start.cwd,
        user=start.user,
        tty=start.tty,
        stdin=start.stdin,
        size=terminal_size(start.size) if start.HasField("size") else None,
        replay=start.replay,
        detach=start.detach,
        outside=start.outside,
    )


def output_message(output: model.Output) -> pb.ProcessOutput:
    """Something a process said, or its end."""
    match output.kind:
        case "started":
            return pb.ProcessOutput(started=True)
        case "stdout":
            return pb.ProcessOutput(stdout=output.data)
        case "stderr":
            return pb.ProcessOutput(stderr=output.data)
        case _:
            return pb.ProcessOutput(exit=fill(pb.ExitStatus(), output.exit or model.ExitStatus()))


def blob(message: pb.Blob) -> Descriptor:
    """A blob's descriptor. Raises BadDigest."""
    return Descriptor(BLOB_MEDIA_TYPE, Digest.parse(message.digest), message.size_bytes)
