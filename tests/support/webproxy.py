"""An HTTP proxy on loopback that takes every host name for a place the test says."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping


class WebProxy:
    """places: "host:port" as asked for -> the address to connect to. user: "name:password" it wants, or "".

    `asked` is the log: first lines of requests.
    """

    def __init__(self, places: Mapping[str, tuple[str, int]], user: str = "") -> None:
        self.places, self.user = dict(places), user
        self.asked: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._one, args=(self._socket.accept()[0],), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and (data := client.recv(65536)):
                head += data
            lines = head.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
            self.asked.append(lines[0])
            wanted = "Proxy-Authorization: Basic " + base64.b64encode(self.user.encode()).decode()
            if self.user and wanted.lower() not in [line.lower() for line in lines]:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            method, target, _ = lines[0].split(" ")
            if method == "CONNECT":
                name = target
            else:  # an absolute URL; one request a connection is enough here
                name, slash, path = target.removeprefix("http://").partition("/")
                name += "" if ":" in name else ":80"
                kept = [line for line in lines[1:] if not line.lower().startswith(("proxy-", "connection:"))]
                head = "\r\n".join([f"{method} {slash}{path} HTTP/1.1", *kept, "Connection: close", "", ""]).encode()
            place = self.places.get(name)
            if place is None:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            with socket.create_connection(place) as upstream:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    upstream.sendall(head)
                back = threading.Thread(target=_pipe, args=(upstream, client), daemon=True)
                back.start()
                _pipe(client, upstream)
                back.join()


def _pipe(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def web_proxy(places: Mapping[str, tuple[str, int]], user: str = "") -> Iterator[WebProxy]:
    """A WebProxy that is gone afterwards."""
    proxy = WebProxy(places, user)
    try:
        yield proxy
    finally:
        proxy.close()
