"""System calls the interpreter has no function for. A thin edge: it packs arguments, and OSError says what failed."""

import _struct
import errno
import posix

import zsys  # type: ignore[import-not-found]

from runtime.init import abi

_RACES = 100  # lost in a row; one is rare, and only a workload that renames without end makes this many


def call(number: int, *args: int | str | bytes | bytearray | None) -> int:
    """The raw system call. Raises OSError."""
    result: int = zsys.syscall(number, *args)
    return result


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    call(abi.SYS_MOUNT, source, target, kind, flags, data)


def move_mount(source: str, target: str) -> None:
    """Move a mount; what was at `target` is hidden below it."""
    call(abi.SYS_MOUNT, source, target, None, abi.MS_MOVE, None)


def unmount(target: str, flags: int) -> None:
    """umount2(2)."""
    call(abi.SYS_UMOUNT2, target, flags)


def filesystem_magic(path: str) -> int:
    """What kind of file system a path is on: statfs(2)."""
    status = bytearray(120)  # struct statfs, include/uapi/asm-generic/statfs.h
    call(abi.SYS_STATFS, path, status)
    kind: int = _struct.unpack_from("=Q", status)[0]
    return kind


def in_memory(path: str) -> bool:
    """Is this file system a ramfs or tmpfs, as an initramfs is?"""
    return filesystem_magic(path) in (abi.RAMFS_MAGIC, abi.TMPFS_MAGIC)


def unshare(flags: int) -> None:
    """unshare(2)."""
    call(abi.SYS_UNSHARE, flags)


def enter_namespace(fd: int, kind: int) -> None:
    """setns(2)."""
    call(abi.SYS_SETNS, fd, kind)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    call(abi.SYS_PIVOT_ROOT, new_root, put_old)


def open_in(root_fd: int, path: str, flags: int, mode: int = 0, resolve: int = abi.RESOLVE_IN_ROOT) -> int:
    """openat2(2): symlinks, absolute ones too, cannot lead out of `root_fd`.

    A path with ".." is refused with EAGAIN while anything anywhere is renamed or mounted, and is to be tried again.
    """
    how = _struct.pack("=QQQ", flags | posix.O_CLOEXEC, mode, resolve | abi.RESOLVE_NO_MAGICLINKS)
    name = path.encode("utf-8", "surrogateescape")
    if b"\0" in name:
        raise OSError(errno.EINVAL, "a NUL in a path")
    for _ in range(_RACES):
        try:
            return call(abi.SYS_OPENAT2, root_fd, name, how, len(how))
        except BlockingIOError:
            pass
    return call(abi.SYS_OPENAT2, root_fd, name, how, len(how))


def load_module(fd: int, parameters: str) -> None:
    """finit_module(2)."""
    call(abi.SYS_FINIT_MODULE, fd, parameters, 0)


def close_from(first: int) -> None:
    """Close every descriptor from `first` on."""
    call(abi.SYS_CLOSE_RANGE, first, 0xFFFFFFFF, 0)


