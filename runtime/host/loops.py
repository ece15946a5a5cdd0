"""Loop devices: files as disks of zones.

A device clears itself when its last user lets go of it, so no crash of ours leaks one: blkback keeps it as long as a
zone uses it, this process's descriptor until then.
Ledger:  "loop" before a device is taken, "loop.gone" after it was given back or turned out to be another's.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
from collections.abc import Callable
from pathlib import Path

from runtime.errors import RuntimeFault

log = logging.getLogger(__name__)

SYS_BLOCK = Path("/sys/block")
CONTROL = "/dev/loop-control"
_TRIES = 64

# include/uapi/linux/loop.h
LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
# struct loop_config: fd, block_size, struct loop_info64 (232 bytes, lo_flags at 52), reserved[8]
LOOP_CONFIG = struct.Struct("<II52xI176x64x")


class LoopFault(RuntimeFault):
    """A file could not be put behind a loop device."""


class LoopDevice:
    """A loop device over a file. `close` gives it back; twice is fine."""

    def __init__(self, path: Path, record: Callable[..., None], *, readonly: bool = True) -> None:
        """Take a free device. Raises LoopFault."""
        self._record, self._fd, self.path = record, -1, path
        try:
            backing = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
        except OSError as error:
            raise LoopFault(str(path), expected="a readable file", got=os.strerror(error.errno or 0)) from error
        try:
            self.device = self._take(backing, readonly=readonly)
        finally:
            os.close(backing)

    def _take(self, backing: int, *, readonly: bool) -> Path:
        try:
            control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            hint = "modprobe loop"
            raise LoopFault(CONTROL, expected="to open it", got=os.strerror(error.errno or 0), hint=hint) from error
        try:
            # Between the two calls another process may take the number the first has told.
            for _ in range(_TRIES):
                device = Path(f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}")
                self._record("loop", device=str(device), file=str(self.path))
                taken = False
                try:
                    taken = self._configure(device, backing, readonly=readonly)
                finally:
                    if not taken:
                        self._record("loop.gone", device=str(device), file=str(self.path))
                if taken:
                    return device
        except OSError as error:
            raise LoopFault(str(self.path), expected="a loop device over it", got=str(error)) from error
        finally:
            os.close(control)
        raise LoopFault(str(self.path), expected="a free loop device", got=f"none in {_TRIES} tries", temporary=True)

    def _configure(self, device: Path, backing: int, *, readonly: bool) -> bool:
        fd = os.open(device, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
        flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_READ_ONLY if readonly else 0)
        try:
            fcntl.ioctl(fd, LOOP_CONFIGURE, LOOP_CONFIG.pack(backing, 0, flags))
        except OSError as error:
            os.close(fd)
            if error.errno == errno.EBUSY:
                return False
            raise
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def close(self) -> None:
        """Let go of the device; it clears itself once the back end has let go too.

        A ledger that cannot be written keeps nobody: it names a device that is free, or by then another's.
        """
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            try:
                self._record("loop.gone", device=str(self.device), file=str(self.path))
            except OSError as problem:
                log.error("%s, of %s, is given back, and its ledger does not know: %s", self.device, self.path, problem)


def in_use() -> dict[str, str]:
    """Every loop device with a file behind it: device to file, as the kernel knows it."""
    found = {}
    for entry in SYS_BLOCK.glob("loop*"):
        try:
            found[f"/dev/{entry.name}"] = (entry / "loop" / "backing_file").read_text().rstrip("\n")
        except OSError:
            continue  # free
    return found
