"""System calls of containers. A thin edge, as runtime/init/kernel.py: it packs arguments, OSError says what failed."""

import _struct
import errno
import posix

import zsys  # type: ignore[import-not-found]

from runtime.init.abi import SYS_IOCTL, SYS_PRCTL
from runtime.init.container import abi
from runtime.init.failure import lacking
from runtime.init.kernel import call


def clone(flags: int, cgroup_fd: int = -1) -> int:
    """fork(2) into new namespaces and a cgroup (none when -1): 0 in the child, its pid in the parent."""
    pid: int = zsys.clone3(flags, cgroup_fd)
    return pid


def sibling() -> int:
    """clone(2) of a sibling of the caller: 0 in it, its pid in the caller. Filters refuse clone3(2).

    The interpreter is told nothing of it: whoever calls this has no other thread.
    """
    return call(abi.SYS_CLONE, abi.CLONE_PARENT, 0, 0, 0, 0)


def unshare(flags: int) -> None:
    """unshare(2)."""
    call(abi.SYS_UNSHARE, flags)


def setns(fd: int, flags: int) -> None:
    """setns(2) with a namespace's descriptor, or a pidfd and the namespaces to take from it."""
    call(abi.SYS_SETNS, fd, flags)


def open_tree(fd: int, path: str, flags: int) -> int:
    """open_tree(2); with OPEN_TREE_CLONE a detached copy of the mount (bind), else the place itself."""
    return call(abi.SYS_OPEN_TREE, fd, path, flags | abi.OPEN_TREE_CLOEXEC)


def clone_tree(fd: int, *, recursive: bool = False) -> int:
    """A detached bind mount of what a descriptor names."""
    return open_tree(fd, "", abi.OPEN_TREE_CLONE | abi.AT_EMPTY_PATH | (abi.AT_RECURSIVE if recursive else 0))


def attach(tree_fd: int, target_fd: int) -> None:
    """move_mount(2): put a detached mount on what a descriptor names; nothing is looked up by name."""
    flags = abi.MOVE_MOUNT_F_EMPTY_PATH | abi.MOVE_MOUNT_T_EMPTY_PATH
    call(abi.SYS_MOVE_MOUNT, tree_fd, "", target_fd, "", flags)


def new_mount(kind: str, source: str, parameters: list[tuple[str, str | None]], attributes: int) -> int:
    """fsopen, fsconfig and fsmount(2): a detached mount of a new file system. A parameter without a value is a flag."""
    try:
        context = call(abi.SYS_FSOPEN, kind, abi.FSOPEN_CLOEXEC)
    except OSError as error:
        # Of fsopen(2) alone it says that the kernel has no such file system; later it would be about the device.
        raise (OSError(errno.ENODEV, lacking(kind)) if error.errno == errno.ENODEV else error) from None
    try:
        if source:
            call(abi.SYS_FSCONFIG, context, abi.FSCONFIG_SET_STRING, "source", source, 0)
        for key, value in parameters:
            how = abi.FSCONFIG_SET_FLAG if value is None else abi.FSCONFIG_SET_STRING
            call(abi.SYS_FSCONFIG, context, how, key, value, 0)
        call(abi.SYS_FSCONFIG, context, abi.FSCONFIG_CMD_CREATE, None, None, 0)
        return call(abi.SYS_FSMOUNT, context, abi.FSMOUNT_CLOEXEC, attributes)
    except OSError as error:
        raise OSError(error.errno, _complaint(context)) from None
    finally:
        posix.close(context)


def _complaint(context: int) -> str:
    """The file system's own words on what was wrong, as "e tmpfs: Bad value for 'size'"; empty where it had none."""
    try:
        said = posix.read(context, 512)
    except OSError:
        return ""
    return said[2:].decode("utf-8", "replace").strip() if said[:2] == b"e " else ""


