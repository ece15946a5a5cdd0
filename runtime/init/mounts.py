"""The mounts of a zone: its own few, the switch out of the initramfs, and each container's root with a writable layer.

Init and the agent live in a small tmpfs of their own with proc, sys, dev and the cgroup tree; the containers' roots
are mounted below /containers. What a workload does to its root, such as unmounting its /proc, does not touch them.
"""

import errno
import posix

from runtime.init import abi, devices, files, kernel
from runtime.init.failure import BootFailure, lacking, os_failure, why
from runtime.init.removal import remove_below

NEW_ROOT = "/new"
PROGRAM, NAMES = "/bin/styrolite", ("/bin/zone",)  # the program that runs, in the zone's own root
CONTAINERS = "/containers"
LAYERS = "containers"  # of further containers, on a scratch disk
# The same path in the zone's own root and in a workload's: the kernel looks for firmware from the root of pid 1.
ADDONS = "/run/zone/ext"
OVERLAY = f"{ADDONS}/overlays/workload"
FIRMWARE_PATH = "/sys/module/firmware_class/parameters/path"
CGROUPS = "/sys/fs/cgroup"
_SAFE = abi.MS_NOSUID | abi.MS_NODEV | abi.MS_NOEXEC


def make_directory(path: str, mode: int = 0o755) -> None:
    """mkdir that is content when the directory is there."""
    try:
        posix.mkdir(path, mode)
    except FileExistsError:
        return


def early() -> None:
    """dev, proc, sys and the cgroup tree for init itself. Raises BootFailure "mount".

    /dev is first: with it there is the channel, over which the host hears of what fails.
    """
    for source, target, kind, flags, data in (
        ("devtmpfs", "/dev", "devtmpfs", abi.MS_NOSUID | abi.MS_NOEXEC, None),
        ("proc", "/proc", "proc", _SAFE, None),
        ("sysfs", "/sys", "sysfs", _SAFE, None),
        # A container that may mount the tree cannot lift its own limits: Documentation/admin-guide/cgroup-v2.rst.
        ("cgroup2", CGROUPS, "cgroup2", _SAFE, "nsdelegate"),
    ):
        # /sys/fs/cgroup is made by the kernel; the others may be missing from an initrd made by hand.
        if target != CGROUPS:
            make_directory(target)
        _mount("mount", source, target, kind, flags, data)


def root_of(container: str) -> str:
    """Where a container's root is mounted."""
    return f"{CONTAINERS}/{container}/root"


def image_root(
    container: str,
    device: str,
    *,
    overlay_size_mib: int,
    hostname: str,
    network: dict[str, object] | None,
    scratch: list[str] | None = None,
    further: bool = False,
) -> None:
    """Mount an image's squashfs with a tmpfs above it, and give it its files of /etc.

    scratch: (device, file system) in the place of the tmpfs; what was written there before is there again.
    further: not the zone's own workload: a directory of the scratch disk, which begins empty and ends with it.
    The devices must be there. What was mounted when a step fails is unmounted again.
    Raises:  BootFailure "root" when the device does not mount, "files", "mount".
    """
    base = f"{CONTAINERS}/{container}"
    lower, writable, root = f"{base}/lower", f"{base}/rw", f"{base}/root"
    for path in (CONTAINERS, base, lower, writable, root):
        make_directory(path)
    try:
        _mount("root", f"/dev/{device}", lower, "squashfs", abi.MS_RDONLY | abi.MS_NODEV)
        size = f"size={overlay_size_mib}m" if overlay_size_mib else "size=50%"
        if scratch:
            _mount("root", f"/dev/{scratch[0]}", writable, scratch[1], abi.MS_NODEV)
        else:
            _mount("root", "tmpfs", writable, "tmpfs", abi.MS_NODEV, f"mode=755,{size}")
        layer = _layer(writable, container, scratch=bool(scratch), further=further)
        # The root of an overlay shows the owner and mode of the upper directory.
        image = posix.stat(lower)
        posix.chown(f"{layer}/upper", image.st_uid, image.st_gid)
        posix.chmod(f"{layer}/upper", image.st_mode & 0o7777)
        # Utilities of extensions lie over the image, below what the zone writes.
        below = f"{OVERLAY}:{lower}" if devices.exists(OVERLAY) else lower
        options = f"lowerdir={below},upperdir={layer}/upper,workdir={layer}/work"
        _mount("root", "overlay", root, "overlay", abi.MS_NODEV, options)
        root_fd = files.open_root(root)
        try:
            files.write_etc(root_fd, files.etc_files(hostname, network))
        finally:
            posix.close(root_fd)
    except BaseException:
        remove_root(container)
        raise


