"""Connections to registries: over which proxy, believing which certificates, and all of them cut when time is up.

Source:  urllib3, "Advanced Usage"; curl(1), "ENVIRONMENT", for what the proxy variables mean.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.fetch.errors import RegistryError

PER_HOST = 8
_LOGGERS = ("connection", "connectionpool", "poolmanager", "response", "util.retry")


@dataclass(frozen=True)
class Tls:
    """Files of PEM: certificates to believe instead of the system's; our own certificate and its key."""

    ca: str = ""
    certificate: str = ""
    key: str = ""


class Connections:
    """Pools of connections, by proxy and by Tls. Safe for threads.

    tls:  by `host` or `host:port`.
    """

    def __init__(self, tls: Mapping[str, Tls] | None = None) -> None:
        for name in _LOGGERS:
            logging.getLogger(f"urllib3.{name}").addFilter(without_query)
        self._tls = tls or {}
        self._pools: dict[tuple[str, Tls], Any] = {}
        self._guard = threading.Lock()
        self._open: set[socket.socket] = set()

    def pool(self, url: str) -> Any:
        """The pool (urllib3's) that a URL is asked over. Raises RegistryError for settings that cannot be used."""
        parts = urlsplit(url)
        proxy = proxy_of(url)
        tls = Tls()
        if parts.scheme == "https":
            tls = self._tls.get(parts.netloc) or self._tls.get(parts.netloc.removesuffix(":443")) or tls
        with self._guard:
            if (proxy, tls) not in self._pools:
                self._pools[proxy, tls] = self._make(proxy, tls, parts)
            return self._pools[proxy, tls]

    def close(self) -> None:
        """Close what is open."""
        for pool in self._pools.values():
            pool.clear()
        for twin in list(self._open):
            self._forget(twin)

    def cut(self) -> None:
        """Break every connection, so that whoever waits for one goes on, with an error."""
        for twin in list(self._open):
            with contextlib.suppress(OSError):
                twin.shutdown(socket.SHUT_RDWR)

    def _make(self, proxy: str, tls: Tls, parts: Any) -> Any:
        import urllib3

        options: dict[str, Any] = {"maxsize": PER_HOST}
        if parts.scheme == "https":
            options["ssl_context"] = _context(tls, parts.netloc)
        if not proxy:
            pool: Any = urllib3.PoolManager(**options)
        else:
            found = urlsplit(proxy)
            user = f"{unquote(found.username)}:{unquote(found.password or '')}" if found.username else None
            headers = urllib3.make_headers(proxy_basic_auth=user)
            where = f"{found.scheme}://{found.netloc.rpartition('@')[2]}"
            pool = urllib3.ProxyManager(where, proxy_headers=headers, **options)
        pool.pool_classes_by_scheme = _watched(self._note, self._forget)
        return pool

    def _note(self, opened: socket.socket) -> socket.socket:
        """Keep a second descriptor of a socket: it can be shut down whatever has been wrapped around the first."""
        twin = opened.dup()
        with self._guard:
            self._open.add(twin)
        return twin

    def _forget(self, twin: socket.socket) -> None:
        with self._guard:
            self._open.discard(twin)
        twin.close()


def without_query(record: logging.LogRecord) -> bool:
    """A logging filter: urllib3 logs whole URLs, and the query of a signed one is a secret."""
    record.msg, record.args = re.sub(r"\?[^\s\"']*", "?…", record.getMessage()), ()
    return True


def _watched(note: Any, forget: Any) -> dict[str, Any]:
    """urllib3's pools, of connections that tell when they open and when they are done with."""
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class Watched:
        _twin: socket.socket | None = None
        _handing_over = False

        def _new_conn(self) -> socket.socket:
            opened: socket.socket = super()._new_conn()  # type: ignore[misc]
            self._drop()
            self._twin = note(opened)
            return opened

        def getresponse(self) -> Any:
            # A response after which the sender closes takes the socket over: http.client then closes the connection.
            self._handing_over = True
            try:
                return super().getresponse()  # type: ignore[misc]
            finally:
                self._handing_over = False

        def close(self) -> None:
            super().close()  # type: ignore[misc]
            if not self._handing_over:
                self._drop()

        def _drop(self) -> None:
            if self._twin is not None:
                forget(self._twin)
                self._twin = None

    class PlainConnection(Watched, HTTPConnection):
        pass

    class TlsConnection(Watched, HTTPSConnection):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = PlainConnection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    return {"http": PlainPool, "https": TlsPool}


def _context(tls: Tls, host: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
        if tls.certificate:
            # Without a password callback OpenSSL would ask on the terminal for that of a locked key.
            context.load_cert_chain(tls.certificate, tls.key or None, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(name for name in (tls.ca, tls.certificate, tls.key) if name)
        why = error.strerror if isinstance(error, OSError) and error.strerror else "no such certificates"
        raise RegistryError(
            f'registries."{host}" of the config file', expected=f"PEM in {files or 'the system'}", got=why[:120]
        ) from None
    return context


def proxy_of(url: str) -> str:
    """The proxy the environment names for a URL, or "". This machine is never asked over one.

    Raises:  RegistryError for a proxy that is neither http nor https.
    """
    from pipeline.fetch.reference import is_loopback

    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    host = parts.hostname or ""
    if not proxy or is_loopback(host) or urllib.request.proxy_bypass(host):
        return ""
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    scheme = urlsplit(proxy).scheme
    if scheme not in ("http", "https"):
        raise RegistryError(f"${parts.scheme}_proxy", expected="an http:// or https:// proxy", got=f"{scheme}://…")
    return proxy
