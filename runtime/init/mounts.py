"""The mounts of a zone: its own few, the image's root with a writable layer, and the switch into it."""

import errno
import posix

from runtime.init import abi, devices, files, kernel
from runtime.init.failure import BootFailure, os_failure

WORK = "/zone"
LOWER, WRITABLE, ROOT, DEV = f"{WORK}/lower", f"{WORK}/rw", f"{WORK}/root", f"{WORK}/dev"
# The same path in the initrd and in the workload's root: the kernel, when it looks for firmware, starts at the root
# of pid 1, whichever that is by then.
ADDONS = "/run/zone/ext"
OVERLAY = f"{ADDONS}/overlays/workload"
FIRMWARE_PATH = "/sys/module/firmware_class/parameters/path"
CGROUPS = "/sys/fs/cgroup"
_SAFE = abi.MS_NOSUID | abi.MS_NODEV | abi.MS_NOEXEC
_S_IFMT, _S_IFDIR, _S_IFCHR = 0o170000, 0o040000, 0o020000

# name -> (major, minor): Documentation/admin-guide/devices.txt
_NODES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
    "console": (5, 1),
}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


def make_directory(path: str, mode: int = 0o755) -> None:
    """mkdir that is content when the directory is there."""
    try:
        posix.mkdir(path, mode)
    except FileExistsError:
        return


def early() -> None:
    """proc, sys, dev and the cgroup tree for init itself. Raises BootFailure "mount"."""
    for source, target, kind, flags in (
        ("proc", "/proc", "proc", _SAFE),
        ("sysfs", "/sys", "sysfs", _SAFE),
        ("devtmpfs", "/dev", "devtmpfs", abi.MS_NOSUID | abi.MS_NOEXEC),
        ("cgroup2", CGROUPS, "cgroup2", _SAFE),
    ):
        # /sys/fs/cgroup is made by the kernel; the others may be missing from an initrd made by hand.
        if target != CGROUPS:
            make_directory(target)
        _mount("mount", source, target, kind, flags)


def workload_cgroup() -> int:
    """Make the workload's cgroup and return a descriptor of it."""
    path = f"{CGROUPS}/workload"
    try:
        make_directory(path)
        return posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError as error:
        raise os_failure("mount", f"making the cgroup {path}", error) from None


def image_root(
    device: str,
    *,
    overlay_size_mib: int,
    timeout_s: float,
    hostname: str,
    network: dict[str, object] | None,
) -> None:
    """Mount the image's squashfs with a tmpfs above it, with everything the workload finds in its root.

    Raises:  BootFailure "root" when the device does not come in time or does not mount, "files", "mount".
    """
    if not devices.wait_for(f"/dev/{device}", timeout_s):
        raise BootFailure("root", f"root device {device} did not appear within {timeout_s:.0f} s")
    for path in (WORK, LOWER, WRITABLE, ROOT, DEV):
        make_directory(path)
    _mount("root", f"/dev/{device}", LOWER, "squashfs", abi.MS_RDONLY | abi.MS_NODEV)
    size = f"size={overlay_size_mib}m" if overlay_size_mib else "size=50%"
    _mount("root", "tmpfs", WRITABLE, "tmpfs", abi.MS_NODEV, f"mode=755,{size}")
    for name in ("upper", "work"):
        make_directory(f"{WRITABLE}/{name}")
    # The root of an overlay shows the owner and mode of the upper directory.
    image = posix.stat(LOWER)
    posix.chown(f"{WRITABLE}/upper", image.st_uid, image.st_gid)
    posix.chmod(f"{WRITABLE}/upper", image.st_mode & 0o7777)
    # Utilities of extensions lie over the image, below what the zone writes.
    lower = f"{OVERLAY}:{LOWER}" if devices.exists(OVERLAY) else LOWER
    layers = f"lowerdir={lower},upperdir={WRITABLE}/upper,workdir={WRITABLE}/work"
    _mount("root", "overlay", ROOT, "overlay", abi.MS_NODEV, layers)
    _device_tree()
    root_fd = files.open_root(ROOT)
    try:
        files.write_etc(root_fd, files.etc_files(hostname, network))
        _inside(root_fd)
    finally:
        posix.close(root_fd)


def seal_root() -> None:
    """Make the image's root read-only, apart from what is mounted in it."""
    _mount("root", "none", ROOT, None, abi.MS_REMOUNT | abi.MS_BIND | abi.MS_RDONLY | abi.MS_NODEV)


