"""Block devices of this host that are given to zones: whether one is free for that, and which file system is on it.

What is on a device is not to be trusted: its first bytes are compared with a few constants, and nothing else is read.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import RuntimeFault

# file system -> offset and bytes of its magic number; include/uapi/linux/magic.h, and the ext4 driver mounts ext2 and 3
MAGICS = {
    "squashfs": (0, b"hsqs"),
    "xfs": (0, b"XFSB"),
    "erofs": (1024, b"\xe2\xe1\xf5\xe0"),
    "f2fs": (1024, b"\x10\x20\xf5\xf2"),
    "ext4": (1080, b"\x53\xef"),
    "btrfs": (65600, b"_BHRfS_M"),
}
READONLY = ("squashfs", "erofs")
_HEAD_BYTES = 128 << 10


class DeviceUnfit(RuntimeFault):
    """A block device a zone is to have that is not there, is in use, or has nothing on it that can be mounted."""


@dataclass(frozen=True)
class BlockDevice:
    """A device. path: without symlinks; number: major and minor."""

    path: Path
    number: tuple[int, int]
    filesystem: str
    readonly: bool


def look(source: str, *, readonly: bool, subject: str) -> BlockDevice:
    """Look at a device.

    readonly: is it wanted so? One with a file system that cannot be written to is, in any case.
    Raises:   DeviceUnfit; also for one that this host has mounted or holds, as two kernels would write to it.
    """
    path = Path(os.path.realpath(source))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        got = "one that this host uses itself" if error.errno == errno.EBUSY else os.strerror(error.errno or 0)
        raise DeviceUnfit(subject, expected="a free block device of the zone's host", got=got) from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISBLK(status.st_mode):
            raise DeviceUnfit(subject, expected="a free block device of the zone's host", got="something else")
        filesystem = filesystem_of(os.pread(fd, _HEAD_BYTES, 0), subject)
    except OSError as error:
        raise DeviceUnfit(subject, expected="a readable device", got=os.strerror(error.errno or 0)) from error
    finally:
        os.close(fd)
    number = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return BlockDevice(path, number, filesystem, readonly or filesystem in READONLY)


def filesystem_of(head: bytes, subject: str) -> str:
    """The file system a device begins with. Raises DeviceUnfit for none that is known, and for two."""
    found = [name for name, (at, magic) in MAGICS.items() if head[at : at + len(magic)] == magic]
    if len(found) != 1:
        got = " and ".join(found) or "none of them"
        hint = "wipefs shows what is on it" if found else "make one on it first, such as with mkfs.ext4"
        raise DeviceUnfit(subject, expected=f"one of {', '.join(MAGICS)} on it", got=got, hint=hint)
    return found[0]
