"""One repository of a registry to write to: blobs whole or in chunks that are resumed, manifests byte for byte.

Source:  OCI distribution specification, "Push".
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from pipeline.config import Config
from pipeline.errors import StoreDamaged
from pipeline.fetch.connections import Tls
from pipeline.fetch.endpoint import tls_by_host
from pipeline.fetch.errors import RegistryError
from pipeline.fetch.http import ERROR_BODY_BYTES, TEMPORARY, Deadline, Patience, body, origin, redacted, said
from pipeline.fetch.reference import RegistryReference
from pipeline.fetch.registry import RegistrySource
from pipeline.oci import Descriptor
from pipeline.remote.speaker import speaker
from pipeline.store import Store

CHUNK_BYTES = 8 << 20
DOUBTS = 3  # how often it is asked again when it says that bytes are others

Advance = Callable[[int], None]


class _Broken(Exception):
    """A request that had no answer, or a temporary refusal: what came of it has to be asked for."""

    def __init__(self, why: str, retry_after: str | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class _Doubted(_Broken):
    """The registry says that bytes are not those of their digest, and they are.

    docker-registry says so now and then to one of several who upload the same blob at the same time (seen with 2.8.2):
    it rewrites the file that links a blob to its repository in place, and another request finds it empty. A manifest
    that names the blob is refused for the same.
    """

    def __init__(self, refusal: RegistryError) -> None:
        super().__init__(refusal.got)
        self.refusal = refusal


class Uploads:
    """Uploads to one repository. Safe for threads; `close` ends it.

    docker_config: docker's config.json; the user's own if None.
    """

    def __init__(
        self,
        reference: RegistryReference,
        *,
        config: Config | None = None,
        patience: Patience | None = None,
        docker_config: Path | None = None,
        chunk_bytes: int | None = None,
    ) -> None:
        self._reference, self._chunk_bytes = reference, chunk_bytes or CHUNK_BYTES
        registries = (config or Config()).registries
        self._source = RegistrySource(reference, patience=patience, config=docker_config, registries=registries)
        self._deadline = Deadline(patience or Patience())
        tls = tls_by_host(registries).get(reference.host, Tls())
        self._oras, self._container = speaker(reference, self._source, self._deadline, tls, self._denied)

    def close(self) -> None:
        """End the connections."""
        self._oras.session.close()
        self._source.close()

    # -- blobs ---------------------------------------------------------------------------------------------------------

    def has(self, blob: Descriptor, subject: str) -> bool:
        """Does the repository have the blob? Raises RegistryError."""
        url = f"{self._oras.prefix}://{self._container.get_blob_url(str(blob.digest))}"
        response = self._patiently("HEAD", url, subject)
        if response.status_code not in (200, 404):
            raise self._refused(response, subject)
        return bool(response.status_code == 200)

    def blob(self, store: Store, blob: Descriptor, subject: str, advance: Advance) -> None:
        """Send a blob of the store, which the repository does not have.

        Raises:  StoreDamaged for bytes that do not hash to the digest: the registry is not asked to keep them then;
                 RegistryError.
        """
        try:
            file = open(store.path(blob.digest), "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            raise StoreDamaged(subject, expected=f"{blob.digest} in the store", got="no such object") from None
        with file:
            content = _Content(file, blob, subject)
            broken = doubted = 0
            while True:
                last: RegistryError | None = None
                try:
                    self._send(content, blob, subject, advance)
                    return
                except _Doubted as error:
                    failure: _Broken = error
                    doubted += 1
                    if doubted > DOUBTS:
                        last = error.refusal
                except _Broken as error:
                    failure = error
                    broken += 1
                    if broken >= self._deadline.patience.attempts:
                        last = self._gave_up(str(error), subject)
                advance(-content.sent)
                self._deadline.wait(broken + doubted - 1, failure.retry_after, subject)
                if self.has(blob, subject):  # the answer got lost, the upload did not
                    advance(blob.size_bytes)
                    return
                if last is not None:
                    raise last

    def _send(self, content: _Content, blob: Descriptor, subject: str, advance: Advance) -> None:
        """One upload session: one PUT where one chunk holds the blob, else PATCHes, resumed where they break."""
        content.sent = 0
        response = self._once("POST", f"{self._oras.prefix}://{self._container.upload_blob_url()}", subject, data=b"")
        if response.status_code != 202:
            raise self._refused(response, subject)
        location = self._location(response, subject)
        smallest = response.headers.get("OCI-Chunk-Min-Length", "")
        size = max(self._chunk_bytes, int(smallest[:10]) if smallest.isdigit() else 0)
        last = b""
        if blob.size_bytes <= size:
            last = content.read(0, size)
        else:
            location = self._chunks(content, blob, size, location, subject, advance)
        try:
            content.check()
        except StoreDamaged:
            with contextlib.suppress(Exception):
                self._once("DELETE", location, subject)
            raise
        separator = "&" if urlsplit(location).query else "?"
        response = self._once("PUT", f"{location}{separator}digest={blob.digest}", subject, data=last)
        if response.status_code == 400:
            raise _Doubted(self._refused(response, subject))
        if response.status_code != 201:
            raise self._refused(response, subject)
        content.sent += len(last)
        advance(len(last))

    def _chunks(
        self, content: _Content, blob: Descriptor, size: int, location: str, subject: str, advance: Advance
    ) -> str:
        stalled = 0
        while content.sent < blob.size_bytes:
            data = content.read(content.sent, size)
            if not data:
                break  # shorter than its descriptor says: the check will name it
            headers = {"Content-Range": f"{content.sent}-{content.sent + len(data) - 1}"}
            try:
                response = self._once("PATCH", location, subject, data=data, headers=headers)
                if response.status_code not in (202, 416):
                    raise self._refused(response, subject)
                location = self._location(response, subject, location)
                there = _received(response.headers)
                now = content.sent + len(data) if there is None or response.status_code == 202 else there
                stalled = 0 if response.status_code == 202 else stalled + 1
            except _Broken as error:
                stalled += 1
                if stalled >= self._deadline.patience.attempts:
                    raise
                self._deadline.wait(stalled - 1, error.retry_after, subject)
                location, now = self._resume(location, subject)
            if stalled >= self._deadline.patience.attempts:
                raise _Broken("416 for every chunk")
            advance(now - content.sent)
            content.sent = now
        return location

    def _resume(self, location: str, subject: str) -> tuple[str, int]:
        """Where a broken upload stands."""
        response = self._once("GET", location, subject)
        if response.status_code != 204:
            raise _Broken(f"an upload that is forgotten ({response.status_code})")
        return self._location(response, subject, location), _received(response.headers) or 0

    # -- manifests -----------------------------------------------------------------------------------------------------

    def manifest(self, name: str, data: bytes, media_type: str, subject: str) -> None:
        """Give the repository a manifest under a tag or its digest, byte for byte. Raises RegistryError."""
        url = f"{self._oras.prefix}://{self._container.manifest_url(name)}"
        for doubted in range(DOUBTS + 1):
            response = self._patiently("PUT", url, subject, data=data, headers={"Content-Type": media_type})
            if response.status_code in (200, 201, 202):
                return
            refusal = self._refused(response, subject)
            if "DIGEST_INVALID" not in refusal.got:
                break
            if doubted < DOUBTS:
                self._deadline.wait(doubted, None, subject)
        raise refusal

    # -- requests ------------------------------------------------------------------------------------------------------

    def _patiently(self, method: str, url: str, subject: str, **options: Any) -> Any:
        """The answer to a request that may be sent twice."""
        for attempt in range(self._deadline.patience.attempts):
            try:
                return self._once(method, url, subject, **options)
            except _Broken as error:
                failure = error
            if attempt + 1 < self._deadline.patience.attempts:
                self._deadline.wait(attempt, failure.retry_after, subject)
        raise self._gave_up(str(failure), subject)

    def _once(
        self, method: str, url: str, subject: str, *, data: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Any:
        """One answer, its body read to the end of what is of interest. Raises _Broken, RegistryError."""
        import requests

        self._deadline.left_s(subject)
        sent = dict(headers or {})
        if data is not None:
            sent.setdefault("Content-Type", "application/octet-stream")
        try:
            # oras's own request without the retries it is wrapped in.
            ask = type(self._oras).do_request.__wrapped__
            response = ask(self._oras, url, method, data=data, headers=sent, stream=True)
            if response.status_code in TEMPORARY:
                raise _Broken(said(response.raw), response.headers.get("Retry-After"))
            if response.status_code < 400:
                body(response.raw, ERROR_BODY_BYTES)
            return response
        except requests.exceptions.SSLError:
            host = origin(self._source.base)[1]
            raise RegistryError(
                subject, expected=f"TLS with a certificate for {host} that is trusted here", got="none"
            ) from None
        except _broken_connections() as error:
            raise _Broken(f"{_reason(error)} from {redacted(url)}") from None

    def _location(self, response: Any, subject: str, before: str = "") -> str:
        location = str(self._oras._get_location(response, self._container) or before)
        if not location:
            raise RegistryError(subject, expected="the place to upload to", got="an answer without Location")
        joined = urljoin(self._source.base, location)
        if origin(joined)[0] == "http" and origin(self._source.base)[0] == "https":
            raise RegistryError(subject, expected="an upload to https", got=redacted(joined))
        return joined

    def _denied(self, refusal: str) -> RegistryError:
        host = self._reference.host
        return RegistryError(
            f"{host}/{self._reference.repository}",
            expected="leave to push",
            got=refusal,
            hint=f"docker login {host}, or skopeo login {host}",
        )

    def _refused(self, response: Any, subject: str) -> RegistryError:
        if response.status_code in (401, 403):
            return self._denied(said(response.raw))
        return RegistryError(subject, expected=f"{redacted(self._source.base)} to take it", got=said(response.raw))

    def _gave_up(self, failure: str, subject: str) -> RegistryError:
        times = self._deadline.patience.attempts
        return RegistryError(
            subject, expected="an answer", got=f"{failure} ({times} times)", hint="run again later", temporary=True
        )


class _Content:
    """A blob being sent: every byte hashed the first time it is read. `sent`: how much the registry has."""

    def __init__(self, file: IO[bytes], blob: Descriptor, subject: str) -> None:
        self._file, self._blob, self._subject = file, blob, subject
        self._hash, self._hashed = hashlib.new(blob.digest.algorithm), 0
        self.sent = 0

    def read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(size)
        if offset <= self._hashed < offset + len(data):
            self._hash.update(memoryview(data)[self._hashed - offset :])
            self._hashed = offset + len(data)
        return data

    def check(self) -> None:
        """Raise StoreDamaged unless all was read and hashes to the digest."""
        if self._hashed != self._blob.size_bytes or self._hash.hexdigest() != self._blob.digest.hex:
            raise StoreDamaged(
                self._subject,
                expected=f"bytes of {self._blob.digest} in the store",
                got="others",
                hint="build again to heal it",
            )


def _received(headers: Any) -> int | None:
    """How many bytes of an upload the registry has, by its Range header; None without one."""
    match = re.fullmatch(r"(?:bytes=)?0-(\d{1,18})", headers.get("Range", ""))
    return None if match is None else int(match[1]) + (match[1] != "0")


def _broken_connections() -> tuple[type[Exception], ...]:
    import requests
    import urllib3

    return (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)


def _reason(error: BaseException | None) -> str:
    """Why a connection failed: the system's words where there are any. Never a URL, which the outer errors quote."""
    inner, name = error, "a broken connection"
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        if isinstance(inner, TimeoutError) or "Timeout" in type(inner).__name__:
            name = "no answer in time"
        inner = inner.__cause__ or inner.__context__
    return name
