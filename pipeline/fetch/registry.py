"""A read-only client of OCI registries. Nothing it gives is believed before its digest was checked by who asked.

Source:  OCI distribution specification, "Pull".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config import RegistryConfig
from pipeline.errors import DigestMismatch
from pipeline.fetch.auth import Credentials
from pipeline.fetch.endpoint import endpoints, tls_by_host
from pipeline.fetch.errors import NoSuchImage, RegistryError, Unreachable
from pipeline.fetch.http import Client, Patience, body
from pipeline.fetch.manifest import ACCEPT, MANIFEST_MAX_BYTES
from pipeline.fetch.reference import RegistryReference
from pipeline.fetch.session import Session
from pipeline.oci import BadDigest, Descriptor, Digest
from pipeline.store import BlobWriter

T = TypeVar("T")
READ_BYTES = 256 << 10
MIRROR_ATTEMPTS = 2  # there is someone else to ask
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class RegistrySource:
    """One repository of one registry, and of its mirrors. Safe for threads.

    registries: settings by host; a mirror that gives no answer or does not have something is passed over.
    config:     docker's config.json; the user's own if None.
    known:      who we are to a host, instead of what that file says.
    """

    def __init__(
        self,
        reference: RegistryReference,
        *,
        patience: Patience | None = None,
        config: Path | None = None,
        registries: Mapping[str, RegistryConfig] | None = None,
        known: Mapping[str, Credentials] | None = None,
    ) -> None:
        registries, known = registries or {}, known or {}
        self._client = Client(patience, tls=tls_by_host(registries))
        self._sessions = [
            Session(
                found,
                self._client,
                config=config,
                attempts=MIRROR_ATTEMPTS if found.mirror else 0,
                known=known.get(found.host),
            )
            for found in endpoints(reference, registries)
        ]
        self._dead: set[Session] = set()

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def stop(self) -> None:
        """End what other threads are asking: nobody wants it any more."""
        self._client.stop()

    @property
    def base(self) -> str:
        """The URL of the repository at the registry itself, such as `https://host/v2/repository`."""
        return self._sessions[-1].endpoint.base

    def authorize(self, header: str, subject: str) -> str:
        """The Authorization header that the registry itself asks for, or "" where we have none."""
        return self._sessions[-1].authorize(header, subject)

    # -- what a fetch asks ---------------------------------------------------------------------------------------------

    def manifest(self, name: str, *, subject: str) -> tuple[bytes, str]:
        """The bytes and the media type of the manifest of a tag or digest.

        Raises:  NoSuchImage, RegistryError, DigestMismatch.
        """
        return self._first(lambda session: self._manifest(session, name, subject))

    def copy(self, descriptor: Descriptor, writer: BlobWriter, advance: Callable[[int], None], subject: str) -> None:
        """Write a blob's bytes, one more than its size at most; a broken connection is resumed where it broke.

        Raises:  RegistryError, NoSuchImage, DigestMismatch for more bytes than the descriptor says.
        """

        def from_one(session: Session) -> None:
            if writer.size_bytes:  # what another one began
                advance(-writer.size_bytes)
                writer.restart()
            self._copy(session, descriptor, writer, advance, subject)

        self._first(from_one)

    def _first(self, ask: Callable[[Session], T]) -> T:
        """What the first answers that has an answer: the mirrors in order, then the registry itself.

        Only what was not got is asked for elsewhere; a refusal, and wrong bytes, are the end.
        """
        for session in self._mirrors():
            try:
                return ask(session)
            except NoSuchImage:
                continue
            except Unreachable:
                self._dead.add(session)
        return ask(self._sessions[-1])

    def _mirrors(self) -> Iterator[Session]:
        return (session for session in self._sessions[:-1] if session not in self._dead)

    # -- of one endpoint -----------------------------------------------------------------------------------------------

    def _manifest(self, session: Session, name: str, subject: str) -> tuple[bytes, str]:
        for attempt in range(self._client.deadline.patience.attempts):
            headers = {"Accept": ACCEPT, "Accept-Encoding": "identity"}
            response = session.get(f"/manifests/{name}", headers, subject)
            try:
                data = body(response, MANIFEST_MAX_BYTES)
            except self._client.transport_errors():
                self._client.deadline.wait(attempt, None, subject)
                continue
            if response.status != 200:
                raise RegistryError(subject, expected="its manifest", got=f"a part of it ({response.status})")
            _check_header(response.headers.get("Docker-Content-Digest"), data, subject)
            return data, response.headers.get("Content-Type", "")
        raise self._broken(subject, "its manifest")

    def _copy(
        self,
        session: Session,
        descriptor: Descriptor,
        writer: BlobWriter,
        advance: Callable[[int], None],
        subject: str,
    ) -> None:
        stalled = most = 0
        while stalled < self._client.deadline.patience.attempts:
            try:
                self._copy_once(session, descriptor, writer, advance, subject)
            except self._client.transport_errors():
                pass
            if writer.size_bytes > descriptor.size_bytes:
                raise DigestMismatch(subject, expected=f"{descriptor.size_bytes} bytes", got="more")
            if writer.size_bytes == descriptor.size_bytes:
                return
            stalled, most = (0, writer.size_bytes) if writer.size_bytes > most else (stalled + 1, most)
            self._client.deadline.wait(stalled, None, subject)
        raise self._broken(subject, f"{descriptor.size_bytes} bytes", f"{writer.size_bytes} and a broken connection")

    def _copy_once(
        self,
        session: Session,
        descriptor: Descriptor,
        writer: BlobWriter,
        advance: Callable[[int], None],
        subject: str,
    ) -> None:
        begin = writer.size_bytes
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begin}-"} if begin else {})
        response = session.get(f"/blobs/{descriptor.digest}", headers, subject)
        complete = False
        try:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise RegistryError(
                    subject, expected="the blob as it is", got=f"it in {response.headers['Content-Encoding']!r}"[:60]
                )
            if begin and not _continues(response, begin, descriptor.size_bytes):
                writer.restart()
                advance(-begin)
                begin = 0
                if response.status != 200:
                    return
            if not begin and response.status != 200:
                raise RegistryError(subject, expected="the whole blob", got=f"a part of it ({response.status})")
            while data := response.read(min(READ_BYTES, descriptor.size_bytes + 1 - writer.size_bytes)):
                writer.write(data)
                advance(len(data))
                self._client.deadline.left_s(subject)
            complete = True
        finally:
            response.release_conn() if complete else response.close()

    def _broken(self, subject: str, expected: str, got: str = "a broken connection each time") -> RegistryError:
        return Unreachable(subject, expected=expected, got=got, hint="run again", temporary=True)


def _continues(response: Any, begin: int, size_bytes: int) -> bool:
    """Is this the rest of a blob of that size, from `begin` on?"""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    return (
        response.status == 206
        and match is not None
        and int(match[1][:20]) == begin
        and match[3] in ("*", str(size_bytes))
    )


def _check_header(claimed: str | None, data: bytes, subject: str) -> None:
    """Raise DigestMismatch where the sender calls bytes what they are not. Its word proves nothing else."""
    if claimed is None:
        return
    try:
        said = Digest.parse(claimed.strip())
    except BadDigest as error:
        raise DigestMismatch(
            f"manifest of {subject}", expected="a Docker-Content-Digest", got=repr(claimed)[:90]
        ) from error
    got = Digest(said.algorithm, hashlib.new(said.algorithm, data).hexdigest())
    if got != said:
        raise DigestMismatch(
            f"manifest of {subject}", expected=f"digest {said}, as its header says", got=str(got), temporary=True
        )
