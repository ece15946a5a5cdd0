"""A registry on loopback that does what a script says: serve, cut, lie, refuse, redirect, ask for tokens."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from support.tars import Image, sha256


@dataclass
class Fault:
    """What to do instead, once, with a request whose path contains `match`.

    drop_at:  send the right headers and this many bytes of the body, then close the connection.
    status:   answer this, with `headers` and `body`.
    body:     with status 0: the wrong body under a right status.
    raw:      answer these bytes instead of HTTP, and close the connection.
    flip:     alter one bit of the body, at this place.
    delay_s:  wait before the answer; drip_s: between any two bytes of the head and the body.
    framing:  "chunked", or "close": a body without a length that ends with the connection.
    """

    match: str
    status: int = 0
    body: bytes | None = None
    drop_at: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    ignore_range: bool = False
    times: int = 1
    raw: bytes | None = None
    flip: int | None = None
    delay_s: float = 0
    drip_s: float = 0
    framing: str = ""


@dataclass
class Request:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    method: str = "GET"
    form: dict[str, list[str]] = field(default_factory=dict)

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


class FakeRegistry:
    """Images by "repository" and tag; `requests` is the log.

    basic: "user:password" wanted; token: a bearer token wanted, given out at /token (for `token_user` where set, or
    for `identity`, an identity token).
    """

    def __init__(self, address: str = "127.0.0.1", certificate: tuple[Path, Path] | None = None) -> None:
        self.documents: dict[str, tuple[bytes, str]] = {}  # "repo/name" -> bytes, media type
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.basic = self.token = self.token_user = self.identity = ""
        self.realm = ""
        self.closing = threading.Event()
        self._lock = threading.Lock()
        owner = self

        class Handler(_Handler):
            registry = owner

        kind = type("Server", (_Server,), {"address_family": socket.AF_INET6}) if ":" in address else _Server
        self._server = kind((address, 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.host = f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"
        self.scheme = "https" if certificate else "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.tls = context
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, repository: str, tag: str, image: Image) -> str:
        """Serve an image; returns its reference by tag."""
        self.blobs.update(image.blobs)
        self.add_document(repository, tag, image.manifest, image.media_type)
        return f"docker://{self.host}/{repository}:{tag}"

    def add_document(self, repository: str, tag: str, data: bytes, media_type: str) -> None:
        for name in (tag, sha256(data)):
            self.documents[f"{repository}/{name}"] = (data, media_type)

    def take_fault(self, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.match in path and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def paths(self, part: str) -> list[Request]:
        """The requests whose path contains `part`."""
        return [request for request in self.requests if part in request.path]


class _Server(ThreadingHTTPServer):
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is not None:
            request = self.tls.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), (ConnectionError, ssl.SSLError)):  # clients hang up where a test makes them
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    registry: FakeRegistry
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        """Lies: nothing is as it says, and no client of ours asks."""
        self.registry.requests.append(Request(self.path, {}, "HEAD"))
        self.send_response(200)
        self._headers({"Docker-Content-Digest": "sha256:" + "0" * 64}, 1)

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.registry.requests.append(Request(self.path, headers, "POST", form))
        fault = self.registry.take_fault(self.path)
        if fault is not None and fault.status:
            self._send(fault.status, fault.body or b"", fault.headers)
        elif self.path.startswith("/token") and form.get("refresh_token") == [self.registry.identity]:
            self._send(200, json.dumps({"access_token": self.registry.token}).encode(), {})
        else:
            self._error(401, "UNAUTHORIZED")

    def do_GET(self) -> None:
        registry = self.registry
        registry.requests.append(Request(self.path, {key.lower(): value for key, value in self.headers.items()}))
        fault = registry.take_fault(self.path)
        if fault is not None and fault.delay_s:
            registry.closing.wait(fault.delay_s)
        if fault is not None and fault.raw is not None:
            self._raw(fault.raw, fault.drip_s)
        elif fault is not None and fault.status:
            self._send(fault.status, fault.body or b"", fault.headers)
        elif self.path.startswith("/token"):
            self._give_token()
        elif not self._authorized():
            pass
        elif match := re.fullmatch(r"/v2/(.+)/manifests/(.+)", self.path):
            found = registry.documents.get(f"{match[1]}/{match[2]}")
            if found is None:
                self._error(404, "MANIFEST_UNKNOWN")
            else:
                self._serve(found[0], {"Content-Type": found[1]}, fault)
        elif match := re.search(r"(sha(?:256|512):[0-9a-f]+)(?:\?|$)", self.path):
            data = registry.blobs.get(match[1])
            if data is None:
                self._error(404, "BLOB_UNKNOWN")
            else:
                self._serve(data, {"Content-Type": "application/octet-stream"}, fault)
        else:
            self._error(404, "NAME_UNKNOWN")

    def _authorized(self) -> bool:
        registry, sent = self.registry, self.headers.get("Authorization", "")
        if registry.basic:
            import base64

            if sent == "Basic " + base64.b64encode(registry.basic.encode()).decode():
                return True
            self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="a, \\"registry\\""'})
            return False
        if registry.token:
            if sent == f"Bearer {registry.token}":
                return True
            realm = registry.realm or f"{registry.scheme}://{registry.host}/token"
            challenge = f'Bearer realm="{realm}",service="fake",scope="repository:app:pull"'
            self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})
            return False
        return True

    def _give_token(self) -> None:
        import base64

        registry = self.registry
        wanted = "Basic " + base64.b64encode(registry.token_user.encode()).decode()
        if registry.token_user and self.headers.get("Authorization") != wanted:
            self._error(401, "UNAUTHORIZED")
            return
        self._send(200, json.dumps({"token": registry.token}).encode(), {"Content-Type": "application/json"})

    def _serve(self, data: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        headers = headers | (fault.headers if fault else {})
        if fault is not None and fault.body is not None:
            data = fault.body
        if fault is not None and fault.flip is not None and data:
            at = fault.flip % len(data)
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        status, begin = 200, 0
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match and not (fault and fault.ignore_range):
            status, begin = 206, int(match[1])
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        rest = data[begin:]
        if fault is not None and fault.drop_at is not None:
            self.send_response(status)
            self._headers(headers, len(rest))
            self.wfile.write(rest[: fault.drop_at])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault is not None and fault.framing:
            self._send_framed(status, rest, headers, fault.framing)
        elif fault is not None and fault.drip_s:
            head = f"HTTP/1.1 {status} OK\r\nContent-Length: {len(rest)}\r\n\r\n".encode()
            self._raw(head + rest, fault.drip_s)
        else:
            self._send(status, rest, headers)

    def _raw(self, data: bytes, drip_s: float) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            if not drip_s:
                self.wfile.write(data)
            for at in range(len(data)) if drip_s else ():
                self.wfile.write(data[at : at + 1])
                self.registry.closing.wait(drip_s)

    def _send_framed(self, status: int, data: bytes, headers: dict[str, str], framing: str) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            if framing == "chunked":
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for at in range(0, len(data), 1000):
                    piece = data[at : at + 1000]
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
            else:
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = True

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps({"errors": [{"code": code, "message": "no"}]}).encode(), headers or {})

    def _headers(self, headers: dict[str, str], size: int) -> None:
        for key, value in ({"Content-Length": str(size)} | headers).items():
            self.send_header(key, value)
        self.end_headers()

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self._headers(headers, len(data))
            self.wfile.write(data)


@contextlib.contextmanager
def fake_registry(address: str = "127.0.0.1", certificate: tuple[Path, Path] | None = None) -> Iterator[FakeRegistry]:
    """A FakeRegistry that is gone afterwards; with files of a certificate and its key it speaks TLS."""
    registry = FakeRegistry(address, certificate)
    try:
        yield registry
    finally:
        registry.close()
