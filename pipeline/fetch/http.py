"""HTTP for registries: one request with redirects, authorization, retries and deadline; bodies are left to the caller.

Retried:   429, 500, 502, 503, 504 and broken connections; the sender's Retry-After counts, within bounds.
Redirects: at most five; Authorization stays with the scheme, host and port it was made for; https never leads to http.
"""

from __future__ import annotations

import email.utils
import random
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from pipeline.fetch.errors import RegistryError

REDIRECTS = (301, 302, 303, 307, 308)
REDIRECTS_MAX = 5
TEMPORARY = (429, 500, 502, 503, 504)
ERROR_BODY_BYTES = 4096


@dataclass(frozen=True)
class Patience:
    """How long and how often to try. deadline_s: for everything one fetch asks of a registry."""

    attempts: int = 5
    connect_s: float = 15.0
    read_s: float = 60.0
    deadline_s: float = 3600.0
    backoff_s: float = 0.5
    wait_max_s: float = 30.0


class Deadline:
    """The time that is left, and waiting that does not outlast it."""

    def __init__(self, patience: Patience, sleep: Callable[[float], None] = time.sleep) -> None:
        self.patience, self._sleep = patience, sleep
        self._end = time.monotonic() + patience.deadline_s

    def left_s(self, subject: str) -> float:
        """Seconds left. Raises RegistryError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            limit = f"an end within {self.patience.deadline_s:.0f} s"
            raise RegistryError(subject, expected=limit, got="none", hint="run again", temporary=True)
        return left

    def wait(self, attempt: int, retry_after: str | None, subject: str) -> None:
        """Sleep before attempt number `attempt` + 1: what the server asks for, else doubling with jitter."""
        asked = retry_after_s(retry_after)
        seconds = self.patience.backoff_s * 2**attempt * random.uniform(0.5, 1.0) if asked is None else asked
        self._sleep(min(seconds, self.patience.wait_max_s, self.left_s(subject)))


def retry_after_s(value: str | None) -> float | None:
    """The seconds a Retry-After header asks for; None for none or nonsense."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(min(int(value.strip()[:9]), 10**9))
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return max(0.0, moment.timestamp() - time.time())


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL: what an Authorization header belongs to."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80}.get(parts.scheme, 443)


def redacted(url: str) -> str:
    """A URL without user, password and query, any of which may be a secret."""
    parts = urlsplit(url)
    return urlunsplit(SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class Client:
    """Connections to any number of hosts. Safe for threads; `close` ends it."""

    def __init__(self, patience: Patience | None = None, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.deadline = Deadline(patience or Patience(), sleep)
        self._pools: dict[str, Any] = {}
        self._guard = threading.Lock()

    def close(self) -> None:
        """Close what is open."""
        for pool in self._pools.values():
            pool.clear()

    def get(self, url: str, headers: Mapping[str, str], *, subject: str) -> Any:
        """A response (urllib3's) whose body is unread; redirects followed, temporary failures retried.

        Raises:  RegistryError for what stays broken; a 4xx other than 429 is returned.
        """
        attempt = 0
        while True:
            try:
                response = self._follow(url, dict(headers), subject)
                if response.status not in TEMPORARY:
                    return response
                failure, after = said(response), response.headers.get("Retry-After")
                response.close()
            except self.transport_errors() as error:
                self._refuse_bad_certificate(error, url, subject)
                failure, after = f"{_reason(error)} from {redacted(url)}", None
            attempt += 1
            if attempt >= self.deadline.patience.attempts:
                raise RegistryError(
                    subject,
                    expected="an answer",
                    got=f"{failure} ({attempt} times)",
                    hint="rate limit: wait, or log in" if failure.startswith("429") else "run again later",
                    temporary=True,
                )
            self.deadline.wait(attempt - 1, after, subject)

    @staticmethod
    def _refuse_bad_certificate(error: Exception, url: str, subject: str) -> None:
        import urllib3

        if isinstance(error, urllib3.exceptions.SSLError):
            host = origin(url)[1]
            raise RegistryError(subject, expected=f"TLS with a certificate for {host} that is trusted here", got="none")

    @staticmethod
    def transport_errors() -> tuple[type[Exception], ...]:
        """What urllib3 raises for connections that fail or break."""
        import urllib3

        return (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)

    def _follow(self, url: str, headers: dict[str, str], subject: str) -> Any:
        import urllib3

        for _ in range(REDIRECTS_MAX + 1):
            patience, left = self.deadline.patience, self.deadline.left_s(subject)
            response = self._pool(url).request(
                "GET",
                url,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=min(patience.connect_s, left), read=min(patience.read_s, left)),
            )
            if response.status not in REDIRECTS:
                return response
            target = urljoin(url, response.headers.get("Location", ""))
            response.drain_conn()
            response.release_conn()
            if origin(target)[0] not in ("http", "https") or (
                origin(url)[0] == "https" and origin(target)[0] == "http"
            ):
                raise RegistryError(subject, expected="a redirect to https", got=f"one to {redacted(target)}")
            if origin(target) != origin(url):
                headers.pop("Authorization", None)
            url = target
        raise RegistryError(subject, expected=f"at most {REDIRECTS_MAX} redirects", got="more")

    def _pool(self, url: str) -> Any:
        import urllib3

        scheme, host, _ = origin(url)
        proxy = urllib.request.getproxies().get(scheme, "")
        if proxy and (urllib.request.proxy_bypass(host) or host in ("localhost", "127.0.0.1", "::1")):
            proxy = ""
        with self._guard:
            if proxy not in self._pools:
                self._pools[proxy] = urllib3.ProxyManager(proxy, maxsize=8) if proxy else urllib3.PoolManager(maxsize=8)
            return self._pools[proxy]


def _reason(error: Exception) -> str:
    """Why a connection failed: the system's words where it has any, else the kind of error. Never a URL."""
    cause = error.__cause__ or error
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else type(error).__name__


def body(response: Any, limit_bytes: int) -> bytes:
    """Up to limit_bytes + 1 bytes of a body, which ends the response."""
    data = bytearray()
    try:
        while len(data) <= limit_bytes and (chunk := response.read(min(65536, limit_bytes + 1 - len(data)))):
            data += chunk
        complete = len(data) <= limit_bytes
    finally:
        response.release_conn() if not response.length_remaining else response.close()
    return bytes(data) if complete else bytes(data[: limit_bytes + 1])


def said(response: Any) -> str:
    """What a refusal says: its status and the code of the distribution error, never its free text."""
    import json

    text = str(response.status)
    try:
        document = json.loads(body(response, ERROR_BODY_BYTES))
        code = document["errors"][0]["code"]
    except Exception:
        return text
    return (
        f"{text} {code}" if isinstance(code, str) and code.isascii() and code.isprintable() and len(code) < 64 else text
    )
