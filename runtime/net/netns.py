"""Network namespaces, pinned below /run/netns as `ip netns` does, entered by one thread at a time.

A namespace belongs to a thread, not to a process: work that must happen inside one runs in a thread of its own that
ends with it. Processes and sockets made there stay in the namespace.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from runtime.net.errors import NetworkFault

T = TypeVar("T")
DIRECTORY = Path("/run/netns")

# Source: linux/sched.h, sys/mount.h
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SHARED = 1 << 20
MNT_DETACH = 2

# use_errno: the errno of the call, not of whatever ran in between. Python 3.11 has no os.setns nor os.unshare.
_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    """A function of libc that returns 0 or sets errno. Raises OSError."""
    if getattr(_libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def mount(source: str, target: str | Path, kind: str, flags: int, options: str = "") -> None:
    """mount(2). Raises OSError."""
    call("mount", source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())


def path_of(name: str) -> Path:
    """Where the namespace `name` is pinned."""
    return DIRECTORY / name


def setns(fd: int) -> None:
    """Move this thread into the network namespace behind a descriptor. Raises OSError."""
    call("setns", fd, CLONE_NEWNET)


def _in_thread(prepare: Callable[[], None], work: Callable[[], T]) -> T:
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            prepare()
            result.append(work())
        except BaseException as error:  # handed to the caller below
            failure.append(error)

    thread = threading.Thread(target=body, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def inside(name: str, work: Callable[[], T]) -> T:
    """Run `work` in the namespace `name` and return its result; its errors pass through.

    Raises:  NetworkFault when there is no such namespace.
    """

    def enter() -> None:
        try:
            fd = os.open(path_of(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NetworkFault(f"network namespace {name}", expected="it to exist", got="no such namespace") from None
        try:
            setns(fd)
        except OSError as error:
            raise NetworkFault(f"network namespace {name}", expected="to enter it", got=str(error)) from error
        finally:
            os.close(fd)

    return _in_thread(enter, work)


def _share_directory() -> None:
    """Let pinned namespaces appear in every mount namespace of the host, as iproute2's netns_add does."""
    DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        mount("", DIRECTORY, "none", MS_SHARED | MS_REC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # Not a mount point yet.
        mount(str(DIRECTORY), DIRECTORY, "none", MS_BIND | MS_REC)
        mount("", DIRECTORY, "none", MS_SHARED | MS_REC)


def _not_made(name: str, error: OSError) -> NetworkFault:
    return NetworkFault(f"network namespace {name}", expected="it made", got=str(error), hint="needs root")


def create(name: str) -> None:
    """Make a network namespace and pin it. Raises NetworkFault; leaves nothing behind when it does."""
    path = path_of(name)
    try:
        _share_directory()
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    except FileExistsError:
        raise NetworkFault(f"network namespace {name}", expected="the name free", got="it exists") from None
    except OSError as error:
        raise NetworkFault(
            f"network namespace {name}", expected="it made", got=str(error), hint="needs root"
        ) from error
    try:
        # /proc/self would be the main thread's namespace.
        _in_thread(
            lambda: call("unshare", CLONE_NEWNET), lambda: mount("/proc/thread-self/ns/net", path, "none", MS_BIND)
        )
    except OSError as error:
        path.unlink(missing_ok=True)
        raise NetworkFault(
            f"network namespace {name}", expected="it made", got=str(error), hint="needs root"
        ) from error


def delete(name: str) -> None:
    """Unpin a namespace; it ends when the last process and socket in it do. Does nothing when it is not there."""
    path = path_of(name)
    try:
        call("umount2", os.fsencode(path), MNT_DETACH)
    except OSError as error:
        # EINVAL: the file is there and nothing is mounted on it (a create that was killed half way).
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise NetworkFault(f"network namespace {name}", expected="it removed", got=str(error)) from error
    path.unlink(missing_ok=True)
