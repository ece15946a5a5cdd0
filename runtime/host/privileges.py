"""What zoned keeps of root's capabilities, and with it every program that it starts.

Hypercalls take none of them: Xen asks which domain calls, and the files below /dev/xen who opened them.
Source: capabilities(7); linux/prctl.h, linux/capability.h.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from runtime.net import netns

# By its number in linux/capability.h: what takes it.
NEEDED = {
    0: "CHOWN: the directories of the users whose processes read images",
    1: "DAC_OVERRIDE: files of those users, and of whoever's store it is",
    3: "FOWNER: their modes",
    5: "KILL: engines, and processes that read images, have users of their own",
    6: "SETGID: to become those",
    7: "SETUID: likewise; the id maps of networks' namespaces",
    8: "SETPCAP: engines empty their bounding set",
    10: "NET_BIND_SERVICE: published ports below 1024",
    12: "NET_ADMIN: bridges, vifs, nft, tc",
    13: "NET_RAW: captures",
    14: "IPC_LOCK: pages that Xen is given must stay",
    18: "SYS_CHROOT: processes that read images",
    19: "SYS_PTRACE: which namespaces and files processes of other users have, for `check`",
    21: "SYS_ADMIN: namespaces, mounts, loop devices",
    24: "SYS_RESOURCE: limits of engines, the size of pipes",
    27: "MKNOD: the tun device of a network whose engine is pasta",
}
MASK = sum(1 << number for number in NEEDED)

_LAST = Path("/proc/sys/kernel/cap_last_cap")
_STATUS = Path("/proc/self/status")
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_VERSION_3 = 0x20080522
_SETPCAP = 8


class _Header(ctypes.Structure):
    """struct __user_cap_header_struct."""

    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    """struct __user_cap_data_struct; two of them hold 64 capabilities."""

    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def keep_needed() -> None:
    """Give up all other capabilities, for good: they leave the bounding set, too.

    Before the first thread: each has sets of its own, and begins with those of who starts it. Without SETPCAP, as
    without root, nothing is given up: what is missing then is told by preflight. Raises OSError.
    """
    held = permitted()
    if not held >> _SETPCAP & 1:
        return
    for number in range(int(_LAST.read_text("ascii")) + 1):
        if number not in NEEDED:
            netns.call("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0)
    netns.call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    kept = held & MASK
    data = (_Data * 2)(*(_Data(kept >> at & 0xFFFFFFFF, kept >> at & 0xFFFFFFFF, 0) for at in (0, 32)))
    netns.call("capset", ctypes.byref(_Header(_VERSION_3, 0)), data)


def permitted() -> int:
    """The permitted set of this thread, a bit each."""
    (line,) = [line for line in _STATUS.read_text("ascii").splitlines() if line.startswith("CapPrm:")]
    return int(line.split()[1], 16)
