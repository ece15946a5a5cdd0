"""The control API on the wire: bytes that must never change, and generated modules in step with their .proto.

golden/control_wire.json: for each message, bytes in which every field is set (of a oneof the first), written by an
encoder of its own from the public tables of Edera's API, and what they mean.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from runtime.host.api import common_pb2, control_pb2
from runtime.host.api.generate import HERE, PROJECT, generate
from runtime.host.serve.control.service import ControlService

GOLDEN: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "golden" / "control_wire.json").read_text())
SERVICE = control_pb2.DESCRIPTOR.services_by_name["ControlService"]
RESERVED = {"ProcessSpec": {11, 12}, "WorkloadMountInfo": {1, 4}, "WorkloadMountStatus": {1}}


def message_class(name: str) -> Any:
    return getattr(common_pb2, name, None) or getattr(control_pb2, name)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_bytes_of_a_message_mean_what_they_always_did(name: str) -> None:
    data = bytes.fromhex(GOLDEN[name]["hex"])
    message = message_class(name).FromString(data)
    assert MessageToDict(message, preserving_proto_field_name=True) == GOLDEN[name]["fields"]
    message.DiscardUnknownFields()
    assert message.SerializeToString(deterministic=True) == data


@pytest.mark.parametrize("name", RESERVED)
def test_numbers_that_were_given_up_stay_free(name: str) -> None:
    proto = (HERE / "common.proto").read_text()
    body = proto[proto.index(f"message {name} {{") :].partition("\n}")[0]
    (line,) = [line for line in body.splitlines() if "reserved" in line]
    assert {int(number) for number in line.strip(" ;").removeprefix("reserved ").split(", ")} == RESERVED[name]
    assert not RESERVED[name] & set(message_class(name).DESCRIPTOR.fields_by_number)


def test_the_service_has_all_of_its_methods_and_answers_each() -> None:
    assert SERVICE.full_name == "protect.control.v1.ControlService"
    assert len(SERVICE.methods) == 37
    assert not inspect.isabstract(ControlService)
    own = {method.name for method in SERVICE.methods}
    assert own == {name for name in dir(ControlService) if name[0].isupper()}


def test_generated_modules_are_in_step_with_their_proto(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    generate(tmp_path)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert made
    there = {path.relative_to(PROJECT) for path in (*HERE.glob("*_pb2.py*"), *HERE.glob("*_grpc.py"))}
    assert set(made) == there
    stale = [str(path) for path, data in made.items() if (PROJECT / path).read_bytes() != data]
    assert not stale, "python -m runtime.host.api.generate makes them anew"
