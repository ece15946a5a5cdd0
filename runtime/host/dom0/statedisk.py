"""The state disk of the lab: what zoned keeps over reboots of dom0, and /srv, on an ext4 of its own.

A disk without a file system is formatted, one with an ext4 is checked; anything else on it is left alone.
/srv is for directories that zones share: all else of dom0 is memory, which one zone could fill.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import RuntimeFault
from runtime.host.sources import disk_of

MOUNT_POINT = Path("/var/lib/zonewright")
SHARED, SHARED_AT = "srv", Path("/srv")
MOUNTS = Path("/proc/self/mountinfo")
TOOL_TIMEOUT_S = 300.0
DISK_TIMEOUT_S = 30.0
DISK_POLL_S = 0.05
# Source: Linux, Documentation/filesystems/ext4/super.rst: the super block begins at 1024, s_magic lies at 0x38 in it.
MAGIC_OFFSET, MAGIC = 1024 + 0x38, b"\x53\xef"
PROBED_BYTES = 64 * 1024
# The file behind the disk is sparse, so nothing has to be discarded or zeroed.
FORMAT = ("mke2fs", "-q", "-t", "ext4", "-m", "0", "-L", "zonewright", "-J", "size=16", "-E",
          "nodiscard,lazy_itable_init=1,lazy_journal_init=1")  # fmt: skip
# e2fsck(8): 0 clean, 1 errors corrected, 2 corrected and to be rebooted if it is mounted, which it is not.
CHECKED = (0, 1, 2)
FIFREEZE = 0xC0045877  # Source: include/uapi/linux/fs.h: _IOWR('X', 119, int)


class StateDiskUnfit(RuntimeFault):
    """A state disk that cannot be used."""


def mount(serial: str, *, at: Path = MOUNT_POINT, shared_at: Path = SHARED_AT) -> str:
    """Mount the disk with that serial number; what was done: "mounted already", "formatted" or "checked".

    Raises:  StateDiskUnfit, also where no such disk comes.
    """
    done = "mounted already"
    if not is_mounted(at):
        device = wait_disk(serial)
        done = prepare(device)
        at.mkdir(parents=True, exist_ok=True, mode=0o700)
        _tool(["mount", "-t", "ext4", "-o", "noatime", str(device), str(at)])
        at.chmod(0o711)  # zoned's children, who are not root, work in the store below it
    if not is_mounted(shared_at):
        for directory in (at / SHARED, shared_at):
            directory.mkdir(exist_ok=True)
        _tool(["mount", "--bind", str(at / SHARED), str(shared_at)])
    return done


def wait_disk(serial: str, *, timeout_s: float = DISK_TIMEOUT_S) -> Path:
    """The device with a serial number; a disk that was just plugged in takes a moment. Raises StateDiskUnfit."""
    deadline = time.monotonic() + timeout_s
    while (device := disk_of(serial)) is None:
        if time.monotonic() > deadline:
            expected = f"it within {timeout_s:.0f} s of being plugged in"
            raise StateDiskUnfit(f"disk {serial}", expected=expected, got="no such disk")
        time.sleep(DISK_POLL_S)  # devtmpfs sends no event that is cheaper to wait for than these few looks
    return device


def prepare(device: Path) -> str:
    """Make a device hold an ext4 that may be mounted. Raises StateDiskUnfit."""
    with open(device, "rb") as file:
        head = file.read(PROBED_BYTES)
    if head[MAGIC_OFFSET : MAGIC_OFFSET + len(MAGIC)] == MAGIC:
        _tool(["e2fsck", "-p", str(device)], accepted=CHECKED)
        return "checked"
    if any(head):
        raise StateDiskUnfit(
            "the lab's state disk",
            expected="an empty disk, or an ext4",
            got="other bytes",
            hint="`zone host down --wipe` begins a new one",
        )
    _tool([*FORMAT, str(device)])
    return "formatted"


def unmount(*, at: Path = MOUNT_POINT, shared_at: Path = SHARED_AT) -> bool:
    """Write everything and let go of the disk; False where it was not mounted. Raises StateDiskUnfit.

    Effects: where zones still use it, it is frozen in place of unmounted: whole, and whoever writes waits for the end.
    """
    os.sync()
    if not is_mounted(at):
        return False
    try:
        for mount_point in (shared_at, at):
            if is_mounted(mount_point):
                _tool(["umount", str(mount_point)])
    except StateDiskUnfit as busy:
        try:
            _freeze(at)
        except OSError as error:
            raise busy from error
    return True


def _freeze(at: Path) -> None:
    directory = os.open(at, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(directory, FIFREEZE, 0)
    finally:
        os.close(directory)


def is_mounted(at: Path) -> bool:
    """Is something mounted there? Source: proc(5), /proc/pid/mountinfo, field 5."""
    return any(line.split(" ")[4] == str(at) for line in MOUNTS.read_text().splitlines())


def _tool(argv: Sequence[str], *, accepted: Sequence[int] = (0,)) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StateDiskUnfit("the lab's state disk", expected=f"{argv[0]} to run", got=str(error)) from error
    if done.returncode not in accepted:
        said = " | ".join((done.stderr or done.stdout).strip().splitlines()[-2:])
        raise StateDiskUnfit(
            "the lab's state disk",
            expected=f"{argv[0]} to succeed",
            got=f"code {done.returncode}: {said}",
            hint="`zone host down --wipe` begins a new one",
        )
