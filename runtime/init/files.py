"""Put files and directories into the image's root without following its symlinks out of it."""

import errno
import posix

from runtime.init import abi, kernel
from runtime.init.failure import os_failure

_DIRECTORY = abi.O_PATH | posix.O_DIRECTORY


def open_root(path: str) -> int:
    """The descriptor all other functions resolve under."""
    return posix.open(path, _DIRECTORY | posix.O_CLOEXEC)


def real_directory(root_fd: int, name: str) -> int:
    """A descriptor of the directory `name` right under the root, made where it is missing.

    A symlink or file of that name is replaced: proc, sys and dev are mounted on, and what the image put there must not
    choose where.
    """
    for _ in range(2):
        try:
            return kernel.open_in(root_fd, name, _DIRECTORY, resolve=abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_SYMLINKS)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                posix.unlink(name, dir_fd=root_fd)
            elif error.errno != errno.ENOENT:
                raise os_failure("files", f"opening /{name} of the image", error) from None
        try:
            posix.mkdir(name, 0o755, dir_fd=root_fd)
        except OSError as error:
            raise os_failure("files", f"making /{name} in the image", error) from None
    raise OSError(errno.ELOOP, f"/{name} of the image changes under us")


def write_etc(root_fd: int, files: dict[str, str]) -> None:
    """Replace files of the image's /etc; what was there, a symlink too, goes. Raises BootFailure "files"."""
    etc_fd = _etc(root_fd)
    try:
        for name, text in files.items():
            try:
                _replace(etc_fd, name, text.encode("utf-8", "surrogateescape"))
            except OSError as error:
                raise os_failure("files", f"writing /etc/{name} of the image", error) from None
    finally:
        posix.close(etc_fd)


def directory_in(root_fd: int, parts: list[str]) -> int:
    """A descriptor of a directory below the root, made where it is missing; symlinks on the way stay in the root."""
    here = posix.dup(root_fd)
    for depth, name in enumerate(parts, 1):
        path = "/".join(parts[:depth])
        try:
            try:
                below = kernel.open_in(root_fd, path, _DIRECTORY)
            except FileNotFoundError:
                posix.mkdir(name, 0o755, dir_fd=here)
                below = kernel.open_in(root_fd, path, _DIRECTORY)
        except OSError as error:
            raise os_failure("files", f"making /{path} in the image", error) from None
        finally:
            posix.close(here)
        here = below
    return here


def _etc(root_fd: int) -> int:
    try:
        return kernel.open_in(root_fd, "etc", _DIRECTORY)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise os_failure("files", "opening /etc of the image", error) from None
    return real_directory(root_fd, "etc")


def _replace(directory_fd: int, name: str, data: bytes) -> None:
    temporary = f".zone.{name}"
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
    try:
        fd = posix.open(temporary, flags, 0o644, dir_fd=directory_fd)
    except FileExistsError:  # of a run that was killed, as a scratch disk keeps it; or the image's
        _remove(temporary, directory_fd)
        fd = posix.open(temporary, flags, 0o644, dir_fd=directory_fd)
    try:
        posix.fchmod(fd, 0o644)
        while data:
            data = data[posix.write(fd, data) :]
    finally:
        posix.close(fd)
    try:
        posix.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except IsADirectoryError:
        _remove(name, directory_fd)
        posix.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)


def _remove(name: str, directory_fd: int) -> None:
    """Whatever it is: a workload may have made a directory of that name, and a scratch disk keeps it."""
    try:
        posix.unlink(name, dir_fd=directory_fd)
    except IsADirectoryError:
        from runtime.init import removal  # here, as there hardly ever is one

        removal.remove_directory(name, directory_fd)


def etc_files(hostname: str, network: dict[str, object] | None) -> dict[str, str]:
    """hostname, hosts and (with a network) resolv.conf, name to text."""
    files: dict[str, str] = {}
    hosts = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    network = network or {}
    if hostname:
        files["hostname"] = hostname + "\n"
        own = [address.partition("/")[0] for address in _texts(network.get("addresses"))]
        hosts += [f"{address} {hostname}" for address in own or ["127.0.1.1"]]
    files["hosts"] = "".join(line + "\n" for line in hosts)
    if network:
        lines = [f"nameserver {address}" for address in _texts(network.get("nameservers"))]
        search = _texts(network.get("search"))
        lines += [f"search {' '.join(search)}"] if search else []
        options = _texts(network.get("options"))
        lines += [f"options {' '.join(options)}"] if options else []
        files["resolv.conf"] = "".join(line + "\n" for line in lines)
    return files


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
