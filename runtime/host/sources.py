"""Where zoned finds a blob: in a store of this machine, or on a disk that was plugged into this domain.

A disk's serial number is the first 20 hex digits of the digest, which is all a virtio disk has room for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.oci import Descriptor
from runtime.errors import RuntimeFault

SYS_BLOCK = Path("/sys/block")
SERIAL_DIGITS = 20
DISK_POLL_S = 0.05


class BlobUnreachable(RuntimeFault):
    """A blob a boot needs is not where it was said to be."""


@dataclass(frozen=True)
class Source:
    """A file, or (disk) a block device, that begins with a blob's bytes."""

    path: Path
    disk: bool


def find(blob: Descriptor, stores: Sequence[Path]) -> Source | None:
    """Where a blob is now, by its name and size: whoever brought it has hashed it."""
    for store in stores:
        path = store / "blobs" / blob.digest.algorithm / blob.digest.hex
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_size == blob.size_bytes:
                return Source(path, disk=False)
    device = disk_of(blob.digest.hex[:SERIAL_DIGITS])
    return Source(device, disk=True) if device is not None else None


def disk_of(serial: str) -> Path | None:
    """The block device with a serial number, None where there is none now."""
    for entry in SYS_BLOCK.iterdir() if SYS_BLOCK.is_dir() else ():
        with contextlib.suppress(OSError):
            if (entry / "serial").read_text().strip() == serial:
                return Path("/dev") / entry.name
    return None


def wait_for(blob: Descriptor, stores: Sequence[Path], timeout_s: float) -> Source:
    """Where a blob is; a disk that was just plugged in takes a moment. Raises BlobUnreachable."""
    deadline = time.monotonic() + timeout_s
    while (found := find(blob, stores)) is None:
        if time.monotonic() >= deadline:
            where = ", ".join(str(store) for store in stores) or "no store"
            raise BlobUnreachable(
                f"blob {blob.digest.short}",
                expected="it in a store or on a disk of this host",
                got=f"neither ({where})",
                hint="bring it again: the client asks FindBlobs for what is missing",
            )
        time.sleep(DISK_POLL_S)  # devtmpfs sends no event that is cheaper to wait for than these few looks
    return found
