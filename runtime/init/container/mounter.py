"""Do the mount steps of a plan: a container's root and what is in it.

Every mount is made detached, with all its flags, and put in place by descriptor: it is never seen without them, and no
path is looked up twice. Targets are resolved below the root's descriptor, without leaving it (openat2).
"""

import errno
import posix

from runtime.init import abi as zone_abi
from runtime.init import files, kernel
from runtime.init.container import abi, calls, devices, mountspec
from runtime.init.failure import BootFailure, ContainerFailure, why

_PLACE = zone_abi.O_PATH | posix.O_CLOEXEC
_DIRECTORY = _PLACE | posix.O_DIRECTORY
_SAFE = abi.MOUNT_ATTR_NOSUID | abi.MOUNT_ATTR_NODEV | abi.MOUNT_ATTR_NOEXEC
_NULL = posix.makedev(1, 3)


class Mounter:
    """Holds the descriptors that one step leaves for another. All are closed on exec."""

    def __init__(self) -> None:
        self._trees: dict[object, int] = {}
        self._root = self._work = -1
        self.terminal: tuple[int, int] | None = None  # master, slave

    def do(self, step: tuple[object, ...]) -> None:
        """One step. Raises ContainerFailure, OSError."""
        getattr(self, f"_{step[0]}")(*step[1:])

    # Before the container's namespaces are entered.

    def _propagation(self, kind: str) -> None:
        """What is mounted here does not reach the zone; with "slave", what the zone mounts does come in."""
        kernel.mount("none", "/", None, abi.MS_REC | (abi.MS_SLAVE if kind == "slave" else abi.MS_PRIVATE))

    def _workshop(self) -> None:
        """A tmpfs that only descriptors lead to: a copy can be made of attached mounts only."""
        self._work = calls.new_mount("tmpfs", "devices", [("mode", "700")], abi.MOUNT_ATTR_NOSUID)
        calls.attach(self._work, posix.open("/", _DIRECTORY))
        for name in ("nodes", "lower", "rw"):
            posix.mkdir(name, 0o755, dir_fd=self._work)

    def _devices(self, nodes: list[devices.Node], owner: tuple[int, int], tty: bool) -> None:
        """/dev without a working device on it, and a copy of each node to be put over its empty file.

        So whoever may make nodes makes none that works, and needs no device filter for that.
        """
        if len(nodes) > len(devices.NODES):
            from runtime.init.container import hypervisor  # here, as most have no others

            hypervisor.expect_none(nodes)
        tree = calls.new_mount("tmpfs", "tmpfs", [("mode", "755"), ("size", "1m")], _SAFE)
        old = posix.umask(0)
        try:
            for name in devices.DIRECTORIES:
                posix.mkdir(name, 0o755, dir_fd=tree)
            for name, target in devices.LINKS:
                posix.symlink(target, name, dir_fd=tree)
            for number, (name, kind, major, minor, mode, uid, gid) in enumerate(nodes):
                source = f"nodes/{number}"
                posix.mknod(source, devices.node_mode(kind, mode), posix.makedev(major, minor), dir_fd=self._work)
                posix.chown(source, uid, gid, dir_fd=self._work)
                self._trees["node", name] = calls.open_tree(self._work, source, abi.OPEN_TREE_CLONE)
                calls.change_mount(self._trees["node", name], set_=abi.MOUNT_ATTR_NOSUID | abi.MOUNT_ATTR_NOEXEC)
                self._empty(tree, name)
            if tty:
                self._empty(tree, "console")
        finally:
            posix.umask(old)
        posix.chown(".", *owner, dir_fd=tree)
        self._trees["dev"] = tree

    @staticmethod
    def _empty(tree: int, name: str) -> None:
        *parents, _ = name.split("/")
        for depth in range(1, len(parents) + 1):
            try:
                posix.mkdir("/".join(parents[:depth]), 0o755, dir_fd=tree)
            except FileExistsError:
                continue
        posix.close(posix.open(name, posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o666, dir_fd=tree))

    def _root_path(self, path: str) -> None:
        """A copy of a directory of the zone, with what is mounted in it; no device in it works."""
        place = posix.open(path, _DIRECTORY)
        self._root = calls.clone_tree(place, recursive=True)
        posix.close(place)
        calls.change_mount(self._root, set_=abi.MOUNT_ATTR_NODEV, recursive=True)

    def _root_device(self, device: str, size_mib: int) -> None:
        """A disk with an image, and a writable layer on a tmpfs above it. Both end with the container."""
        disk = calls.new_mount(
            "squashfs", f"/dev/{device}", [("ro", None)], abi.MOUNT_ATTR_RDONLY | abi.MOUNT_ATTR_NODEV
        )
        image = posix.fstat(disk)
        calls.attach(disk, self._inside_work("lower"))
        size = f"{size_mib}m" if size_mib else "50%"
        layer = calls.new_mount("tmpfs", "rw", [("mode", "755"), ("size", size)], abi.MOUNT_ATTR_NODEV)
        calls.attach(layer, self._inside_work("rw"))
        for name in ("upper", "work"):
            posix.mkdir(name, 0o755, dir_fd=layer)
        # The root of an overlay shows the owner and mode of the upper directory.
        posix.chown("upper", image.st_uid, image.st_gid, dir_fd=layer)
        posix.chmod("upper", image.st_mode & 0o7777, dir_fd=layer)
        posix.fchdir(self._work)
        layers = [("lowerdir", "lower"), ("upperdir", "rw/upper"), ("workdir", "rw/work")]
        self._root = calls.new_mount("overlay", "overlay", list(layers), abi.MOUNT_ATTR_NODEV)
        posix.close(disk)
        posix.close(layer)

    def _inside_work(self, name: str) -> int:
        return posix.open(name, _DIRECTORY, dir_fd=self._work)

    def _seal_below(self) -> None:
        """Make read-only what was mounted in the root already; the root itself has mount points to be made yet."""
        calls.change_mount(self._root, set_=abi.MOUNT_ATTR_RDONLY, recursive=True)
        calls.change_mount(self._root, clear=abi.MOUNT_ATTR_RDONLY)

    def _workshop_away(self) -> None:
        """What was made in it goes on by its copies; the root is about to take its place."""
        kernel.unmount("/", zone_abi.MNT_DETACH)
        posix.close(self._work)

    def _etc(self, texts: dict[str, str]) -> None:
        files.write_etc(self._root, texts)

    def _directory(self, path: str) -> None:
        posix.close(files.directory_in(self._root, _parts(path)))

    def _target(self, path: str, directory: bool | None, number: object = None) -> None:
        """Make a mount point with the zone's privileges; what cannot be made now lies on a mount that comes later."""
        if directory is None:
            directory = self._is_directory(self._trees[number])
        try:
            posix.close(self._open_target(path, directory))
        except (OSError, BootFailure):  # the latter of directory_in, for what the kernel refused
            return

    # Either side.

    def _make(self, number: int, mount: dict[str, object]) -> None:
        """A detached mount with its flags."""
        set_, clear, kind = _int(mount["set"]), _int(mount["clear"]), str(mount["type"])
        source, deep, deep_clear = str(mount["source"]), _int(mount["recursive_set"]), _int(mount["recursive_clear"])
        if mount["rbind"] is None:
            parameters = mount["parameters"]
            assert isinstance(parameters, list)
            if source.startswith("/dev/") and set_ & abi.MOUNT_ATTR_RDONLY:
                parameters = [*parameters, ("ro", None)]
            try:
                tree = calls.new_mount(kind, source, parameters, set_)
            except OSError as error:
                if kind == "mqueue" and error.errno == errno.ENODEV:  # a kernel without message queues
                    return
                raise
        else:
            place = posix.open(source, _PLACE)
            if mountspec.closed(posix.readlink(f"/proc/self/fd/{place}")):
                raise ContainerFailure("mount", f"binding {source}: expected no way to the hypervisor, got one")
            tree = calls.clone_tree(place, recursive=bool(mount["rbind"]))
            posix.close(place)
            calls.change_mount(tree, set_=set_, clear=clear)
            # Below a recursive bind, devices work no more than on it.
            deep |= abi.MOUNT_ATTR_NODEV & set_ & ~deep_clear if mount["rbind"] else 0
        if deep or deep_clear:
            calls.change_mount(tree, set_=deep, clear=deep_clear, recursive=True)
        self._trees[number] = tree

    # In the container's namespaces.

    def _attach_root(self) -> None:
        calls.attach(self._root, posix.open("/", _DIRECTORY))

    def _put(self, number: object, path: str, symlinks: str) -> None:
        """Attach a mount at a path of the root."""
        tree = self._trees.get(number)
        if tree is None:
            return
        target = (
            self._real(path, symlinks) if symlinks != "follow" else self._open_target(path, self._is_directory(tree))
        )
        calls.attach(tree, target)
        posix.close(target)

    def _real(self, path: str, symlinks: str) -> int:
        """The directory itself: what the image has for /proc must not choose where that is mounted."""
        parts = _parts(path)
        if symlinks == "replace" and len(parts) == 1:
            return files.real_directory(self._root, parts[0])
        resolve = zone_abi.RESOLVE_IN_ROOT | zone_abi.RESOLVE_NO_SYMLINKS
        try:
            return kernel.open_in(self._root, path, _DIRECTORY, resolve=resolve)
        except FileNotFoundError:
            return files.directory_in(self._root, parts)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            raise ContainerFailure("mount", f"{path} of the image: expected a directory, got something else") from None

    def _open_target(self, path: str, directory: bool) -> int:
        """A mount point, made where it is missing."""
        parts = _parts(path)
        if directory:
            return files.directory_in(self._root, parts)
        parent = files.directory_in(self._root, parts[:-1])
        try:
            try:
                return kernel.open_in(self._root, path, _PLACE)
            except FileNotFoundError:
                flags = posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
                posix.close(posix.open(parts[-1], flags, 0o644, dir_fd=parent))
                return kernel.open_in(self._root, path, _PLACE)
        finally:
            posix.close(parent)

    @staticmethod
    def _is_directory(tree: int) -> bool:
        return posix.fstat(tree).st_mode & abi.S_IFMT == abi.S_IFDIR

    def _spread(self, number: object, propagation: int, deep: bool) -> None:
        tree = self._trees.get(number)
        if tree is not None:
            calls.change_mount(tree, propagation=propagation, recursive=deep)

    def _node(self, name: str) -> None:
        target = kernel.open_in(self._root, f"dev/{name}", _PLACE, resolve=zone_abi.RESOLVE_IN_ROOT)
        calls.attach(self._trees["node", name], target)
        posix.close(target)

    def _readonly(self, path: str) -> None:
        """A copy of a path over itself, read-only; what is not there needs none."""
        place = self._existing(path)
        if place is None:
            return
        tree = calls.clone_tree(place, recursive=True)
        calls.change_mount(tree, set_=abi.MOUNT_ATTR_RDONLY, recursive=True)
        calls.attach(tree, place)
        posix.close(tree)
        posix.close(place)

    def _mask(self, path: str) -> None:
        """/dev/null over a file, a read-only tmpfs over a directory: empty, or with copies of what it may tell."""
        place = self._existing(path)
        if place is None:
            return
        if self._is_directory(place):
            words = {name: text for name in mountspec.TOLD.get(path, ()) if (text := _word(place, name))}
            tree = calls.new_mount("tmpfs", "masked", [("mode", "555")], _SAFE)
            for name, text in words.items():
                _write_word(tree, name, text)
            calls.change_mount(tree, set_=abi.MOUNT_ATTR_RDONLY)
        else:
            null = kernel.open_in(self._root, "dev/null", _PLACE)
            status = posix.fstat(null)
            if status.st_mode & abi.S_IFMT != abi.S_IFCHR or status.st_rdev != _NULL:  # CVE-2025-31133
                raise ContainerFailure("mount", f"masking {path}: expected /dev/null 1:3, got something else")
            tree = calls.clone_tree(null)
            posix.close(null)
        calls.attach(tree, place)
        posix.close(tree)
        posix.close(place)

    def _existing(self, path: str) -> int | None:
        try:
            return kernel.open_in(self._root, path, _PLACE)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise

    def _terminal(self, size: list[int] | None) -> None:
        """A pseudo terminal of the container's own devpts, which is its /dev/console as well."""
        from runtime.init.container import terminal  # see launcher._import_for

        self.terminal = terminal.open_pair(self._root, size)
        slave = self.terminal[1]
        # By descriptor: a path such as /dev/pts/0 could be made to lead elsewhere (CVE-2025-52565).
        console = kernel.open_in(self._root, "dev/console", _PLACE)
        tree = calls.clone_tree(slave)
        calls.attach(tree, console)
        posix.close(tree)
        posix.close(console)

    def _seal(self) -> None:
        calls.change_mount(self._root, set_=abi.MOUNT_ATTR_RDONLY)

    def _pivot(self) -> None:
        """The root becomes the root, and the zone's mounts are gone from this namespace."""
        posix.fchdir(self._root)
        calls.pivot_root(".", ".")
        kernel.unmount(".", zone_abi.MNT_DETACH)
        posix.chdir("/")