def _layer(writable: str, container: str, *, scratch: bool, further: bool) -> str:
    """Where a container's upper and work directories are. Raises BootFailure "root"."""
    layer = writable
    try:
        if scratch:
            from runtime.init import layers  # here, as most zones have none

            layers.discard(writable, container if further else "")
        if scratch and further:
            make_directory(f"{writable}/{LAYERS}", 0o700)
            layer = f"{writable}/{LAYERS}/{container}"
            make_directory(layer)
        for name in ("upper", "work"):
            make_directory(f"{layer}/{name}")
    except OSError as error:
        raise os_failure("root", f"making the writable layer of {container}", error) from None
    return layer


def remove_root(container: str) -> None:
    """Unmount a container's root and all that belongs to it; what is not mounted is passed over."""
    base = f"{CONTAINERS}/{container}"
    for name in ("root", "rw", "lower"):
        path = f"{base}/{name}"
        try:
            if name == "rw":
                from runtime.init import layers

                layers.discard(path, container)
            kernel.unmount(path, abi.MNT_DETACH)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise os_failure("root", f"unmounting {path}", error) from None
        if devices.exists(path):
            posix.rmdir(path)
    if devices.exists(base):
        posix.rmdir(base)


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


def show_addons(container: str) -> None:
    """The addons and their modules in an image's root, where programs look for them. Raises BootFailure "addons"."""
    shown = [(ADDONS, ["run", "zone", "ext"])]
    if devices.exists(f"{ADDONS}/modules"):
        shown.append((f"{ADDONS}/modules", ["lib", "modules", posix.uname().release]))
    root_fd = files.open_root(root_of(container))
    try:
        for source, parts in shown:
            target_fd = files.directory_in(root_fd, parts)
            target = f"/proc/self/fd/{target_fd}"
            _mount("addons", source, target, None, abi.MS_BIND, shown=f"/{'/'.join(parts)} of the image")
            posix.close(target_fd)
    finally:
        posix.close(root_fd)


def switch() -> None:
    """Go from the initramfs to a small root of the zone's own; of the initramfs only the program itself is kept.

    pivot_root refuses the initramfs (EINVAL), so the new root is moved over it, as switch_root does.
    """
    try:
        if not kernel.in_memory("/"):  # started elsewhere than in an initrd, what follows would delete a disk's files
            raise BootFailure("root", "the root that init started in is no initramfs")
        make_directory(NEW_ROOT)
        kernel.mount("zone", NEW_ROOT, "tmpfs", abi.MS_NOSUID | abi.MS_NODEV | abi.MS_NOEXEC, "mode=755,size=1m")
        _keep_program()
        for path in ("/proc", "/sys", "/dev"):  # the cgroup tree goes along with /sys
            make_directory(f"{NEW_ROOT}{path}")
            kernel.move_mount(path, f"{NEW_ROOT}{path}")
        posix.chdir(NEW_ROOT)
        remove_below("/", posix.stat("/").st_dev)
        # What runs is a file of it, to which /proc/PID/exe leads, also of a process that enters a container. That it is
        # busy is not enough: Linux 6.11 lets a program be written that runs (CVE-2019-5736).
        kernel.mount("none", "/", None, abi.MS_REMOUNT | abi.MS_BIND | abi.MS_RDONLY)
        kernel.move_mount(".", "/")
        posix.chroot(".")
        posix.chdir("/")
    except OSError as error:
        raise os_failure("root", "switching to the zone's own root", error) from None


def _keep_program() -> None:
    """The program itself under its names: the memory it lies in is used for as long as init runs, deleted or not.

    By a mount of the one file, as the root has noexec; read-only, so that nobody who gets at it changes init.
    """
    make_directory(f"{NEW_ROOT}/bin")
    place = f"{NEW_ROOT}{PROGRAM}"
    posix.close(posix.open(place, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o755))
    kernel.mount("/proc/self/exe", place, None, abi.MS_BIND)
    flags = abi.MS_REMOUNT | abi.MS_BIND | abi.MS_RDONLY | abi.MS_NOSUID | abi.MS_NODEV
    kernel.mount("none", place, None, flags)
    for name in NAMES:
        posix.symlink(PROGRAM, f"{NEW_ROOT}{name}")


def _mount(
    reason: str, source: str, target: str, kind: str | None, flags: int, data: str | None = None, shown: str = ""
) -> None:
    try:
        kernel.mount(source, target, kind, flags, data)
    except OSError as error:
        what = f"mounting {source} on {shown or target}" + (f" as {kind}" if kind and kind != source else "")
        if error.errno == errno.ENODEV and kind:
            raise BootFailure(reason, f"{what}: {why(error)} ({lacking(kind)})") from None
        raise os_failure(reason, what, error) from None
