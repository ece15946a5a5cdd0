"""The /dev of a container: which nodes, links and directories it has. No system calls.

Source:  OCI runtime specification, config-linux.md, "Devices" and "Default Devices".
"""

from runtime.init.container import abi, accounts
from runtime.init.failure import ContainerFailure

# (name, kind, major, minor, mode): Documentation/admin-guide/devices.txt.
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
# What is in it besides, and may be no node's name.
_TAKEN = (*(name for name, _ in LINKS), *DIRECTORIES, "console")
_KINDS = {"c": abi.S_IFCHR, "b": abi.S_IFBLK, "p": abi.S_IFIFO}
# The hypervisor's consoles, /dev/mem's family, and /dev/console: Documentation/admin-guide/devices.txt. Of what else is
# the hypervisor's, only the kernel of the zone can tell the numbers: hypervisor.py.
_HVC_MAJOR = 229
_CLOSED = ((1, 1), (1, 2), (1, 4), (5, 1))
Node = tuple[str, str, int, int, int, int, int]


def plan(items: object, maps: dict[str, object] | None) -> list[Node]:
    """All nodes: the default ones, and further ones, of which one with a default's name and numbers changes that.

    items:   [{"path": "/dev/NAME", "type": "c", "u", "b" or "p", "major", "minor", "mode", "uid", "gid"}]; of a fifo,
             "p", the numbers do not matter.
    maps:    the id maps of an own user namespace: uid and gid are ids in it.
    Shape:   (name, kind, major, minor, mode, uid, gid), the ids as they are outside.
    Raises:  ContainerFailure "spec".
    """
    assert isinstance(items, list)
    root = _owner({}, maps, "")
    found: dict[str, Node] = {node[0]: (*node, *root) for node in NODES}
    further: list[str] = []
    for index, item in enumerate(items):
        where = f"devices[{index}]"
        if not isinstance(item, dict) or set(item) - {"path", "type", "major", "minor", "mode", "uid", "gid"}:
            raise _bad(where, "an object of path, type, major, minor, mode, uid and gid", item)
        path, kind, mode = str(item.get("path", "")), item.get("type"), item.get("mode", 0o666)
        name = path.removeprefix("/dev/")
        if not path.startswith("/dev/") or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
            raise _bad(f"{where}.path", "a path below /dev", path)
        kind = "c" if kind == "u" else str(kind)
        numbers = [0, 0] if kind == "p" else [item.get(key) for key in ("major", "minor")]
        if kind not in _KINDS or not all(_is_small(number) for number in [*numbers, mode]):
            raise _bad(where, "a character or block device with its numbers, or a fifo (p)", item)
        major, minor = int(str(numbers[0])), int(str(numbers[1]))
        other = name in found and found[name][1:4] != (kind, major, minor)
        if other or name in further or name.split("/")[0] in _TAKEN:
            raise _bad(f"{where}.path", "a name that nothing else has in /dev", path)
        if name.startswith("xen") or (kind == "c" and (major == _HVC_MAJOR or (major, minor) in _CLOSED)):
            raise _bad(where, "no way to the hypervisor, its consoles or the zone's memory", item)
        further.append(name)
        found[name] = (name, kind, major, minor, mode & 0o777, *_owner(item, maps, where))
    return list(found.values())


def _is_small(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 20


def _owner(item: dict[str, object], maps: dict[str, object] | None, where: str) -> tuple[int, int]:
    return _outside(item, "uid", maps, where), _outside(item, "gid", maps, where)


def _outside(item: dict[str, object], key: str, maps: dict[str, object] | None, where: str) -> int:
    """An owner's id as it is outside; where none is given, that of the container's root."""
    if key not in item:
        return accounts.outside_id(maps[f"{key}_maps"]) if maps else 0
    number = accounts.check_id(item[key], f"{where}.{key}")
    if maps is None:
        return number
    outside = accounts.mapped(maps[f"{key}_maps"], number)
    if outside is None:
        raise _bad(f"{where}.{key}", "an id that the user namespace has", number)
    return outside


def node_mode(kind: str, mode: int) -> int:
    """The mode mknod takes."""
    return _KINDS[kind] | mode


def _bad(key: str, expected: str, got: object) -> ContainerFailure:
    return ContainerFailure("spec", f"container spec: key {key}: expected {expected}, got {got!r:.80}")
