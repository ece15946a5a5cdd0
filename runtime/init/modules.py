"""Load the kernel modules of the launch data, in their order: the host has worked out what depends on what."""

import errno
import posix

from runtime.init import kernel
from runtime.init.failure import BootFailure, os_failure

XEN_DRIVERS = ("xen_blkfront", "xen_netfront")


def load_all(modules: list[object]) -> None:
    """Load each; one that is built in or loaded already counts. Raises BootFailure "modules" naming the file."""
    for module in modules:
        if not isinstance(module, dict) or not isinstance(module.get("path"), str):
            raise BootFailure("modules", f"launch data: a module without a path: {module!r:.80}")
        _load(module["path"], str(module.get("parameters", "")))


def _load(path: str, parameters: str) -> None:
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            kernel.load_module(fd, parameters)
        finally:
            posix.close(fd)
    except OSError as error:
        if error.errno == errno.EEXIST:
            return
        # Every initrd has Xen's drivers of disks and networks; without Xen they say ENODEV. Whether anything is lost
        # by that shows when a device of theirs is waited for, and that failure names it.
        if error.errno == errno.ENODEV and _name(path) in XEN_DRIVERS:
            return
        raise os_failure("modules", f"loading {path}", error) from None


def _name(path: str) -> str:
    """A module's name, as the kernel writes it."""
    return path.rpartition("/")[2].partition(".")[0].replace("-", "_")
