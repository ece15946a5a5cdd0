"""The cgroup of a container (cgroup v2): made with its limits, changed, frozen, killed, removed."""

import errno
import posix

from runtime.init.container import abi, calls
from runtime.init.failure import ContainerFailure, why

ROOT = "/sys/fs/cgroup"
CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
_PARENT = "containers"
DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC


class Cgroup:
    """One container's. `fd` is for clone3; it is closed by remove().

    With root "" there is none: nothing can be limited, frozen or counted, and fd is -1.
    """

    def __init__(self, name: str, writes: dict[str, str], root: str = ROOT) -> None:
        """Make it and set its limits. Raises ContainerFailure "cgroup", and leaves nothing behind then."""
        self._name, self._parent, self.fd = name, -1, -1
        if not root:
            if writes:
                raise ContainerFailure("cgroup", f"cgroup {name}: expected a cgroup v2 tree for its limits, got none")
            return
        try:
            self._parent = _open_parent(root)
            posix.mkdir(name, 0o755, dir_fd=self._parent)
        except OSError as error:
            self._close()
            taken = error.errno == errno.EEXIST
            raise ContainerFailure(
                "cgroup", f"cgroup {name}: {'it is there already' if taken else why(error)}"
            ) from None
        try:
            self.fd = posix.open(name, DIRECTORY, dir_fd=self._parent)
            self.update(writes)
        except BaseException:
            self.remove()
            raise

    def update(self, writes: dict[str, str]) -> None:
        """Set limits, in the order given. Raises ContainerFailure "cgroup" naming the first that is not taken."""
        self._expect()
        there = self._read("cgroup.controllers").split()
        for controller in controllers(writes):
            if controller not in there:
                told = ", ".join(there) or "none"
                raise ContainerFailure(
                    "cgroup", f"cgroup {self._name}: expected the controller {controller}, got {told}"
                )
        for file, text in writes.items():
            for line in text.split("\n"):
                try:
                    self._write(file, line)
                except OSError as error:
                    sentence = f"cgroup {self._name}: setting {file} to {line}: {why(error)}"
                    raise ContainerFailure("cgroup", sentence) from None

    def freeze(self, *, frozen: bool) -> None:
        """Stop or go on with every process, and wait until it is so."""
        from runtime.init.container import settling

        self._expect()
        try:
            self._write("cgroup.freeze", "1" if frozen else "0")
        except OSError as error:
            raise ContainerFailure("cgroup", f"cgroup {self._name}: freezing: {why(error)}") from None
        if not settling.settles(self.fd, "frozen", "1" if frozen else "0"):
            within = f"within {settling.SETTLE_S:.0f} s"
            raise ContainerFailure("cgroup", f"cgroup {self._name}: expected it to be frozen {within}")

    def kill(self) -> None:
        """SIGKILL to every process, those a fork is just making too."""
        if self.fd < 0:
            return
        try:
            self._write("cgroup.kill", "1")
        except FileNotFoundError:
            return  # already removed
        except OSError as error:
            raise ContainerFailure("cgroup", f"cgroup {self._name}: killing: {why(error)}") from None

    def pids(self) -> list[int]:
        """Every process of it and of the groups it has made, as the reader's pid namespace numbers them."""
        from runtime.init.container import subgroups

        self._expect()
        return subgroups.pids(self.fd)

    def counts(self, file: str) -> dict[str, int]:
        """A file of `KEY NUMBER` lines, such as memory.events or cpu.stat; {} where it cannot be read.

        Not only where the controller is not there: how a container has ended must not be lost for want of a figure.
        """
        if self.fd < 0:
            return {}
        try:
            lines = [line.split() for line in self._read(file).splitlines()]
        except OSError:
            return {}
        return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}

    def number(self, file: str) -> int | None:
        """A file of one number, such as memory.current; None for "max" or where the controller is not there."""
        try:
            text = self._read(file).strip()
        except FileNotFoundError:
            return None
        return int(text) if text.isdigit() else None

    def watch(self, file: str = "memory.events") -> int:
        """A descriptor that polls POLLPRI when the file has changed; -1 where the controller is not there."""
        try:
            return posix.open(file, posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=self.fd)
        except FileNotFoundError:
            return -1

    def remove(self) -> None:
        """Kill what is in it, wait for that, remove it and what was made below it. Raises ContainerFailure "cgroup"."""
        if self._parent < 0:
            return
        try:
            if self.fd >= 0:
                self.kill()
                from runtime.init.container import settling, subgroups  # a container starts without them

                settling.settles(self.fd, "populated", "0")
                subgroups.remove(self.fd)
            posix.rmdir(self._name, dir_fd=self._parent)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ContainerFailure("cgroup", f"cgroup {self._name}: removing it: {why(error)}") from None
        self._close()

    def leave(self) -> bool:
        """As remove(), where nothing has to be waited for: False while a process is left, which is killed."""
        if self.fd >= 0:
            self.kill()
            if self.counts("cgroup.events").get("populated"):
                return False
        self.remove()
        return True

    def _expect(self) -> None:
        if self.fd < 0:
            raise ContainerFailure(
                "cgroup", f"cgroup {self._name}: expected it to be there, got a container without one"
            )

    def _close(self) -> None:
        for fd in (self.fd, self._parent):
            if fd >= 0:
                posix.close(fd)
        self.fd = self._parent = -1

    def _read(self, file: str) -> str:
        return read(self.fd, file)

    def _write(self, file: str, text: str) -> None:
        _write(self.fd, file, text)


def usable(root: str) -> bool:
    """Is this a cgroup v2 tree we may make cgroups in?"""
    try:
        top = posix.open(root, DIRECTORY)
    except OSError:
        return False
    try:
        return calls.file_system(top) == abi.CGROUP2_SUPER_MAGIC and posix.access(root, posix.W_OK)
    finally:
        posix.close(top)


def controllers(writes: dict[str, str]) -> list[str]:
    """The controllers that must be on for these writes."""
    return sorted({file.partition(".")[0] for file in writes})


def _open_parent(root: str) -> int:
    """A descriptor of the directory of all containers, made where it is missing, with every controller there is."""
    top = posix.open(root, DIRECTORY)
    try:
        if calls.file_system(top) != abi.CGROUP2_SUPER_MAGIC:
            raise ContainerFailure("cgroup", f"{root}: expected cgroup v2, got another file system")
        try:
            posix.mkdir(_PARENT, 0o755, dir_fd=top)
        except FileExistsError:
            pass
        parent = posix.open(_PARENT, DIRECTORY, dir_fd=top)
        for fd in (top, parent):
            for controller in set(read(fd, "cgroup.controllers").split()) & set(CONTROLLERS):
                try:
                    _write(fd, "cgroup.subtree_control", f"+{controller}")
                except OSError:
                    continue  # a limit that needs it says so
        return parent
    finally:
        posix.close(top)


def read(directory: int, file: str) -> str:
    """What a file of a cgroup says. Raises OSError."""
    fd = posix.open(file, posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=directory)
    try:
        data = b""
        while chunk := posix.read(fd, 65536):
            data += chunk
        return data.decode()
    finally:
        posix.close(fd)


def _write(directory: int, file: str, text: str) -> None:
    fd = posix.open(file, posix.O_WRONLY | posix.O_CLOEXEC, dir_fd=directory)
    try:
        posix.write(fd, text.encode())
    finally:
        posix.close(fd)
