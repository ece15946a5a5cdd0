"""Frozen dataclasses to JSON and back, and the JSON Schema of either: one definition, three uses.

Understood types: str, int, float, bool, None, Digest, Descriptor, Enum, dataclasses, tuple[T, ...], dict[str, T],
T | None.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from pipeline.errors import PipelineError
from pipeline.oci import Descriptor, Digest

T = TypeVar("T")


class BadModel(PipelineError):
    """A document that does not fit the dataclass it should become."""


def to_json(value: Any) -> Any:
    """The JSON form of a model; fields that are None are left out."""
    if isinstance(value, Descriptor):
        return value.to_json()
    if isinstance(value, Digest):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: to_json(item) for name, item in pairs if item is not None}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    return value


def from_json(cls: type[T], document: Any, *, subject: str = "") -> T:
    """Build `cls` from its JSON form. Raises BadModel naming the key, what was expected and what came."""
    return typing.cast(T, _decode(cls, document, subject or cls.__name__))


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        (inner,) = [arg for arg in args if arg is not type(None)]
        return _decode(inner, value, where)
    if kind is Any:
        return value
    if kind is Digest:
        return Digest.parse(value)
    if kind is Descriptor:
        return Descriptor.from_json(value, subject=where)
    if origin is tuple:
        _expect(isinstance(value, list), where, "a list", value)
        return tuple(_decode(args[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        _expect(isinstance(value, dict), where, "an object", value)
        return {key: _decode(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        _expect(value in [member.value for member in kind], where, f"one of {[m.value for m in kind]}", value)
        return kind(value)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    kind = getattr(kind, "__supertype__", kind)
    fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    _expect(fits or (kind is float and isinstance(value, int)), where, kind.__name__, value)
    return value


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), where, "an object", value)
    hints, arguments = _hints(kind), {}
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in value:
        _expect(key in fields, f"{where}.{key}", f"one of the keys {sorted(fields)}", key)
    for name, field in fields.items():
        if name in value:
            arguments[name] = _decode(hints[name], value[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            optional = type(None) in typing.get_args(hints[name])
            _expect(optional, f"{where}.{name}", "a value", "nothing")
            arguments[name] = None
    return kind(**arguments)


def _expect(condition: bool, where: str, expected: str, got: Any) -> None:
    if not condition:
        raise BadModel(where, expected=expected, got=repr(got)[:120])


def schema_of(cls: type) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a model."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": cls.__name__, **_schema(cls)}


_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}


def _schema(kind: Any) -> dict[str, Any]:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    kind = getattr(kind, "__supertype__", kind)
    if kind is Any:
        return {}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if origin in (types.UnionType, typing.Union):
        return _schema(next(arg for arg in args if arg is not type(None)))
    if kind is Digest:
        return {"type": "string", "pattern": "^sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})$"}
    if kind is Descriptor:
        properties = {
            "mediaType": {"type": "string"},
            "digest": _schema(Digest),
            "size": {"type": "integer", "minimum": 0},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        }
        return {"type": "object", "properties": properties, "required": ["mediaType", "digest", "size"]}
    if origin is tuple:
        return {"type": "array", "items": _schema(args[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(args[1])}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    hints = _hints(kind)
    required = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and type(None) not in typing.get_args(hints[field.name])
    ]
    return {
        "type": "object",
        "properties": {field.name: _schema(hints[field.name]) for field in dataclasses.fields(kind)},
        "required": required,
        "additionalProperties": False,
    }
