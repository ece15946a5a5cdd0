"""HTTP for registries: one request with redirects, authorization, retries and deadline; bodies are left to the caller.

Retried:   429, 500, 502, 503, 504 and broken connections; the sender's Retry-After counts, within bounds.
Redirects: at most five; Authorization stays with the scheme, host and port it was made for; https never leads to http.
"""

from __future__ import annotations

import email.utils
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from pipeline.fetch.connections import Connections, Tls, proxy_of
from pipeline.fetch.errors import RegistryError, Unreachable

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

    def end(self) -> None:
        """Leave no time: whoever asks from now on is refused."""
        self._end = time.monotonic()

    def wait(self, attempt: int, retry_after: str | None, subject: str) -> None:
        """Sleep before attempt number `attempt` + 1: what the server asks for, else doubling; either with jitter."""
        asked, unit = retry_after_s(retry_after), self.patience.backoff_s
        doubled = unit * 2 ** min(attempt, 30) * random.uniform(0.5, 1.0)
        seconds = doubled if asked is None else asked + unit * random.random()
        self._sleep(min(seconds, self.patience.wait_max_s, self.left_s(subject)))


def retry_after_s(value: str | None) -> float | None:
    """The seconds a Retry-After header asks for; None for none or nonsense."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL: what an Authorization header belongs to. Raises ValueError for no URL."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80}.get(parts.scheme, 443)


def redacted(url: str) -> str:
    """A URL without user, password and query, any of which may be a secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "no URL"
    return urlunsplit(SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class Client:
    """Connections to any number of hosts. Safe for threads; `close` ends it."""

    def __init__(
        self,
        patience: Patience | None = None,
        *,
        tls: Mapping[str, Tls] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.deadline = Deadline(patience or Patience(), sleep)
        self._connections = Connections(tls)
        self._alarm = threading.Timer(self.deadline.patience.deadline_s, self._connections.cut)
        self._alarm.daemon = True
        self._started = threading.Lock()

    def close(self) -> None:
        """Close what is open."""
        self._alarm.cancel()
        self._connections.close()

    def stop(self) -> None:
        """End what other threads are doing, with an error for each."""
        self.deadline.end()
        self._connections.cut()

    def get(self, url: str, headers: Mapping[str, str], *, subject: str, attempts: int = 0) -> Any:
        """A response (urllib3's) whose body is unread; redirects followed, temporary failures retried.

        attempts: instead of the patience's.
        Raises:   Unreachable for what stays broken, RegistryError; a 4xx other than 429 is returned.
        """
        return self._ask("GET", url, headers, None, subject, attempts)

    def post(self, url: str, headers: Mapping[str, str], data: bytes, *, subject: str) -> Any:
        """The same for a POST that may be repeated, which follows no redirect: `data` is for this URL alone."""
        return self._ask("POST", url, headers, data, subject, 0)

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes | None, subject: str, attempts: int
    ) -> Any:
        attempts = attempts or self.deadline.patience.attempts
        attempt = 0
        while True:
            try:
                response = self._follow(method, url, dict(headers), data, subject)
                if response.status not in TEMPORARY:
                    return response
                failure, after = said(response), response.headers.get("Retry-After")
                response.close()
            except self.transport_errors() as error:
                self._refuse_bad_certificate(error, url, subject)
                failure, after = f"{_reason(error)} from {_way(url)}", None
            attempt += 1
            if attempt >= attempts:
                raise Unreachable(
                    subject,
                    expected="an answer",
                    got=f"{failure} ({attempt} times)",
                    hint="rate limit: wait, or log in" if failure.startswith("429") else "run again later",
                    temporary=True,
                )
            self.deadline.wait(attempt - 1, after, subject)

    @staticmethod
    def _refuse_bad_certificate(error: Exception, url: str, subject: str) -> None:
        for cause in _causes(error):
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise RegistryError(
                    subject,
                    expected=f"TLS with a certificate for {origin(url)[1]} that is trusted here",
                    got=str(cause.verify_message or "another")[:120],
                    hint=f'the config file may name one: registries."{urlsplit(url).netloc}".ca',
                )

    @staticmethod
    def transport_errors() -> tuple[type[Exception], ...]:
        """What urllib3 raises for connections that fail or break."""
        import urllib3

        return (urllib3.exceptions.HTTPError, ssl.SSLError, ConnectionError, TimeoutError)

    def _follow(self, method: str, url: str, headers: dict[str, str], data: bytes | None, subject: str) -> Any:
        import urllib3

        with self._started:
            if not self._alarm.is_alive() and not self._alarm.finished.is_set():
                self._alarm.start()
        for _ in range(REDIRECTS_MAX + 1):
            patience, left = self.deadline.patience, self.deadline.left_s(subject)
            response = self._connections.pool(url).request(
                method,
                url,
                headers=headers,
                body=data,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=min(patience.connect_s, left), read=min(patience.read_s, left)),
            )
            if response.status not in REDIRECTS:
                response.origin = origin(url)  # who it is that answers, at the end of all redirects
                return response
            location = response.headers.get("Location", "")
            body(response, ERROR_BODY_BYTES)
            if method != "GET":
                raise RegistryError(subject, expected=f"an answer from {redacted(url)}", got="a redirect")
            target = _target(url, location, subject)
            if origin(target) != origin(url):
                headers.pop("Authorization", None)
            url = target
        raise RegistryError(subject, expected=f"at most {REDIRECTS_MAX} redirects", got="more")


def _target(url: str, location: str, subject: str) -> str:
    """Where a redirect leads. Raises RegistryError for what is no URL, or leads from https to http."""
    try:
        target = urljoin(url, location)
        scheme, host, _ = origin(target)
    except ValueError:
        scheme = host = target = ""
    if scheme not in ("http", "https") or not host or (scheme == "http" and origin(url)[0] == "https"):
        got = f"one to {redacted(target)}" if target else "one to no URL"
        raise RegistryError(subject, expected="a redirect to https", got=got[:200])
    return target


def _way(url: str) -> str:
    """A URL as an error shows it, with the proxy on the way."""
    proxy = proxy_of(url)
    return redacted(url) + (f" by way of the proxy {redacted(proxy)}" if proxy else "")


def _causes(error: BaseException) -> list[BaseException]:
    """An error and what it came from, as urllib3 wraps it."""
    found: list[BaseException] = []
    step: Any = error
    while isinstance(step, BaseException) and step not in found:
        found.append(step)
        inside = (argument for argument in step.args if isinstance(argument, BaseException))
        step = step.__cause__ or getattr(step, "original_error", None) or next(inside, None)
    return found


def _reason(error: Exception) -> str:
    """Why a connection failed: the system's words where it has any, else the kind of error. Never a URL."""
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return f"no TLS ({cause.reason or type(cause).__name__})"
        if isinstance(cause, OSError) and cause.strerror:
            return str(cause.strerror)
    return type(causes[0]).__name__


def body(response: Any, limit_bytes: int) -> bytes:
    """Up to limit_bytes + 1 bytes of a body, which ends the response."""
    data = bytearray()
    complete = False
    try:
        while len(data) <= limit_bytes:
            chunk = response.read(min(65536, limit_bytes + 1 - len(data)))
            if not chunk:
                complete = True
                break
            data += chunk
    finally:
        # What is not read to its end cannot be asked for something else.
        response.release_conn() if complete else response.close()
    return bytes(data)


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
