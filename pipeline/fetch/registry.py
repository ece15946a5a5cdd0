"""A read-only client of OCI registries. Nothing it gives is believed before its digest was checked by who asked.

Source:  OCI distribution specification, "Pull"; distribution "Token Authentication Specification".
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from pipeline.errors import DigestMismatch
from pipeline.fetch.auth import Challenge, Credentials, challenges, credentials
from pipeline.fetch.errors import NoSuchImage, RegistryError
from pipeline.fetch.http import Client, Patience, body, origin, redacted, said
from pipeline.fetch.manifest import ACCEPT, MANIFEST_MAX_BYTES
from pipeline.fetch.reference import HUB, RegistryReference, is_loopback
from pipeline.oci import Descriptor
from pipeline.store import BlobWriter

READ_BYTES = 256 << 10
TOKEN_MAX_BYTES = 1 << 20
HUB_AUTH_HOST = "auth.docker.io"


class RegistrySource:
    """One repository of one registry. Safe for threads.

    config:  docker's config.json; the user's own if None.
    """

    def __init__(
        self, reference: RegistryReference, *, patience: Patience | None = None, config: Path | None = None
    ) -> None:
        self._reference = reference
        scheme = "http" if reference.loopback else "https"
        self._base = f"{scheme}://{reference.api_host}/v2/{reference.repository}"
        self._client = Client(patience)
        self._config = config
        self._authorization = ""
        self._guard = threading.Lock()

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    @property
    def base(self) -> str:
        """The URL of the repository, such as `https://host/v2/repository`."""
        return self._base

    # -- what a fetch asks ---------------------------------------------------------------------------------------------

    def manifest(self, name: str, *, subject: str) -> tuple[bytes, str]:
        """The bytes and the media type of the manifest of a tag or digest.

        Raises:  NoSuchImage, RegistryError.
        """
        for attempt in range(self._client.deadline.patience.attempts):
            headers = {"Accept": ACCEPT, "Accept-Encoding": "identity"}
            response = self._get(f"/manifests/{name}", headers, subject)
            try:
                data = body(response, MANIFEST_MAX_BYTES)
                return data, response.headers.get("Content-Type", "")
            except self._client.transport_errors():
                self._client.deadline.wait(attempt, None, subject)
        raise self._broken(subject, "its manifest")

    def copy(self, descriptor: Descriptor, writer: BlobWriter, advance: Callable[[int], None], subject: str) -> None:
        """Write a blob's bytes, one more than its size at most; a broken connection is resumed where it broke.

        Raises:  RegistryError, NoSuchImage, DigestMismatch for more bytes than the descriptor says.
        """
        stalled = 0
        while stalled < self._client.deadline.patience.attempts:
            begin = writer.size_bytes
            try:
                self._copy_once(descriptor, writer, advance, subject)
            except self._client.transport_errors():
                pass
            if writer.size_bytes > descriptor.size_bytes:
                raise DigestMismatch(subject, expected=f"{descriptor.size_bytes} bytes", got="more")
            if writer.size_bytes == descriptor.size_bytes:
                return
            stalled = 0 if writer.size_bytes > begin else stalled + 1
            self._client.deadline.wait(stalled, None, subject)
        raise self._broken(subject, f"{descriptor.size_bytes} bytes", f"{writer.size_bytes} and a broken connection")

    def _copy_once(
        self, descriptor: Descriptor, writer: BlobWriter, advance: Callable[[int], None], subject: str
    ) -> None:
        begin = writer.size_bytes
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begin}-"} if begin else {})
        response = self._get(f"/blobs/{descriptor.digest}", headers, subject)
        try:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise RegistryError(
                    subject, expected="the blob as it is", got=f"it in {response.headers['Content-Encoding']!r}"[:60]
                )
            if begin and not (
                response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {begin}-")
            ):
                writer.restart()
                advance(-begin)
                if response.status != 200:
                    return
            while data := response.read(min(READ_BYTES, descriptor.size_bytes + 1 - writer.size_bytes)):
                writer.write(data)
                advance(len(data))
                self._client.deadline.left_s(subject)
        finally:
            response.release_conn() if response.length_remaining == 0 else response.close()

    def _broken(self, subject: str, expected: str, got: str = "a broken connection each time") -> RegistryError:
        return RegistryError(subject, expected=expected, got=got, hint="run again", temporary=True)

    # -- requests ------------------------------------------------------------------------------------------------------

    def _get(self, path: str, headers: dict[str, str], subject: str) -> Any:
        """A response of status 200, 206 or 416; authorization is got, and got anew once, where it is asked for."""
        used = self._authorization
        for _ in range(3):
            sent = headers | ({"Authorization": used} if used else {})
            response = self._client.get(self._base + path, sent, subject=subject)
            if response.status in (200, 206, 416):
                return response
            if response.status != 401:
                raise self._refused(response, subject)
            header = response.headers.get("WWW-Authenticate", "")
            refusal = said(response)
            with self._guard:
                if self._authorization in ("", used):
                    fresh = self.authorize(header, subject)
                    if not fresh or (fresh == used and fresh.startswith("Basic ")):
                        raise self._unauthorized(subject, refusal)
                    self._authorization = fresh
                used = self._authorization
        raise self._unauthorized(subject, refusal)

    def _unauthorized(self, subject: str, refusal: str) -> RegistryError:
        host = self._reference.host
        return RegistryError(
            subject, expected="access", got=refusal, hint=f"docker login {host}, or skopeo login {host}"
        )

    def _refused(self, response: Any, subject: str) -> NoSuchImage | RegistryError:
        what = said(response)
        if response.status == 404:
            return NoSuchImage(subject, expected=f"it at {self._reference.host}", got=what)
        return RegistryError(subject, expected=f"{redacted(self._base)} to give it", got=what)

    def authorize(self, header: str, subject: str) -> str:
        """The Authorization header a challenge asks for, or "" where we have none."""
        known = credentials(self._reference.host, self._config)
        for challenge in challenges(header):
            if challenge.scheme == "bearer":
                return "Bearer " + self._token(challenge, known, subject)
            if challenge.scheme == "basic" and known is not None and not known.identity_token:
                return known.basic()
        return ""

    def _token(self, challenge: Challenge, known: Credentials | None, subject: str) -> str:
        realm = challenge.parameters.get("realm", "")
        self._check_realm(realm, subject)
        scope = challenge.parameters.get("scope") or f"repository:{self._reference.repository}:pull"
        query = {"service": challenge.parameters.get("service", ""), "scope": scope}
        separator = "&" if urlsplit(realm).query else "?"
        headers = {}
        if known is not None and self._trusted(realm):
            if known.identity_token:
                raise RegistryError(
                    subject, expected="a user and password in config.json", got="an identity token", hint="log in again"
                )
            headers["Authorization"] = known.basic()
        response = self._client.get(f"{realm}{separator}{urlencode(query)}", headers, subject=subject)
        if response.status != 200:
            raise self._unauthorized(subject, f"{said(response)} from {redacted(realm)}")
        try:
            document = json.loads(body(response, TOKEN_MAX_BYTES))
        except ValueError:
            document = None
        token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise RegistryError(subject, expected=f"a token from {redacted(realm)}", got="none")
        return token

    def _trusted(self, realm: str) -> bool:
        """Credentials go to the registry's own host, and to Docker Hub's token server for Docker Hub."""
        host = origin(realm)[1]
        return host == origin(self._base)[1] or (self._reference.host == HUB and host == HUB_AUTH_HOST)

    def _check_realm(self, realm: str, subject: str) -> None:
        scheme, host, _ = origin(realm) if realm else ("", "", 0)
        plain = scheme == "http" and self._base.startswith("http:") and is_loopback(host)
        elsewhere = is_loopback(host) and not self._reference.loopback
        if not (scheme == "https" or plain) or elsewhere:
            raise RegistryError(subject, expected="a token server on https", got=redacted(realm)[:100] or "none")
