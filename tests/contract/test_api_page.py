"""The replies that docs/api.md shows are those that the services give: the same fields, and all of them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from runtime.host.api import common_pb2 as common
from runtime.host.api import control_pb2 as pb
from runtime.host.api import host_pb2
from runtime.host.daemon import model
from runtime.host.serve.control import host, messages
from runtime.host.serve.control.sessions import _show_exec, _show_workload
from runtime.host.serve.control.uplink import Uplink
from runtime.version import VERSION

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()
SHOWN = re.search(r"this prints:\n\n```text\n(.*?)\n```", PAGE, re.DOTALL)
assert SHOWN is not None
# A message is printed with a line feed of its own, so that an empty line is after it; a status is followed by outputs.
TEXTS = re.split(r"\n\n+", SHOWN[1])
ZONE = model.ZoneInfo(
    id="1",
    name="one",
    state=model.State.READY,
    domid=1,
    addresses=("10.75.0.2", "fd5a:6f6e:6577::2"),
    gateways=("10.75.0.1", "fd5a:6f6e:6577::1"),
    mac="00:16:3e:4b:00:02",
    memory_mib=256,
    memory_max_mib=256,
    vcpus=1,
    vcpus_max=1,
    created_unix_s=1.5,
    ready_unix_s=2.5,
    devices=(model.DeviceInfo("xvda", "disk", "sha256:00", "rootfs", readonly=True),),
)


SERVICES = [service for api in (pb, host_pb2) for service in api.DESCRIPTOR.services_by_name.values()]


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_every_method_is_named_in_its_services_sections(service: ServiceDescriptor) -> None:
    parts = [part for part in PAGE.split("\n## ")[1:] if part.split("\n")[0].split(":")[0] == service.name]
    named = set(re.findall(r"`(\w+)`", "\n".join(parts)))
    assert [method.name for method in service.methods if method.name not in named] == []


def paths(message: Message, prefix: str = "") -> list[str]:
    """Every field that is set, as it is nested."""
    found = []
    for field, value in message.ListFields():
        found.append(path := f"{prefix}{field.name}")
        for one in value if field.is_repeated else [value]:
            found += paths(one, f"{path}.") if isinstance(one, Message) else []
    return found


def shown(message: Message, beginning: str) -> Message:
    """The text of the page that begins so, as a message; refused where a field of it is none."""
    (text,) = [text for text in TEXTS if re.search(rf"^{beginning}", text, re.MULTILINE)]
    text = text[re.search(rf"^{beginning}", text, re.MULTILINE).start() :]  # type: ignore[union-attr]
    return text_format.Parse(text, message)


def test_status_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    status = SimpleNamespace(host_id="a", version=VERSION, total_memory_kib=2, free_memory_kib=1)

    async def answer() -> Any:
        return status

    monkeypatch.setattr(host, "uplink", lambda: Uplink("eth0", "10.0.2.15/24", "", "52:54:00:12:34:56"))
    methods = host.HostMethods()
    methods._context = SimpleNamespace(manager=SimpleNamespace(status=answer))  # type: ignore[assignment]
    reply = asyncio.run(host.HostMethods.GetHostStatus.__wrapped__(methods, pb.GetHostStatusRequest()))
    found = shown(pb.GetHostStatusReply(), "host_uuid:")
    assert paths(found) == paths(reply)
    assert found.protect_version == VERSION  # type: ignore[attr-defined]


def test_status_of_a_zone() -> None:
    assert paths(shown(common.ZoneStatus(), "state:")) == paths(messages.zone_status(ZONE, "a"))


@pytest.mark.parametrize(
    ("beginning", "output"),
    [("output {", model.Output("stdout", b"33\n")), ("exited {", model.Output("exit", exit=model.ExitStatus()))],
)
def test_replies_of_a_command(beginning: str, output: model.Output) -> None:
    reply = _show_exec(output, streams=messages.STREAMS)
    assert isinstance(reply, pb.ExecuteZoneCommandReply)
    assert shown(pb.ExecuteZoneCommandReply(), beginning) == reply


def test_replies_of_a_workload() -> None:
    reply = _show_workload(model.Output("stdout", b"hello from 33\n"), streams=messages.STREAMS)
    assert isinstance(reply, pb.WorkloadConsoleReply)
    assert shown(pb.WorkloadConsoleReply(), "stdout:") == reply


def test_phases_of_a_pull_are_those_there_are() -> None:
    phases = [line for line in SHOWN[1].splitlines() if line.startswith("OCI_")]  # type: ignore[index]
    assert phases == sorted(phases, key=common.OciImageProgressPhase.Value) and len(phases) > 5
