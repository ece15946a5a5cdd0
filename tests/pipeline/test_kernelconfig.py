"""What a kernel can mount, by its configuration."""

from __future__ import annotations

import gzip

import pytest

from pipeline.kernelconfig import OPTIONS, built_in, mountable
from runtime.host.blockdevices import MAGICS

CONFIG = b"""\
CONFIG_EXT4_FS=y
CONFIG_EXT4_FS_SECURITY=y
CONFIG_XFS_FS=m
CONFIG_SQUASHFS=m
# CONFIG_F2FS_FS is not set
CONFIG_BTRFS_FS=y
"""


def test_built_in_is_what_needs_no_module() -> None:
    assert built_in(gzip.compress(CONFIG)) == ("btrfs", "ext4")


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", b"CONFIG_EXT4_FS=y\n", gzip.compress(b"x" * (64 << 20))])
def test_configuration_that_says_nothing_is_none(data: bytes) -> None:
    assert built_in(data) == ()


def test_modules_that_are_loaded_count_and_what_is_not_known_stays_so() -> None:
    modules = ("/modules/xen-blkfront.ko", "/modules/squashfs.ko", "modules/kernel/fs/xfs/xfs.ko.xz")
    assert mountable(("ext4",), modules) == ("ext4", "squashfs", "xfs")
    assert mountable((), modules) == ()


def test_file_systems_of_devices_and_those_of_kernels_are_the_same() -> None:
    assert OPTIONS.keys() == MAGICS.keys()
