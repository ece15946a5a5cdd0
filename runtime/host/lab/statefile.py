"""The state disk's file: sparse, kept over `down` and `up`, plugged in after a lab's start, never in a snapshot."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from runtime.host.lab.disks import devices
from runtime.host.lab.errors import LabFailed, QmpError, StateDiskInUse
from runtime.host.lab.qmp import Qmp

SIZE_BYTES = 8 << 30  # what it may grow to; what is not used takes nothing
SERIAL = "zonewright-state"
NODE, DEVICE = "state", "disk-state"
# Where QEMU locks a file it has open, a byte for each permission it uses or denies others, and struct flock.
# Source: QEMU, block/file-posix.c, RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE; fcntl(2), "Open file description locks".
LOCKS_START, LOCKS_BYTES = 100, 200
FLOCK = struct.Struct("@hhqqi4x")
_BY_QEMU = "a QEMU that has it open"
HINT = (
    "another lab runs from it: `zone host down` ends that, with the XDG_RUNTIME_DIR it was started with; "
    "`--host lab:NAME` is one with a state of its own"
)


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


def check_unused(path: Path) -> None:
    """Look before a lab is started that could not have this disk. Raises StateDiskInUse; a missing file is fine."""
    with _locks_of(path, fcntl.F_OFD_GETLK) as found:
        if found[0] != fcntl.F_UNLCK:
            raise _in_use(path, _BY_QEMU)


@contextlib.contextmanager
def _locks_of(path: Path, command: int) -> Iterator[tuple[int, ...]]:
    """Ask for all of QEMU's locks, or take them for the context; what fcntl(2) says of them, F_UNLCK where it cannot.

    Raises:  StateDiskInUse where they cannot be taken.
    """
    free = FLOCK.pack(fcntl.F_UNLCK, 0, 0, 0, 0)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield FLOCK.unpack(free)  # `make` says what is wrong
        return
    try:
        found = fcntl.fcntl(fd, command, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, LOCKS_START, LOCKS_BYTES, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            os.close(fd)
            raise _in_use(path, _BY_QEMU) from None
        found = free  # a file system without such locks: QEMU has none either
    try:
        yield FLOCK.unpack(found)
    finally:
        os.close(fd)


def wipe(path: Path) -> None:
    """Remove the file; none is fine. Raises StateDiskInUse: who runs from it would go on with one that nobody finds."""
    with _locks_of(path, fcntl.F_OFD_SETLK), contextlib.suppress(FileNotFoundError):
        path.unlink()
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def _in_use(path: Path, got: str) -> StateDiskInUse:
    return StateDiskInUse(f"the lab's state disk {path}", expected="nobody else to use it", got=got, hint=HINT)


def plug(qmp: Qmp, path: Path) -> str:
    """Plug the disk in, unless it is; returns its serial number in dom0. Raises StateDiskInUse, LabFailed, QmpError."""
    if DEVICE in devices(qmp):
        return SERIAL
    source = {"driver": "file", "filename": str(path.absolute()), "discard": "unmap"}
    try:
        qmp.execute("blockdev-add", {"driver": "raw", "node-name": NODE, "discard": "unmap", "file": source})
        # A node locks the file for reading; the lock for writing, which others keep from us, comes with a device.
        qmp.execute("device_add", {"driver": "virtio-blk-pci", "drive": NODE, "id": DEVICE, "serial": SERIAL})
    except QmpError as error:
        if " lock" in error.got:
            raise _in_use(path, error.got) from error
        raise LabFailed(f"the lab's state disk {path}", expected="QEMU to plug it in", got=error.got) from error
    return SERIAL
