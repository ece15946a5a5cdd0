"""Who a process runs as: ids, id maps of a user namespace, and names out of the image's passwd and group files."""

import posix

from runtime.init import abi, kernel
from runtime.init.container.abi import S_IFMT, S_IFREG
from runtime.init.failure import ContainerFailure, why

MAX_ID = (1 << 32) - 2  # (uid_t)-1 means "leave as it is" to the kernel
_MAX_FILE_BYTES = 1 << 20
_MAX_MAPS = 340  # UID_GID_MAP_MAX_EXTENTS, include/linux/user_namespace.h


def check_id(value: object, where: str) -> int:
    """A user or group number. Raises ContainerFailure "user"."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_ID:
        raise ContainerFailure("user", f"container spec: key {where}: expected 0 to {MAX_ID}, got {value!r:.80}")
    return value


def check_maps(value: object) -> dict[str, object]:
    """{"uid_maps": [[inside, outside, count]…], "gid_maps": …, "deny_setgroups": bool}; ContainerFailure "spec"."""
    where = "namespaces.user"
    if not isinstance(value, dict) or set(value) - {"uid_maps", "gid_maps", "deny_setgroups"}:
        raise ContainerFailure(
            "spec",
            f"container spec: key {where}: expected zone or an object of uid_maps, gid_maps and deny_setgroups, "
            f"got {value!r:.80}",
        )
    found: dict[str, object] = {"deny_setgroups": bool(value.get("deny_setgroups", False))}
    for key in ("uid_maps", "gid_maps"):
        rows = value.get(key)
        if not isinstance(rows, list) or not 0 < len(rows) <= _MAX_MAPS or not all(_is_map(row) for row in rows):
            raise ContainerFailure(
                "spec",
                f"container spec: key {where}.{key}: expected 1 to {_MAX_MAPS} rows [inside, outside, count], "
                f"got {rows!r:.80}",
            )
        found[key] = [list(row) for row in rows]
    return found


def _is_map(row: object) -> bool:
    if not isinstance(row, (list, tuple)) or len(row) != 3:
        return False
    inside, outside, count = row
    numbers = all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in row)
    return numbers and count > 0 and max(inside, outside) + count - 1 <= MAX_ID


def map_text(rows: object) -> bytes:
    """What /proc/PID/uid_map takes."""
    assert isinstance(rows, list)
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in rows).encode()


def outside_id(rows: object) -> int:
    """Who the container's root is outside: 0 where it has no root."""
    return mapped(rows, 0) or 0


def mapped(rows: object, number: int) -> int | None:
    """Who an id of the container is outside; None for one it does not have."""
    assert isinstance(rows, list)
    return next((out + number - inside for inside, out, count in rows if inside <= number < inside + count), None)


def inside_root(rows: object) -> int:
    """The id that sets the container up from inside: its root, or the first one it has."""
    assert isinstance(rows, list)
    return min(int(inside) for inside, _, _ in rows)


def resolve(user: str, passwd: bytes, group: bytes) -> tuple[int, int, list[int]]:
    """(uid, gid, supplementary groups) of "name", "uid", "name:group", "uid:gid".

    Semantics: as the host resolves an image's User (pipeline/bundle/accounts.py): an explicit group ends the search
               for supplementary ones, among which the primary one always is.
    Raises:    ContainerFailure "user".
    Source:    OCI image specification, config.md, "User".
    """
    name, _, group_name = user.partition(":")
    users = _lines(passwd, 7)
    groups = _lines(group, 4)
    entry = _find(users, name)
    uid = _number(entry[2] if entry else name.encode(), f"user {name!r}", "passwd")
    if group_name:
        found = _find(groups, group_name)
        gid = _number(found[2] if found else group_name.encode(), f"group {group_name!r}", "group")
        return uid, gid, [gid]
    if entry is None:
        return uid, 0, [0]
    gid = _number(entry[3], f"user {name!r}", "passwd")
    members = {_number(line[2], "group", "group") for line in groups if entry[0] in line[3].split(b",")}
    return uid, gid, sorted({gid, *members})


def home_of(user: str, passwd: bytes) -> str:
    """The home directory of a user as `resolve` takes one; / where there is none that could be one."""
    entry = _find(_lines(passwd, 7), user.partition(":")[0])
    home = entry[5].decode("utf-8", "surrogateescape") if entry else ""
    return home if home.startswith("/") and "\0" not in home else "/"


def _lines(data: bytes, fields: int) -> list[list[bytes]]:
    return [line for text in data.split(b"\n") if len(line := text.split(b":")) >= fields]


def _find(lines: list[list[bytes]], name: str) -> list[bytes] | None:
    wanted = name.encode()
    for column in (0, 2):
        for line in lines:
            if line[column] == wanted:
                return line
    return None


def _number(digits: bytes, subject: str, file: str) -> int:
    number = (digits.lstrip(b"0") or b"0") if digits.isdigit() else b""
    # int() takes no text of any length.
    if not number or len(number) > len(str(MAX_ID)) or int(number) > MAX_ID:
        text = digits.decode("utf-8", "replace")
        raise ContainerFailure(
            "user", f"{subject:.100}: expected a number or a name in the image's /etc/{file}, got {text!r:.80}"
        )
    return int(number)


def read_file(root_fd: int, path: str) -> bytes:
    """A file of the image, b"" where there is none. Raises ContainerFailure "user".

    It belongs to the container: a fifo must not block us, a device not be read, a symlink not lead out.
    """
    try:
        fd = kernel.open_in(
            root_fd, path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY, resolve=abi.RESOLVE_IN_ROOT
        )
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise ContainerFailure("user", f"reading {path} of the image: {why(error)}") from None
    try:
        if posix.fstat(fd).st_mode & S_IFMT != S_IFREG:
            raise ContainerFailure("user", f"{path} of the image: expected a file, got something else")
        data = b""
        while len(data) <= _MAX_FILE_BYTES and (chunk := posix.read(fd, 65536)):
            data += chunk
    finally:
        posix.close(fd)
    if len(data) > _MAX_FILE_BYTES:
        raise ContainerFailure("user", f"{path} of the image: expected at most {_MAX_FILE_BYTES} bytes, got more")
    return data
