"""Network namespaces, pinned below /run/netns as `ip netns` does, entered by one thread at a time.

A namespace belongs to a thread, not to a process: work that must happen inside one runs in a thread of its own that
ends with it. Processes and sockets made there stay in the namespace.

A network namespace belongs to a user namespace, and that to a user: whoever has its uid, and nobody else but root, may
do in it what takes CAP_NET_ADMIN without having any capability (user_namespaces(7), "Capabilities"). Root works in it
as in any other: threads that enter it stay in the host's user namespace, so kernel modules are loaded for them as ever.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from runtime.net.errors import NetworkFault

T = TypeVar("T")
DIRECTORY = Path("/run/netns")

# Source: linux/sched.h, sys/mount.h, linux/prctl.h, linux/securebits.h
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SHARED = 1 << 20
MNT_DETACH = 2
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
_ERRNO = struct.Struct("=i")

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


def in_thread(prepare: Callable[[], None], work: Callable[[], T]) -> T:
    """Do both in a thread of their own, which ends with them; the result of `work`. Errors pass through."""
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

    return in_thread(enter, work)


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


_holding = threading.Lock()


@contextmanager
def _held_by_process(owner: int) -> Iterator[int]:
    """The pid of a process in a network namespace of a user namespace of the user `owner`; both are new.

    A process of its own, since a user namespace is not for a thread alone (unshare(2), CLONE_NEWUSER). It ends with the
    context, or with this process: one at a time, as a second one would hold the other's end of the first one's socket.
    Raises OSError.
    """
    with _holding:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            pid = os.fork()
            if not pid:
                _hold(owner, ours, theirs)
            try:
                theirs.close()
                answer = ours.recv(_ERRNO.size)
                code = _ERRNO.unpack(answer)[0] if answer else errno.EIO
                if code:
                    raise OSError(code, f"unshare: {os.strerror(code)}")
                yield pid
            finally:
                ours.close()
                os.waitpid(pid, 0)


def _hold(owner: int, ours: socket.socket, theirs: socket.socket) -> None:
    """What the new process does. Nothing here takes a lock that another thread may have held when it was made.

    It never returns, whatever fails: it would go on as a second one of this process, with all that this one holds.
    """
    try:
        ours.close()
        theirs.send(_ERRNO.pack(_leave(owner)))  # fails where the process that made it has just been killed
        theirs.recv(1)  # until the other end is closed
    finally:
        os._exit(0)


def _leave(owner: int) -> int:
    """Go to new namespaces; 0, or why not as an errno."""
    try:
        # The capabilities stay: some hosts let no user without them have a user namespace.
        call("prctl", PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
        os.setegid(owner)
        os.seteuid(owner)
        call("unshare", CLONE_NEWUSER | CLONE_NEWNET)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _map_user(pid: int, owner: int) -> None:
    """Give a user namespace its one user. Source: user_namespaces(7), "User and group ID mappings". Raises OSError."""
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {owner} 1"), ("gid_map", f"0 {owner} 1")):
        Path(f"/proc/{pid}/{file}").write_text(text)


def _not_made(name: str, error: OSError) -> NetworkFault:
    hint = "sysctl user.max_user_namespaces, user.max_net_namespaces" if error.errno == errno.ENOSPC else "needs root"
    return NetworkFault(f"network namespace {name}", expected="it made", got=str(error), hint=hint)


def create(name: str, *, owner: int | None = None, mapped: bool = False) -> None:
    """Make a network namespace and pin it. Raises NetworkFault; leaves nothing behind when it does.

    owner:   the uid of a user namespace made for it, which nobody has ever a process in; this process's one for None.
    mapped:  a process of that user may enter it, and is root in it.
    """
    path = path_of(name)
    try:
        _share_directory()
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    except FileExistsError:
        raise NetworkFault(f"network namespace {name}", expected="the name free", got="it exists") from None
    except OSError as error:
        raise _not_made(name, error) from error
    try:
        if owner is None:
            # /proc/self would be the main thread's namespace.
            own = "/proc/thread-self/ns/net"
            in_thread(lambda: call("unshare", CLONE_NEWNET), lambda: mount(own, path, "none", MS_BIND))
        else:
            with _held_by_process(owner) as pid:
                if mapped:
                    _map_user(pid, owner)
                mount(f"/proc/{pid}/ns/net", path, "none", MS_BIND)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _not_made(name, error) from error


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
