"""Giving up capabilities. Source: capabilities(7); linux/prctl.h, linux/capability.h."""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from pathlib import Path

from runtime.net import netns

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


def keep(needed: Collection[int]) -> None:
    """Give up all other capabilities, for good: they leave the bounding set, too.

    Before the first thread: each has sets of its own, and begins with those of who starts it. Without SETPCAP, as
    without root, nothing is given up. Raises OSError.
    """
    held = permitted()
    if not held >> _SETPCAP & 1:
        return
    for number in range(int(_LAST.read_text("ascii")) + 1):
        if number not in needed:
            netns.call("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0)
    netns.call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _set(held & mask_of(needed))


def hold(needed: Collection[int]) -> None:
    """Give up all other capabilities; what the bounding set has, programs may have. Raises OSError without one."""
    _set(mask_of(needed))


def _set(kept: int) -> None:
    data = (_Data * 2)(*(_Data(kept >> at & 0xFFFFFFFF, kept >> at & 0xFFFFFFFF, 0) for at in (0, 32)))
    netns.call("capset", ctypes.byref(_Header(_VERSION_3, 0)), data)


def mask_of(numbers: Collection[int]) -> int:
    """A bit for each."""
    return sum(1 << number for number in numbers)


def permitted() -> int:
    """The permitted set of this thread, a bit each."""
    (line,) = [line for line in _STATUS.read_text("ascii").splitlines() if line.startswith("CapPrm:")]
    return int(line.split()[1], 16)
