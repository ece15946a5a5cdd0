"""The state disk's file: sparse, kept over `down` and `up`, plugged in after a lab's start, never in a snapshot."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.host.lab.disks import devices
from runtime.host.lab.errors import LabFailed, QmpError
from runtime.host.lab.qmp import Qmp

SIZE_BYTES = 8 << 30  # what it may grow to; what is not used takes nothing
SERIAL = "zonewright-state"
NODE, DEVICE = "state", "disk-state"


def make(path: Path) -> bool:
    """Make the file unless it is there; True when it is new. Raises LabFailed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        if path.stat().st_size == SIZE_BYTES:
            return False
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # whoever made it was killed before this
    except OSError as error:
        raise LabFailed(str(path), expected="a file there for the lab's state", got=error.strerror or "") from error
    try:
        os.ftruncate(fd, SIZE_BYTES)
    finally:
        os.close(fd)
    return True


def plug(qmp: Qmp, path: Path) -> str:
    """Plug the disk in, unless it is; returns its serial number in dom0. Raises LabFailed, QmpError."""
    if DEVICE in devices(qmp):
        return SERIAL
    source = {"driver": "file", "filename": str(path.absolute()), "discard": "unmap"}
    try:
        qmp.execute("blockdev-add", {"driver": "raw", "node-name": NODE, "discard": "unmap", "file": source})
    except QmpError as error:
        raise LabFailed(
            "the lab's state disk",
            expected=f"{path} for this lab alone",
            got=error.got,
            hint="another lab may use it; `zone host down` ends that one",
        ) from error
    qmp.execute("device_add", {"driver": "virtio-blk-pci", "drive": NODE, "id": DEVICE, "serial": SERIAL})
    return SERIAL
