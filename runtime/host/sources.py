"""Where zoned finds a blob: a file of a store on this machine, or a disk that was plugged into this domain.

{"kind": "file", "path": P}      a real host: P lies in the store; as a zone's disk it goes behind a loop device
{"kind": "disk", "serial": S}    the lab: a read-only virtio disk with that serial number
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.errors import RuntimeFault

SYS_BLOCK = Path("/sys/block")
DISK_DEADLINE_S = 20.0
DISK_POLL_S = 0.05

# include/uapi/linux/loop.h
LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LOOP_CLR_FD = 0x4C01
LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
# struct loop_config: fd, block_size, struct loop_info64 (232 bytes, lo_flags at 52), reserved[8]
LOOP_CONFIG = struct.Struct("<II52xI176x64x")


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


class LoopDevice:
    """A read-only loop device over a file. It clears itself when its last user closes it, so a crash leaks none."""

    def __init__(self, path: Path, record: Callable[..., None]) -> None:
        self._control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            for _ in range(16):  # another process may take the number between the two calls
                number = fcntl.ioctl(self._control, LOOP_CTL_GET_FREE)
                self.device = Path(f"/dev/loop{number}")
                record("loop", device=str(self.device), file=str(path))
                if self._configure(path):
                    return
        finally:
            os.close(self._control)
        raise BlobUnreachable(str(path), expected="a free loop device", got="none in 16 tries", temporary=True)

    def _configure(self, path: Path) -> bool:
        backing = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._fd = os.open(self.device, os.O_RDONLY | os.O_CLOEXEC)
            config = LOOP_CONFIG.pack(backing, 0, LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR)
            try:
                fcntl.ioctl(self._fd, LOOP_CONFIGURE, config)
            except OSError:
                os.close(self._fd)
                return False
            return True
        finally:
            os.close(backing)

    def close(self) -> None:
        """Let go of the device; it clears itself once the backend has let go too."""
        os.close(self._fd)
