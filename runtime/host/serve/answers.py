"""The edges of a service's method: its requests in, and its faults out as a status with the whole fault beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import struct
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import DecodeError
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import StreamClosedError

from pipeline.errors import SentenceError
from runtime.errors import RuntimeFault
from runtime.host.faults import FIELD_LIMIT, fault_body, kind_of

log = logging.getLogger(__name__)

# Source: host.proto, the comment at its top.
ERROR_KEY = "zonewright-error-bin"
# gRPC's own frame of a message: compressed or not, length. Source: gRPC over HTTP2, "Length-Prefixed-Message".
HEADER = struct.Struct(">?I")
MESSAGE_LIMIT_BYTES = 16 << 20

# By the fault's name, as one that came from elsewhere has no class here. All others: failed precondition, or
# unavailable where a retry is worth it.
STATUSES = {
    "UnknownZone": Status.NOT_FOUND,
    "BlobMissing": Status.NOT_FOUND,
    "NameTaken": Status.ALREADY_EXISTS,
    "BadRequest": Status.INVALID_ARGUMENT,
    "BadSpec": Status.INVALID_ARGUMENT,
    "BadReference": Status.INVALID_ARGUMENT,
    "UnknownFormat": Status.INVALID_ARGUMENT,
    "NoSuchUser": Status.INVALID_ARGUMENT,
    "NoSuchImage": Status.NOT_FOUND,
    "MachineSaysNo": Status.RESOURCE_EXHAUSTED,
    "BadMessage": Status.INVALID_ARGUMENT,
    "BadModel": Status.INVALID_ARGUMENT,
    "BadDigest": Status.INVALID_ARGUMENT,
    "BadDocument": Status.INVALID_ARGUMENT,
    "DigestMismatch": Status.INVALID_ARGUMENT,
    "BadToken": Status.OUT_OF_RANGE,
    "NotEnough": Status.RESOURCE_EXHAUSTED,
    "WaitTimeout": Status.DEADLINE_EXCEEDED,
    "BootCancelled": Status.ABORTED,
    "ZoneFailed": Status.ABORTED,
    "NoAgent": Status.UNAVAILABLE,
    "StateDamaged": Status.DATA_LOSS,
    "NotServed": Status.UNIMPLEMENTED,
    "Accident": Status.INTERNAL,
}


class BadMessage(RuntimeFault):
    """What came is no message of the method's type."""


class NotServed(RuntimeFault):
    """A method this zoned does not have, or not yet."""


class Accident(RuntimeFault):
    """An error nobody foresaw; zoned's log has where it was."""


def status_of(error: SentenceError) -> Status:
    """The gRPC status of a fault."""
    return STATUSES.get(kind_of(error), Status.UNAVAILABLE if error.temporary else Status.FAILED_PRECONDITION)


def method_of(stream: Any) -> str:
    """The name of the method a stream calls."""
    return str(stream._method_name.rpartition("/")[2])


async def request_of(stream: Any) -> Any:
    """The one request, or the first of several. Raises BadMessage."""
    if (message := await next_request(stream)) is None:
        raise BadMessage(f"request of {method_of(stream)}", expected="a message", got="none")
    return message


async def next_request(stream: Any) -> Any:
    """The next request; None when the client has ended them. Raises BadMessage, also for one that is far too large.

    grpclib's own would read a message of any size into memory, and fails in its own ways for what is none.
    """
    subject = f"request of {method_of(stream)}"
    try:
        header = await stream._stream.recv_data(HEADER.size)
        if not header:
            return None
        compressed, size_bytes = HEADER.unpack(header)
        if compressed:
            raise BadMessage(subject, expected="no compression, as none was offered", got="a compressed message")
        if size_bytes > MESSAGE_LIMIT_BYTES:
            raise BadMessage(subject, expected=f"at most {MESSAGE_LIMIT_BYTES} bytes", got=f"{size_bytes}")
        return stream._codec.decode(await stream._stream.recv_data(size_bytes), stream._recv_type)
    except (DecodeError, AssertionError, struct.error) as error:
        raise BadMessage(subject, expected="a message of its type", got=str(error) or "other bytes") from error


@contextlib.asynccontextmanager
async def answering(stream: Any) -> AsyncIterator[None]:
    """The body of one method: whatever it raises becomes its answer.

    Effects: a cancellation (the client has gone, or its deadline passed) goes through, so that the core undoes what was
    begun for it.
    """
    try:
        yield
    except SentenceError as error:
        await refuse(stream, error)
    except (GRPCError, StreamTerminatedError, StreamClosedError, asyncio.CancelledError):
        raise
    except Exception as error:
        method = method_of(stream)
        log.exception("method %s", method)
        await refuse(
            stream, Accident(f"method {method}", got=f"{type(error).__name__}: {error}", hint="see zoned's log")
        )


async def refuse(stream: Any, error: SentenceError) -> None:
    """End a call with a fault."""
    with contextlib.suppress(StreamClosedError):  # nobody is left to tell
        await stream.send_trailing_metadata(
            status=status_of(error),
            status_message=str(error)[:FIELD_LIMIT],
            metadata={ERROR_KEY: json.dumps(fault_body(error), separators=(",", ":")).encode()},
        )
