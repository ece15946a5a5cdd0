"""Faults that cross a connection: as JSON on the way, as exceptions at both ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import SentenceError
from runtime.errors import RuntimeFault

# One field of a fault on the way. HTTP/2 peers refuse header lists above 64 KiB.
FIELD_LIMIT = 4000


class RemoteFault(RuntimeFault):
    """An error the other side reported; `kind` is the name of its class there."""

    kind = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return (*super().__reduce__(), {"kind": self.kind})


class HostDown(RuntimeFault):
    """The host is not up, or its zoned does not answer."""


class ConnectionLost(RuntimeFault):
    """The other side went away while an answer was awaited."""


class CallTimeout(RuntimeFault):
    """No answer within the deadline."""


def kind_of(error: BaseException) -> str:
    """The name of an error's class, where it was first raised."""
    return error.kind if isinstance(error, RemoteFault) else type(error).__name__


def fault_body(error: SentenceError) -> dict[str, Any]:
    """An error as JSON: {kind, subject, expected, got, hint, temporary}."""
    texts = {name: str(getattr(error, name))[:FIELD_LIMIT] for name in ("subject", "expected", "got", "hint")}
    return {"kind": kind_of(error), **texts, "temporary": error.temporary}


def remote_fault(body: Any, *, subject: str = "zoned") -> RemoteFault:
    """The error the other side reported, as an exception here; what is missing in the body is made up for."""
    fields: Mapping[str, Any] = body if isinstance(body, dict) else {}
    fault = RemoteFault(
        str(fields.get("subject", subject)),
        expected=str(fields.get("expected", "")),
        got=str(fields.get("got", "an error")),
        hint=str(fields.get("hint", "")),
        temporary=fields.get("temporary") is True,
    )
    fault.kind = str(fields.get("kind", ""))
    return fault