def no_new_privileges() -> None:
    """prctl(PR_SET_NO_NEW_PRIVS): set-uid programs give nothing from here on."""
    call(abi.SYS_PRCTL, abi.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def controlling_terminal(fd: int) -> None:
    """Make a terminal the controlling one of the calling session."""
    call(abi.SYS_IOCTL, fd, abi.TIOCSCTTY, 0)


def raw_terminal(fd: int) -> None:
    """Bytes pass as they are: no echo, no lines, no signals; a read takes whatever there is.

    Source:  include/uapi/asm-generic/termbits.h, struct termios; termios(3), "Raw mode".
    """
    settings = bytearray(abi.TERMIOS_BYTES)
    call(abi.SYS_IOCTL, fd, abi.TCGETS, settings)
    cflag = _struct.unpack_from("=I", settings, 8)[0] & ~abi.CSIZE | abi.CS8 | abi.CREAD | abi.CLOCAL
    _struct.pack_into("=IIII", settings, 0, 0, 0, cflag, 0)
    settings[abi.TERMIOS_CC + abi.VMIN], settings[abi.TERMIOS_CC + abi.VTIME] = 1, 0
    call(abi.SYS_IOCTL, fd, abi.TCSETS, settings)


def terminal_peer(master_fd: int) -> int:
    """The slave of a pseudo terminal, opened without any path: nothing can be put in its place."""
    call(abi.SYS_IOCTL, master_fd, abi.TIOCSPTLCK, _struct.pack("=i", 0))
    return call(abi.SYS_IOCTL, master_fd, abi.TIOCGPTPEER, posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC)


def terminal_size(fd: int, rows: int, columns: int) -> None:
    """Set the size of a terminal; its foreground processes get SIGWINCH when it changes."""
    call(abi.SYS_IOCTL, fd, abi.TIOCSWINSZ, _struct.pack("=HHHH", rows, columns, 0, 0))


def unread_bytes(fd: int) -> int:
    """How much a pipe has that can be read now."""
    count = bytearray(4)
    call(abi.SYS_IOCTL, fd, abi.FIONREAD, count)
    return int.from_bytes(count, "little")


def unsent_bytes(fd: int) -> int:
    """How much of what was written a terminal has not sent yet; 0 for what is no terminal."""
    count = bytearray(4)
    try:
        call(abi.SYS_IOCTL, fd, abi.TIOCOUTQ, count)
    except OSError:
        return 0
    return int.from_bytes(count, "little")


def signal_mask(signals: tuple[int, ...]) -> bytes:
    """A sigset_t of the kernel (8 bytes)."""
    return _struct.pack("=Q", sum(1 << (number - 1) for number in signals))


def block_signals(signals: tuple[int, ...]) -> None:
    """Make these the blocked signals of the calling thread; () unblocks all."""
    call(abi.SYS_RT_SIGPROCMASK, abi.SIG_SETMASK, signal_mask(signals), None, 8)


def signal_fd(signals: tuple[int, ...]) -> int:
    """A descriptor that reads the signals (which must be blocked); non-blocking, closed on exec."""
    return call(abi.SYS_SIGNALFD4, -1, signal_mask(signals), 8, abi.SFD_CLOEXEC | abi.SFD_NONBLOCK)


def credit_entropy(seed: bytes) -> None:
    """Mix a seed into the kernel's pool and count all its bits."""
    request = _struct.pack("=ii", len(seed) * 8, len(seed)) + seed
    fd = posix.open("/dev/urandom", posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        call(abi.SYS_IOCTL, fd, abi.RNDADDENTROPY, request)
    finally:
        posix.close(fd)


def fork(cgroup_fd: int) -> int:
    """fork(2) straight into a cgroup (none when -1): 0 in the child, its pid in the parent."""
    pid: int = zsys.clone3(0, cgroup_fd)
    return pid


def power_off() -> None:
    """Write everything out and end the machine (in a pid namespace: end that)."""
    posix.sync()
    call(abi.SYS_REBOOT, abi.REBOOT_MAGIC1, abi.REBOOT_MAGIC2, abi.REBOOT_POWER_OFF, None)


def next_dead() -> int:
    """A child that has ended and is not reaped yet; 0: none has. Raises ChildProcessError without any child."""
    found = posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
    return found.si_pid if found is not None else 0


def wait(pid: int = -1) -> tuple[int, int, dict[str, object]] | None:
    """(pid, wait status, what it and its waited-for children used) of a child that has ended: wait4(2). None: none has.

    Not posix.wait4, which imports the module resource.
    Raises:  ChildProcessError without any child.
    """
    status, usage = bytearray(4), bytearray(144)  # struct rusage, include/uapi/linux/resource.h
    pid = call(abi.SYS_WAIT4, pid, status, posix.WNOHANG, usage)
    if pid == 0:
        return None
    user, user_us, system, system_us, most_kib = _struct.unpack_from("=5q", usage)
    used: dict[str, object] = {"user_s": user + user_us / 1e6, "system_s": system + system_us / 1e6}
    return pid, int.from_bytes(status, "little"), used | {"max_rss_kib": most_kib}


def reap(wanted: int) -> int | None:
    """Collect every dead child; the wait status of `wanted` if it is among them."""
    found = None
    while True:
        try:
            pid, status = posix.waitpid(-1, posix.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == wanted:
            found = status
