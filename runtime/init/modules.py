"""Load the kernel modules of the launch data, in their order: the host has worked out what depends on what."""

import errno
import posix

from runtime.init import kernel
from runtime.init.failure import BootFailure, os_failure


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
        # A driver says ENODEV where its bus is missing, as the Xen ones do outside Xen. Whether anything is lost by
        # that shows when the device it should drive is waited for, and that failure names the device.
        if error.errno == errno.ENODEV:
            return
        raise os_failure("modules", f"loading {path}", error) from None
