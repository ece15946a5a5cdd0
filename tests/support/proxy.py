"""Between a client and a real registry: passes on what comes, and does to chosen requests what a test asks for."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOP_BY_HOP = ("connection", "transfer-encoding", "content-length", "keep-alive")


@dataclass
class Trouble:
    """What happens, `times` times, to requests of `method` ("" any) whose path contains `match`.

    status:   this answer, instead of the registry's, with `headers` and `body`.
    cut:      pass on this many bytes of the answer's body, then close the connection.
    swallow:  the registry gets the request, the client no answer.
    lose:     take this many bytes of the request's body, pass them on, then close the connection.
    stall_s:  answer after that.
    flip:     alter one bit of the answer's body.
    """

    method: str = ""
    match: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    swallow: bool = False
    lose: int | None = None
    stall_s: float = 0
    flip: bool = False
    times: int = 1


class Proxy:
    """`requests` is the log: (method, path, size of the body).

    keeps_state: the newest place of an upload is known here. docker-registry 2.8 has its state in the URL alone, and
    drops an upload whose answer got lost; registries that follow the specification go on with it.
    break_after: every request after so many is answered with 503, as by a registry that has just died.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.troubles: list[Trouble] = []
        self.requests: list[tuple[str, str, int]] = []
        self.authorizations: list[str] = []
        self.keeps_state = False
        self.break_after: int | None = None
        self._places: dict[str, str] = {}
        self._lock = threading.Lock()
        owner = self

        class Handler(_Handler):
            proxy = owner

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, method: str, path: str) -> Trouble:
        with self._lock:
            if self.break_after is not None and len(self.requests) >= self.break_after:
                return Trouble(status=503)
            for trouble in self.troubles:
                if trouble.times > 0 and trouble.method in ("", method) and trouble.match in path:
                    trouble.times -= 1
                    return trouble
        return Trouble()

    def place(self, path: str) -> str:
        """The path of an upload as the registry wants it now."""
        newest = self._places.get(path.partition("?")[0]) if self.keeps_state else None
        digest = re.search("[?&](digest=[^&]+)", path)
        return path if newest is None else newest + (f"&{digest[1]}" if digest else "")

    def note_place(self, location: str) -> None:
        path = re.sub("^https?://[^/]+", "", location)
        self._places[path.partition("?")[0]] = path

    def asked(self, method: str, match: str = "") -> list[str]:
        """The paths of the requests of a method that contain `match`."""
        return [path for verb, path, _ in self.requests if verb == method and match in path]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _pass_on(self) -> None:
        proxy, size = self.proxy, int(self.headers.get("Content-Length") or 0)
        trouble = proxy.take(self.command, self.path)
        proxy.requests.append((self.command, self.path, size))
        proxy.authorizations.append(self.headers.get("Authorization", ""))
        time.sleep(trouble.stall_s)
        data = self.rfile.read(size if trouble.lose is None else min(size, trouble.lose))
        if trouble.status:
            self._answer(trouble.status, dict(trouble.headers), trouble.body, trouble)
            return
        connection = http.client.HTTPConnection(proxy.upstream, timeout=30)
        try:
            headers = {key: value for key, value in self.headers.items() if key.lower() not in HOP_BY_HOP}
            if trouble.lose is not None and size:
                headers["Content-Range"] = f"{headers.get('Content-Range', '0-').split('-')[0]}-"
                headers["Content-Range"] += str(int(headers["Content-Range"][:-1]) + len(data) - 1)
            connection.request(self.command, proxy.place(self.path), body=data if size else None, headers=headers)
            response = connection.getresponse()
            content = response.read()
            proxy.note_place(response.getheader("Location", ""))
            if trouble.swallow or trouble.lose is not None:
                self._hang_up()
                return
            kept = {key: value for key, value in response.getheaders() if key.lower() not in HOP_BY_HOP}
            size_header = response.getheader("Content-Length")
            if self.command == "HEAD" and size_header:
                kept["Content-Length"] = size_header
            self._answer(response.status, kept, content, trouble)
        finally:
            connection.close()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on

    def _answer(self, status: int, headers: dict[str, str], content: bytes, trouble: Trouble) -> None:
        if trouble.flip and content:
            content = content[:-1] + bytes([content[-1] ^ 1])
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            for key, value in ({"Content-Length": str(len(content))} | headers).items():
                if status != 204 or key.lower() != "content-length":
                    self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content if trouble.cut is None else content[: trouble.cut])
        if trouble.cut is not None:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy_to(upstream: str) -> Iterator[Proxy]:
    """A Proxy that is gone afterwards."""
    proxy = Proxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
