"""A block device of a zone: the xenstore nodes of its two halves.

With physical-device written up front, Linux's blkback connects without any hotplug script.
Source:  xen/include/public/io/blkif.h; Documentation/ABI of xen-blkback.
"""

from __future__ import annotations

import os
import stat

from runtime.boot.errors import BadSpec
from runtime.boot.model import Disk, Domid, Node
from runtime.boot.nodes import XenbusState, backend_path, device_nodes, frontend_path

_XVD_MAJOR = 202
_DISKS = "abcdefghijklmnop"  # beyond the 16th, blkif.h numbers devices in another way
NAMES = tuple(f"xvd{letter}" for letter in _DISKS)


def virtual_device(vdev: str) -> int:
    """The number of xvda … xvdp, as blkif.h encodes it. Raises BadSpec."""
    if vdev not in NAMES:
        raise BadSpec(f"disk {vdev!r}", expected=f"xvda to xvdp, {len(NAMES)} at most", got="another name")
    return _XVD_MAJOR << 8 | NAMES.index(vdev) << 4


def device_number(device: str) -> tuple[int, int]:
    """(major, minor) of a block device of this host. Raises BadSpec."""
    try:
        found = os.stat(device)
    except OSError as problem:
        got = os.strerror(problem.errno or 0)
        raise BadSpec(f"disk {device}", expected="a block device", got=got) from problem
    if not stat.S_ISBLK(found.st_mode):
        raise BadSpec(f"disk {device}", expected="a block device", got="something else")
    return os.major(found.st_rdev), os.minor(found.st_rdev)


def plan_vbd(disk: Disk, domid: Domid, *, device_number: tuple[int, int], backend_domid: int = 0) -> list[Node]:
    """The nodes of a disk.

    Shape:   device_number is (major, minor) of disk.device; xenstore wants it as hex major:minor.
    """
    number = virtual_device(disk.vdev)
    backend = {
        "frontend": frontend_path(domid, "vbd", number),
        "frontend-id": str(domid),
        "online": "1",
        "removable": "0",
        "bootable": "1",
        "dev": disk.vdev,
        "type": "phy",
        "mode": "r" if disk.readonly else "w",
        "device-type": "disk",
        "physical-device": f"{device_number[0]:x}:{device_number[1]:x}",
        "physical-device-path": disk.device,
        "params": disk.device,
        "discard-enable": "0",
        "state": str(XenbusState.INITIALISING.value),
    }
    frontend = {
        "backend": backend_path(backend_domid, domid, "vbd", number),
        "backend-id": str(backend_domid),
        "virtual-device": str(number),
        "device-type": "disk",
        "state": str(XenbusState.INITIALISING.value),
    }
    return device_nodes(domid, "vbd", number, backend=backend, frontend=frontend, backend_domid=backend_domid)
