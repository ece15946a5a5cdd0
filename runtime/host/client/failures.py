"""What goes wrong between a client and zoned, turned into faults that read as one sentence."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import ssl
from collections.abc import Mapping
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import decode_metadata

from runtime.host.client.endpoint import Endpoint
from runtime.host.faults import ConnectionLost, HostDown, RemoteFault, remote_fault

# The trailing metadata that carries a fault whole. Source: host.proto.
ERROR_KEY = "zonewright-error-bin"
TEMPORARY = frozenset({Status.UNAVAILABLE, Status.ABORTED, Status.RESOURCE_EXHAUSTED, Status.DEADLINE_EXCEEDED})

# asyncio raises these without a number or a word.
_NUMBERS: dict[type[BaseException], int] = {
    ConnectionResetError: errno.ECONNRESET,
    ConnectionAbortedError: errno.ECONNABORTED,
    TimeoutError: errno.ETIMEDOUT,
}


class NotServed(RemoteFault):
    """A method the other zoned does not have."""


def fault_of(error: GRPCError, trailing: Mapping[str, Any] | None, *, subject: str) -> RemoteFault:
    """The fault behind a gRPC status; the status alone where no metadata of ours came with it."""
    with contextlib.suppress(ValueError, TypeError):
        body = (trailing or {}).get(ERROR_KEY)
        if isinstance(body, bytes):
            return remote_fault(json.loads(body), subject=subject)
    got = error.message or error.status.name.replace("_", " ").lower()
    if error.status is Status.UNIMPLEMENTED:
        return NotServed(subject, got=got, hint="its zoned is of another version")
    fault = RemoteFault(subject, got=got, temporary=error.status in TEMPORARY)
    fault.kind = error.status.name
    return fault


def trailing_of(stream: Any) -> Mapping[str, Any] | None:
    """The trailing metadata of a call, also where grpclib raised for the status before it had decoded it."""
    if stream.trailing_metadata is not None:
        return dict(stream.trailing_metadata)
    inner = getattr(stream, "_stream", None)
    headers = inner and (inner.trailers or inner.headers)
    return dict(decode_metadata(headers)) if headers else None


def unreachable(endpoint: Endpoint, error: OSError) -> HostDown:
    """The fault for a connection that could not be made."""
    if endpoint.scheme == "unix":
        if isinstance(error, PermissionError):
            return HostDown(
                endpoint.name, expected=f"leave to use {endpoint.path}", got=_words(error), hint="zoned is root's"
            )
        return HostDown(
            endpoint.name,
            expected=f"zoned to listen on {endpoint.path}",
            got=_words(error),
            hint="zone host up" if endpoint.name == "host xen" else "is it started?",
            temporary=True,
        )
    where = f"zoned to listen on {endpoint.host} port {endpoint.port}"
    if isinstance(error, ssl.SSLError):
        return HostDown(endpoint.name, expected="a zoned this client may trust", got=tls_words(error))
    hint = "zone host up" if endpoint.name == "host lab" else ""
    return HostDown(endpoint.name, expected=where, got=_words(error), hint=hint, temporary=True)


def shut_out(endpoint: Endpoint, why: BaseException | None) -> HostDown:
    """The fault for a TLS connection the other side ended before it had said a word."""
    assert endpoint.credentials is not None
    got = tls_words(why) if isinstance(why, ssl.SSLError) else "a closed connection"
    hint = "its zoned has another authority by now, or is no zoned; `zone host cert client NAME` there makes a new one"
    with contextlib.suppress(Exception):  # whatever it is, the hint is all that depends on it
        from cryptography import x509

        until = x509.load_pem_x509_certificate(endpoint.credentials.certificate.read_bytes()).not_valid_after_utc
        if until < datetime.datetime.now(datetime.UTC):
            hint = f"it has expired on {until:%Y-%m-%d}; `zone host cert client NAME` there makes a new one"
    return HostDown(endpoint.name, expected="it to take this client's certificate", got=got, hint=hint)


def ssh_ended(endpoint: Endpoint, said: str) -> HostDown:
    """The fault for an ssh that has ended, with what it said last."""
    return HostDown(
        endpoint.name,
        expected="ssh to lead to zoned",
        got=f"the connection is lost: {said}" if said else "the connection is lost",
        hint=f"`ssh {endpoint.host} zone host status` tells more",
        temporary=True,
    )


def lost(endpoint: Endpoint, why: BaseException | None, what: str = "") -> ConnectionLost:
    """The fault for a connection that ended while an answer was awaited."""
    reason = what or (_words(why) if isinstance(why, OSError) else "")
    got = f"the connection is lost: {reason}" if reason else "the connection is lost"
    return ConnectionLost(endpoint.name, got=got, temporary=True)


def tls_words(error: ssl.SSLError) -> str:
    """A TLS failure in words: OpenSSL's, without its numbers and file names."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"a certificate that does not hold: {error.verify_message}"
    return f"a refusal: {(error.reason or str(error)).replace('_', ' ').lower()}"


def _words(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if not text and (number := _NUMBERS.get(type(error))):
        text = os.strerror(number)
    return (text or type(error).__name__).lower()
