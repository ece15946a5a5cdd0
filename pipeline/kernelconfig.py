"""Which file systems a kernel can mount, by its configuration and by the modules that are loaded."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

# file system -> its option; fs/*/Kconfig of Linux. Those a zone may be given a disk with.
OPTIONS = {
    "9p": "CONFIG_9P_FS",
    "btrfs": "CONFIG_BTRFS_FS",
    "erofs": "CONFIG_EROFS_FS",
    "ext4": "CONFIG_EXT4_FS",
    "f2fs": "CONFIG_F2FS_FS",
    "squashfs": "CONFIG_SQUASHFS",
    "xfs": "CONFIG_XFS_FS",
}
# What else one of them takes, as an option and as a module.
_WITH = {"9p": ("CONFIG_NET_9P_XEN", "9pnet_xen")}
_MAX_BYTES = 4 << 20


def built_in(config_gz: bytes) -> tuple[str, ...]:
    """The file systems of a kernel's config.gz that need no module; () where it says nothing, as nobody knows then."""
    try:
        config = zlib.decompressobj(31).decompress(config_gz, _MAX_BYTES)
    except zlib.error:
        return ()
    lines = set(config.decode("utf-8", "replace").splitlines())
    whole = {name: {option, _WITH.get(name, (option,))[0]} for name, option in OPTIONS.items()}
    return tuple(name for name, options in whole.items() if all(f"{option}=y" in lines for option in options))


def mountable(built: Iterable[str], modules: Iterable[str]) -> tuple[str, ...]:
    """What can be mounted once modules are loaded, by their paths; () where what is built in is not known."""
    built = set(built)
    loaded = {path.rpartition("/")[2].partition(".")[0] for path in modules}
    there = built | {name for name in loaded & OPTIONS.keys() if name not in _WITH or _WITH[name][1] in loaded}
    return tuple(name for name in OPTIONS if name in there) if built else ()
