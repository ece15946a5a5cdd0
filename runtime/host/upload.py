"""Blobs of the local store sent to a host that lacks them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import StoreDamaged
from pipeline.oci import Descriptor
from pipeline.progress import Progress
from pipeline.store import Store
from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from runtime.host.client.client import HostClient

CHUNK_BYTES = 1 << 20


class NotAsked(RuntimeFault):
    """A host that wants what it was not told of."""


def upload(client: HostClient, store: Store, blobs: Iterable[Descriptor], progress: Progress) -> int:
    """Send what the host says it lacks; how many blobs that were. It checks each by its digest.

    Raises:  StoreDamaged where a blob is missing here, NotAsked, and what the host raises.
    """
    from runtime.host.api import host_pb2 as pb

    known = {str(blob.digest): blob for blob in blobs}
    asked = [pb.Blob(digest=digest, size_bytes=blob.size_bytes) for digest, blob in known.items()]
    missing = client.call(client.host.FindBlobs, pb.FindBlobsRequest(blobs=asked)).missing
    for digest in missing:
        if (blob := known.get(digest)) is None:
            raise NotAsked(client.endpoint.name, expected="a blob it was told of to be missing", got=repr(digest)[:80])
        path = store.path(blob.digest)
        if not path.is_file():
            raise StoreDamaged(f"store object {digest}", expected="its bytes, as the host has not got it", got="none")
        with progress.bar(f"sending {blob.digest.short}", total=blob.size_bytes) as bar:
            client.send(client.host.PutBlob, _pieces(pb, blob, path, bar))
    return len(missing)


def _pieces(pb: Any, blob: Descriptor, path: Path, bar: Any) -> Iterator[Any]:
    yield pb.PutBlobRequest(blob=pb.Blob(digest=str(blob.digest), size_bytes=blob.size_bytes))
    with open(path, "rb") as file:
        while data := file.read(CHUNK_BYTES):
            yield pb.PutBlobRequest(data=data)
            bar.advance(len(data))