def change_mount(fd: int, *, set_: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = False) -> None:
    """mount_setattr(2) on the mount a descriptor names."""
    attributes = _struct.pack("=QQQQ", set_, clear, propagation, 0)
    flags = abi.AT_EMPTY_PATH | (abi.AT_RECURSIVE if recursive else 0)
    call(abi.SYS_MOUNT_SETATTR, fd, "", flags, attributes, len(attributes))


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    call(abi.SYS_PIVOT_ROOT, new, old)


def file_system(fd: int) -> int:
    """The magic number of the file system a descriptor lies on."""
    status = bytearray(120)  # struct statfs, include/uapi/asm-generic/statfs.h
    call(abi.SYS_FSTATFS, fd, status)
    (kind,) = _struct.unpack_from("=Q", status)
    return int(kind)


def set_domain_name(name: str) -> None:
    """setdomainname(2)."""
    data = name.encode()
    call(abi.SYS_SETDOMAINNAME, data, len(data))


def prctl(option: int, *arguments: int) -> int:
    """prctl(2), every argument it does not use being 0."""
    return call(SYS_PRCTL, option, *arguments, *([0] * (4 - len(arguments))))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of the calling thread; the sets are masks of 64 bits."""
    header = _struct.pack("=Ii", abi.LINUX_CAPABILITY_VERSION_3, 0)
    low = [value & 0xFFFFFFFF for value in (effective, permitted, inheritable)]
    high = [value >> 32 for value in (effective, permitted, inheritable)]
    call(abi.SYS_CAPSET, header, _struct.pack("=6I", *low, *high))


def capget() -> tuple[int, int, int]:
    """Effective, permitted and inheritable capabilities of the calling thread."""
    data = bytearray(24)
    call(abi.SYS_CAPGET, _struct.pack("=Ii", abi.LINUX_CAPABILITY_VERSION_3, 0), data)
    words = _struct.unpack("=6I", data)
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def set_limit(resource: int, soft: int, hard: int) -> None:
    """prlimit64(2) of the calling process."""
    call(abi.SYS_PRLIMIT64, 0, resource, _struct.pack("=QQ", soft, hard), None)


def limits_of(resource: int) -> tuple[int, int]:
    """Soft and hard limit of the calling process."""
    found = bytearray(16)
    call(abi.SYS_PRLIMIT64, 0, resource, None, found)
    soft, hard = _struct.unpack("=QQ", found)
    return soft, hard


def install_filter(program: bytes, flags: int) -> None:
    """seccomp(SECCOMP_SET_MODE_FILTER): `program` is an array of struct sock_filter."""
    description = _struct.pack("=H6xQ", len(program) // 8, zsys.addr(program))
    failed = call(abi.SYS_SECCOMP, abi.SECCOMP_SET_MODE_FILTER, flags, description)
    if failed > 0:  # the thread that could not follow; seccomp(2), SECCOMP_FILTER_FLAG_TSYNC
        raise OSError(0, f"thread {failed} could not be given the filter")


def new_session_keyring() -> None:
    """keyctl(KEYCTL_JOIN_SESSION_KEYRING): keys of whoever started us are out of reach."""
    call(abi.SYS_KEYCTL, abi.KEYCTL_JOIN_SESSION_KEYRING, None)


def signal_process(pidfd: int, number: int) -> None:
    """pidfd_send_signal(2)."""
    call(abi.SYS_PIDFD_SEND_SIGNAL, pidfd, number, None, 0)


def unlock_terminal(master_fd: int) -> None:
    """unlockpt(3)."""
    call(SYS_IOCTL, master_fd, abi.TIOCSPTLCK, bytes(4))


def terminal_peer(master_fd: int) -> int:
    """The slave of a pseudo terminal, opened without a path."""
    return call(SYS_IOCTL, master_fd, abi.TIOCGPTPEER, posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC)


def resize_terminal(fd: int, rows: int, columns: int) -> None:
    """Set the window size; the foreground process group gets SIGWINCH."""
    call(SYS_IOCTL, fd, abi.TIOCSWINSZ, _struct.pack("=HHHH", rows, columns, 0, 0))
