"""Where zoned finds a blob: a file of a store on this machine, or a disk that was plugged into this domain.

{"kind": "file", "path": P}      a real host: P lies in the store; a zone's disk then stands on loops.py
{"kind": "disk", "serial": S}    the lab: a read-only virtio disk with that serial number
{"kind": "block", "path": P}     a block device of this host, for volumes and scratch disks
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from runtime.errors import RuntimeFault

SYS_BLOCK = Path("/sys/block")
DISK_DEADLINE_S = 20.0
DISK_POLL_S = 0.05


class BlobUnreachable(RuntimeFault):
    """A blob a boot needs is not where it was said to be."""


def path_of(source: dict[str, Any]) -> Path:
    """The file or block device that holds a blob; waits a moment for a disk just plugged in.

    Raises:  BlobUnreachable.
    """
    if source["kind"] == "file":
        path = Path(source["path"])
        if not path.is_file():
            raise BlobUnreachable(str(path), expected="a file of the store", got="none", hint="build the zone again")
        return path
    if source["kind"] == "block":
        path = Path(source["path"])
        if not path.is_block_device():
            raise BlobUnreachable(str(path), expected="a block device", got="none")
        return path
    return _disk(source["serial"])


def _disk(serial: str) -> Path:
    deadline = time.monotonic() + DISK_DEADLINE_S
    while True:
        for entry in SYS_BLOCK.iterdir():
            try:
                if (entry / "serial").read_text().strip() == serial:
                    return Path("/dev") / entry.name
            except OSError:
                continue
        if time.monotonic() > deadline:
            raise BlobUnreachable(
                f"disk {serial}", expected=f"it within {DISK_DEADLINE_S:.0f} s of being plugged in", got="no such disk"
            )
        time.sleep(DISK_POLL_S)  # devtmpfs sends no event that is cheaper to wait for than these few looks
