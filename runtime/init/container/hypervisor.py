"""The devices that lead to the hypervisor, by the numbers the zone's kernel gave them."""

import posix

from runtime.init.container.devices import Node
from runtime.init.failure import ContainerFailure

DIRECTORY = "/dev/xen"


def expect_none(nodes: list[Node]) -> None:
    """Raises ContainerFailure "device" for a node that is one of them, whatever its name. Raises OSError."""
    try:
        closed = [posix.stat(f"{DIRECTORY}/{name}").st_rdev for name in posix.listdir(DIRECTORY)]
    except FileNotFoundError:  # a kernel that does not run on it
        return
    for name, kind, major, minor, *_ in nodes:
        if kind == "c" and posix.makedev(major, minor) in closed:
            raise ContainerFailure("device", f"/dev/{name}: expected no way to the hypervisor, got one")
