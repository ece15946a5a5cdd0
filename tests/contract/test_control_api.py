"""The control API on the wire: bytes that must never change, and generated modules in step with their .proto.

golden/control_api.txt: the public tables of Edera's API: methods, messages with the numbers, names and types of their
fields (`*` repeated, `?` with presence, `|` of a oneof), enums. Each field is also encoded from there, by an encoder of
this test's own, and read by the generated class.
golden/control_wire.json: whole messages, nested as they come, made by such an encoder once, and what they mean.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict

from runtime.host.api import common_pb2, control_pb2
from runtime.host.api.generate import HERE, PROJECT, generate
from runtime.host.serve.control.service import ControlService

GOLDEN: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "golden" / "control_wire.json").read_text())
TABLES = (Path(__file__).parent / "golden" / "control_api.txt").read_text().splitlines()
SERVICE = control_pb2.DESCRIPTOR.services_by_name["ControlService"]
RESERVED = {"ProcessSpec": {11, 12}, "WorkloadMountInfo": {1, 4}, "WorkloadMountStatus": {1}}


FILES = (common_pb2.DESCRIPTOR, control_pb2.DESCRIPTOR)
SCALARS = {
    number: word
    for word, number in (
        *(("string", FieldDescriptor.TYPE_STRING), ("bytes", FieldDescriptor.TYPE_BYTES)),
        *(("bool", FieldDescriptor.TYPE_BOOL), ("uint32", FieldDescriptor.TYPE_UINT32)),
        *(("uint64", FieldDescriptor.TYPE_UINT64), ("int32", FieldDescriptor.TYPE_INT32)),
        ("int64", FieldDescriptor.TYPE_INT64),
    )
}
VARINT, LENGTH_DELIMITED = 0, 2
FIELD = re.compile(r"(\d+) (\w+)([*?]?) (map<.*>|[\w.]+)(?: \|(\w+))?")


def message_class(name: str) -> Any:
    return getattr(common_pb2, name, None) or getattr(control_pb2, name)


def table(kind: str) -> dict[str, list[str]]:
    """The lines of a kind: name -> entries."""
    words = [line.removeprefix(f"{kind} ").partition(":") for line in TABLES if line.startswith(f"{kind} ")]
    return {name: [entry for entry in rest.strip().split("; ") if entry] for name, _, rest in words}


def type_of(field: Any) -> str:
    named = field.message_type or field.enum_type
    if named is None:
        return SCALARS[field.type]
    if field.message_type and named.GetOptions().map_entry:
        return f"map<{', '.join(type_of(half) for half in named.fields)}>"
    return str(named.name if named.file in FILES else named.full_name)


def entry_of(field: Any) -> str:
    """A field as the tables have it."""
    kind, group = type_of(field), field.containing_oneof
    optional = group is not None and len(group.fields) == 1 and group.name == f"_{field.name}"
    mark = "?" if optional else "*" if field.is_repeated and not kind.startswith("map") else ""
    return f"{field.number} {field.name}{mark} {kind}" + (f" |{group.name}" if group and not optional else "")


def plain(entries: list[str]) -> set[str]:
    return {entry for entry in entries if not entry.startswith("reserved")}


def test_messages_are_those_of_the_tables_field_by_field() -> None:
    own = {message.name: message for file in FILES for message in file.message_types_by_name.values()}
    tables = table("message")
    assert own.keys() == tables.keys()
    for name, message in own.items():
        assert {entry_of(field) for field in message.fields} == plain(tables[name]), name


def test_enums_are_those_of_the_tables_value_by_value() -> None:
    own = {enum.name: enum for file in FILES for enum in file.enum_types_by_name.values()}
    assert {name: {f"{value.name}={value.number}" for value in enum.values} for name, enum in own.items()} == {
        name: set(entries) for name, entries in table("enum").items()
    }


def test_methods_are_those_of_the_tables() -> None:
    def side(message: Any, stream: bool) -> str:
        return ("stream " if stream else "") + str(message.name)

    assert {
        method.name: [
            f"{side(method.input_type, method.client_streaming)} -> {side(method.output_type, method.server_streaming)}"
        ]
        for method in SERVICE.methods
    } == table("method")


FIELDS = [(name, entry) for name, entries in table("message").items() for entry in plain(entries)]


def test_bytes_of_each_field_are_read_as_that_field_alone_and_written_again() -> None:
    """Of the members of a oneof each."""
    enums = table("enum")
    seen = 0
    for name, entry in FIELDS:
        match = FIELD.fullmatch(entry)
        assert match is not None, entry
        number, field, mark, kind, _ = match.groups()
        data, value = encoded(int(number), kind, mark == "*", enums)
        message = message_class(name).FromString(data)
        (found,) = message.ListFields()
        assert found[0].name == field, (name, entry)
        shown = found[1][0] if mark == "*" else found[1]
        if value is not None:
            assert shown == value, (name, entry)
        message.DiscardUnknownFields()
        assert message.SerializeToString(deterministic=True) == data, (name, entry)
        seen += 1
    assert seen == len(FIELDS) > 400


def encoded(number: int, kind: str, repeated: bool, enums: dict[str, list[str]]) -> tuple[bytes, Any]:
    """A field's bytes, and its value where that is no message. Source: protobuf.dev, "Encoding"."""

    def delimited(data: bytes) -> bytes:
        return varint(number << 3 | LENGTH_DELIMITED) + varint(len(data)) + data

    if kind in ("string", "bytes"):
        text = f"value {number}"
        return delimited(text.encode()), text if kind == "string" else text.encode()
    if kind in SCALARS.values() or kind in enums:
        value = 1 if kind == "bool" or kind in enums else 100_000 + number
        packed = varint(value)
        return delimited(packed) if repeated else varint(number << 3 | VARINT) + packed, value
    # Of a map an entry with the key 5 and an empty message; else an empty message.
    entry = varint(1 << 3 | VARINT) + varint(5) + varint(2 << 3 | LENGTH_DELIMITED) + varint(0)
    return delimited(entry if kind.startswith("map") else b""), None


def varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


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
    generate(tmp_path)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert made
    there = {path.relative_to(PROJECT) for path in (*HERE.glob("*_pb2.py*"), *HERE.glob("*_grpc.py"))}
    assert set(made) == there
    stale = [str(path) for path, data in made.items() if (PROJECT / path).read_bytes() != data]
    assert not stale, "python -m runtime.host.api.generate makes them anew"