def addons(device: str, timeout_s: float) -> None:
    """Mount the addons read-only and tell the kernel where their firmware is.

    Raises:  BootFailure "addons".
    """
    if not devices.wait_for(f"/dev/{device}", timeout_s):
        raise BootFailure("addons", f"addons device {device} did not appear within {timeout_s:.0f} s")
    for path in ("/run", "/run/zone", ADDONS):
        make_directory(path)
    _mount("addons", f"/dev/{device}", ADDONS, "squashfs", abi.MS_RDONLY | abi.MS_NOSUID | abi.MS_NODEV)
    if not devices.exists(f"{ADDONS}/firmware") or not posix.listdir(f"{ADDONS}/firmware"):
        return
    try:
        fd = posix.open(FIRMWARE_PATH, posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(fd, f"{ADDONS}/firmware".encode())
        finally:
            posix.close(fd)
    except OSError as error:
        raise os_failure("addons", "telling the kernel where the firmware of the addons is", error) from None


def show_addons() -> None:
    """The addons and their modules in the image's root, where programs look for them. Raises BootFailure "addons"."""
    shown = [(ADDONS, ["run", "zone", "ext"])]
    if devices.exists(f"{ADDONS}/modules"):
        shown.append((f"{ADDONS}/modules", ["lib", "modules", posix.uname().release]))
    root_fd = files.open_root(ROOT)
    try:
        for source, parts in shown:
            target_fd = files.directory_in(root_fd, parts)
            target = f"/proc/self/fd/{target_fd}"
            _mount("addons", source, target, None, abi.MS_BIND, shown=f"/{'/'.join(parts)} of the image")
            posix.close(target_fd)
    finally:
        posix.close(root_fd)


def _device_tree() -> None:
    """A /dev of its own on a fresh tmpfs, finished before anything of the image is touched."""
    _mount("mount", "tmpfs", DEV, "tmpfs", abi.MS_NOSUID | abi.MS_NOEXEC, "mode=755,size=1m")
    old = posix.umask(0)
    try:
        for name, (major, minor) in _NODES.items():
            mode = 0o600 if name == "console" else 0o666
            posix.mknod(f"{DEV}/{name}", _S_IFCHR | mode, posix.makedev(major, minor))
        for name, target in _LINKS.items():
            posix.symlink(target, f"{DEV}/{name}")
        for name in ("pts", "shm"):
            posix.mkdir(f"{DEV}/{name}", 0o755)
    except OSError as error:
        raise os_failure("mount", "making the nodes of /dev", error) from None
    finally:
        posix.umask(old)
    terminals = "newinstance,ptmxmode=0666,mode=0620,gid=5"
    _mount("mount", "devpts", f"{DEV}/pts", "devpts", abi.MS_NOSUID | abi.MS_NOEXEC, terminals)
    _mount("mount", "shm", f"{DEV}/shm", "tmpfs", _SAFE, "mode=1777")


def _inside(root_fd: int) -> None:
    """proc, sys (read-only) and the finished /dev in the image's root."""
    for name, kind, flags in (("proc", "proc", _SAFE), ("sys", "sysfs", _SAFE | abi.MS_RDONLY), ("dev", "", 0)):
        fd = files.real_directory(root_fd, name)
        try:
            # Mounting by descriptor: between opening and mounting nothing can be put in between.
            target = f"/proc/self/fd/{fd}"
            if kind:
                _mount("mount", kind, target, kind, flags, shown=f"/{name} of the image")
            else:
                kernel.move_mount(DEV, target)
        except OSError as error:
            raise os_failure("mount", f"moving /{name} into the image", error) from None
        finally:
            posix.close(fd)


def switch() -> None:
    """Make the image's root the root; nothing of the initramfs can be reached or takes memory afterwards.

    pivot_root refuses the initramfs (EINVAL), so the root is moved over it, as switch_root does.
    """
    try:
        if not kernel.in_memory("/"):  # started elsewhere than in an initrd, what follows would delete a disk's files
            raise BootFailure("root", "the root that init started in is no initramfs")
        posix.chdir(ROOT)
        initramfs = posix.stat("/").st_dev
        for path in ("/dev", CGROUPS, "/sys", "/proc"):
            kernel.unmount(path, abi.MNT_DETACH)
        _remove_below("/", initramfs)
        kernel.move_mount(".", "/")
        posix.chroot(".")
        posix.chdir("/")
    except OSError as error:
        raise os_failure("root", "switching to the image's root", error) from None


def _remove_below(path: str, device: int) -> None:
    """Delete what is on the file system `device`; mount points and what is on them stay."""
    for name in posix.listdir(path):
        child = f"{path.rstrip('/')}/{name}"
        status = posix.lstat(child)
        if status.st_dev != device:
            continue
        if status.st_mode & _S_IFMT != _S_IFDIR:
            posix.unlink(child)
            continue
        _remove_below(child, device)
        try:
            posix.rmdir(child)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise


def _mount(
    reason: str, source: str, target: str, kind: str | None, flags: int, data: str | None = None, shown: str = ""
) -> None:
    try:
        kernel.mount(source, target, kind, flags, data)
    except OSError as error:
        what = f"mounting {source} on {shown or target}" + (f" as {kind}" if kind and kind != source else "")
        raise os_failure(reason, what, error) from None
