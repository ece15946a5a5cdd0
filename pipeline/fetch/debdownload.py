"""Fetch .debs in parallel, straight into the store, each counted and hashed on the way."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.debian import LockedPackage
from pipeline.errors import DigestMismatch, PipelineError
from pipeline.fetch import apt
from pipeline.progress import Bar, Progress
from pipeline.store import Store

ATTEMPTS = 4
FIRST_PAUSE_S = 0.5
CHUNK_BYTES = 256 << 10
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
WORKERS = 6
WORTH_A_RETRY = frozenset({408, 425, 429, 500, 502, 503, 504})


class DownloadFailed(PipelineError):
    """A package that could not be fetched."""


class PackageGone(PipelineError):
    """A locked package the mirror no longer has."""


def fetch_all(store: Store, progress: Progress, packages: Sequence[LockedPackage], *, title: str) -> None:
    """Put every package into the store, or raise for the first that cannot be had.

    Raises:  DownloadFailed, PackageGone, DigestMismatch.
    """
    stop = threading.Event()
    total = sum(package.size_bytes for package in packages)
    with progress.bar(title, total=total) as bar, ThreadPoolExecutor(WORKERS, "deb") as pool:
        jobs = [pool.submit(_fetch, store, package, bar, stop) for package in packages]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            stop.set()  # running downloads end at their next chunk, waiting ones before they begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch(store: Store, package: LockedPackage, bar: Bar, stop: threading.Event) -> None:
    """One package, tried a few times where the fault may pass."""
    subject = f"package {package.name} {package.version}"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch_once(store, package, subject, bar, stop)
            return
        except (DownloadFailed, DigestMismatch) as error:
            if not error.temporary or attempt == ATTEMPTS or stop.is_set():
                raise
        stop.wait(FIRST_PAUSE_S * 2 ** (attempt - 1))


def _fetch_once(store: Store, package: LockedPackage, subject: str, bar: Bar, stop: threading.Event) -> None:
    with store.writer() as writer, _body(package.uri, subject) as chunks:
        for chunk in chunks:
            if stop.is_set():
                raise DownloadFailed(subject, got="given up, as another package could not be had")
            writer.write(chunk)
            bar.advance(len(chunk))
            if writer.size_bytes > package.size_bytes:
                break  # longer than signed for: commit says so
        writer.commit(expected=package.descriptor, subject=subject)


@contextlib.contextmanager
def _body(uri: str, subject: str) -> Iterator[Iterator[bytes]]:
    """The bytes behind an http, https or file URI."""
    if uri.startswith("file:"):
        try:
            with open(unquote(urlsplit(uri).path), "rb") as file:
                yield iter(lambda: file.read(CHUNK_BYTES), b"")
        except FileNotFoundError as error:
            raise PackageGone(subject, expected=f"it at {uri}", got="no such file") from error
        return
    import urllib3

    response: Any = None
    try:
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
        # The archive's files are stored compressed; a proxy that adds an encoding would break the size.
        headers = {"Accept-Encoding": "identity", "User-Agent": "zonewright"}
        response = _manager(uri).request(
            "GET", uri, preload_content=False, retries=urllib3.Retry(0, redirect=5), timeout=timeout, headers=headers
        )
        if response.status in (404, 410):
            raise PackageGone(subject, expected=f"it at {uri}", got=f"HTTP status {response.status}")
        if response.status != 200:
            _honour_retry_after(response)
            raise DownloadFailed(
                subject,
                expected=f"HTTP status 200 from {uri}",
                got=str(response.status),
                hint="run again",
                temporary=response.status in WORTH_A_RETRY,
            )
        yield response.stream(CHUNK_BYTES, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise DownloadFailed(
            subject,
            expected=f"it from {uri}",
            got=f"{type(error).__name__}: {str(error)[:200]}",
            hint="check the network and run again",
            temporary=True,
        ) from error
    finally:
        if response is not None:
            response.close()


def _honour_retry_after(response: Any) -> None:
    """Wait as long as a busy server asks for, within reason."""
    with contextlib.suppress(TypeError, ValueError):
        time.sleep(min(float(response.headers.get("Retry-After")), 10.0))


_managers: dict[str, Any] = {}
_managers_lock = threading.Lock()


def _manager(uri: str) -> Any:
    """The connection pool for a URI: through the proxy of the environment or of apt, if there is one."""
    import urllib3

    proxy = _proxy_for(uri)
    with _managers_lock:
        if proxy not in _managers:
            options: dict[str, Any] = {"maxsize": WORKERS, "num_pools": 8}
            _managers[proxy] = urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
        return _managers[proxy]


def _proxy_for(uri: str) -> str:
    """`http_proxy` and its like, which win over `Acquire::http::Proxy` for apt, too (apt.conf(5))."""
    import urllib.request  # brings http.client and ssl: no cost for a run that finds everything made

    parts = urlsplit(uri)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    return urllib.request.getproxies().get(parts.scheme) or apt.proxies().get(parts.scheme, "")