def describe(step: tuple[object, ...]) -> tuple[str, str]:
    """(reason, what was being done) of a mount step, for its failure."""
    kind, *rest = step
    if kind == "make":
        mount = rest[1]
        assert isinstance(mount, dict)
        what = f"binding {mount['source']}" if mount["rbind"] is not None else f"mounting {mount['type']}"
        return "mount", f"{what} for {mount['destination']}"
    texts = {
        "propagation": ("mount", "cutting the mounts off from the zone's"),
        "workshop": ("mount", "making a place for mounts"),
        "devices": ("device", "making the container's /dev"),
        "root_path": ("root", "opening the root {0}"),
        "root_device": ("root", "mounting the image on /dev/{0}"),
        "workshop_away": ("mount", "leaving the place for mounts"),
        "seal_below": ("root", "making the mounts in the root read-only"),
        "etc": ("files", "writing files of /etc"),
        "directory": ("files", "making {0}"),
        "attach_root": ("root", "putting the root in place"),
        "put": ("mount", "mounting on {1}"),
        "spread": ("mount", "setting the propagation of mount {0}"),
        "node": ("device", "putting /dev/{0} in place"),
        "readonly": ("mount", "making {0} read-only"),
        "mask": ("mount", "masking {0}"),
        "terminal": ("terminal", "opening the terminal"),
        "seal": ("root", "making the root read-only"),
        "pivot": ("root", "changing the root"),
    }
    reason, text = texts[str(kind)]
    return reason, text.format(*rest)


def words(error: OSError) -> str:
    """The kernel's reason, with what the file system added to it."""
    added = error.args[1] if len(error.args) > 1 else ""
    plain = why(error)
    return f"{plain} ({added})" if added and added != plain else plain


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _word(directory: int, name: str) -> bytes:
    """A short file of a directory, b"" where it is not there."""
    try:
        fd = posix.open(name, posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return b""
    try:
        return posix.read(fd, 256)
    finally:
        posix.close(fd)


def _write_word(directory: int, name: str, text: bytes) -> None:
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
    fd = posix.open(name, flags, 0o444, dir_fd=directory)
    try:
        posix.write(fd, text)
    finally:
        posix.close(fd)
