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


def test_file_systems_of_devices_are_those_of_kernels() -> None:
    assert OPTIONS.keys() == MAGICS.keys() | {"9p"}


@pytest.mark.parametrize(
    ("lines", "modules", "there"),
    [
        ("CONFIG_9P_FS=y\nCONFIG_NET_9P_XEN=y", (), True),
        ("CONFIG_9P_FS=y\nCONFIG_NET_9P_XEN=m", (), False),
        ("CONFIG_9P_FS=m\nCONFIG_NET_9P_XEN=m", ("net/9p/9pnet_xen.ko", "fs/9p/9p.ko.xz"), True),
        ("CONFIG_9P_FS=m\nCONFIG_NET_9P_XEN=m", ("fs/9p/9p.ko",), False),
    ],
)
def test_9p_takes_its_way_over_xen_too(lines: str, modules: tuple[str, ...], there: bool) -> None:
    built = built_in(gzip.compress(f"CONFIG_EXT4_FS=y\n{lines}\n".encode()))
    assert ("9p" in mountable(built, modules)) is there
