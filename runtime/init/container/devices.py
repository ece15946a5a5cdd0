"""The /dev of a container: which nodes, links and directories it has. No system calls."""

from runtime.init.container import abi
from runtime.init.failure import ContainerFailure

# (name, kind, major, minor, mode): Documentation/admin-guide/devices.txt; OCI config-linux.md, "Default Devices".
# console comes with a terminal only, ptmx is a link into the container's own devpts.
NODES: tuple[tuple[str, str, int, int, int], ...] = (
    ("null", "c", 1, 3, 0o666),
    ("zero", "c", 1, 5, 0o666),
    ("full", "c", 1, 7, 0o666),
    ("random", "c", 1, 8, 0o666),
    ("urandom", "c", 1, 9, 0o666),
    ("tty", "c", 5, 0, 0o666),
)
LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
DIRECTORIES = ("pts", "shm", "mqueue")
_KINDS = {"c": abi.S_IFCHR, "u": abi.S_IFCHR, "b": abi.S_IFBLK}
# The hypervisor's consoles and /dev/mem's family: Documentation/admin-guide/devices.txt.
_HVC_MAJOR = 229
_CLOSED_OF_MEM = (1, 2, 4)


def check(items: object) -> list[tuple[str, str, int, int, int]]:
    """Further nodes: {"path": "/dev/NAME", "type": "c", "major", "minor", "mode"}. Raises ContainerFailure "spec"."""
    assert isinstance(items, list)
    found = []
    for index, item in enumerate(items):
        where = f"devices[{index}]"
        if not isinstance(item, dict) or set(item) - {"path", "type", "major", "minor", "mode", "uid", "gid"}:
            raise _bad(where, "an object of path, type, major, minor and mode", item)
        path, kind, mode = str(item.get("path", "")), item.get("type"), item.get("mode", 0o666)
        name = path.removeprefix("/dev/")
        if not path.startswith("/dev/") or not name or any(part in ("", ".", "..") for part in name.split("/")):
            raise _bad(f"{where}.path", "a path below /dev", path)
        numbers = [item.get(key) for key in ("major", "minor")]
        if kind not in _KINDS or not all(
            isinstance(number, int) and 0 <= number < 1 << 20 for number in [*numbers, mode]
        ):
            raise _bad(where, "a character or block device with its numbers", item)
        major, minor = int(str(numbers[0])), int(str(numbers[1]))
        if name.startswith("xen") or (
            kind != "b" and (major == _HVC_MAJOR or (major == 1 and minor in _CLOSED_OF_MEM))
        ):
            raise _bad(where, "no way to the hypervisor, its consoles or the zone's memory", item)
        if (name, kind, major, minor) in [node[:4] for node in NODES]:
            continue
        found.append((name, str(kind), major, minor, mode & 0o777))
    return found


def node_mode(kind: str, mode: int) -> int:
    """The mode mknod takes."""
    return _KINDS[kind] | mode


def _bad(key: str, expected: str, got: object) -> ContainerFailure:
    return ContainerFailure("spec", f"container spec: key {key}: expected {expected}, got {got!r:.80}")
