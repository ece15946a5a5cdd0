"""What every zone's initrd begins with, and what therefore no extension image may bring.

The zone ABI: where an extension's files end up and what it may count on. It counts up when that changes.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline import newc

ZONE_ABI = 1
ADDONS_MOUNT = "/run/zone/ext"
OVERLAY = b"overlays/workload/"  # on the addons disk, as in Edera's kernel images: laid over the workload's root
DIRECTORIES = ("bin", "dev", "lib", "modules", "proc", "run", "sys", "zone")
# Names of init, and what is mounted over or written by the host and init.
RESERVED = frozenset({b"init", b"bin/zone", b"bin/styrolite", b"dev", b"modules", b"proc", b"run", b"sys", b"zone"})
_NODES = {"console": (5, 1, 0o600), "kmsg": (1, 11, 0o600), "null": (1, 3, 0o666), "urandom": (1, 9, 0o666)}


def entries(init: Iterable[newc.Entry]) -> list[newc.Entry]:
    """The base segment around `init`, which has /init: its other names, directories to mount on, the first nodes.

    The kernel opens /dev/console for init's standard streams; without a urandom node the interpreter would not start.
    """
    base = [newc.directory(name) for name in DIRECTORIES]
    base += [newc.symlink(f"bin/{name}", "/init") for name in ("zone", "styrolite")]
    base += [newc.char_device(f"dev/{name}", *node[:2], mode=node[2]) for name, node in _NODES.items()]
    given = list(init)
    paths = {entry.path for entry in given}
    return [*given, *(entry for entry in base if entry.path not in paths)]
