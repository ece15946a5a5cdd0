"""A user's numbers, from the container's own /etc/passwd and /etc/group: nothing else may decide who runs there.

Source:  OCI image specification, config.md, "User"; passwd(5), group(5).
"""

import posix

from runtime.init import kernel
from runtime.init.agent.errors import Refused

MAX_ID = (1 << 32) - 2  # (uid_t)-1 means "leave as it is" to the kernel
_MAX_FILE_BYTES = 1 << 20
_S_IFMT, _S_IFREG = 0o170000, 0o100000


def resolve(user: str, passwd: bytes, group: bytes) -> tuple[int, int, list[int], str]:
    """uid, gid, supplementary groups and home ("" where unknown) of "", "name", "uid", "name:group", "uid:gid".

    With an explicit group there are no supplementary groups; without one they are those that list the user.
    Raises:  Refused "user".
    """
    name, _, group_name = (user or "0").partition(":")
    users = [fields for line in passwd.split(b"\n") if len(fields := line.split(b":")) >= 7]
    groups = [fields for line in group.split(b"\n") if len(fields := line.split(b":")) >= 4]
    entry = _find(users, name)
    uid = _number(entry[2] if entry else name.encode(), f"user {name!r}", "passwd")
    home = entry[5].decode("utf-8", "surrogateescape") if entry else ""
    if group_name:
        found = _find(groups, group_name)
        return uid, _number(found[2] if found else group_name.encode(), f"group {group_name!r}", "group"), [], home
    if entry is None:
        return uid, 0, [], home
    gid = _number(entry[3], f"user {name!r}", "passwd")
    members = {_number(one[2], "group", "group") for one in groups if entry[0] in one[3].split(b",")}
    return uid, gid, sorted(members - {gid}), home


def resolve_in(root_fd: int, user: str) -> tuple[int, int, list[int], str]:
    """The same from the files below a root; a missing one is empty. Raises Refused "user"."""
    return resolve(user, _read(root_fd, "etc/passwd"), _read(root_fd, "etc/group"))


def _read(root_fd: int, path: str) -> bytes:
    try:
        # Non-blocking: it may be a FIFO that nobody writes.
        fd = kernel.open_in(root_fd, path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY)
    except OSError:
        return b""
    try:
        if posix.fstat(fd).st_mode & _S_IFMT != _S_IFREG:
            return b""
        data = bytearray()
        while len(data) < _MAX_FILE_BYTES and (piece := posix.read(fd, 65536)):
            data += piece
        return bytes(data)
    finally:
        posix.close(fd)


def _find(lines: list[list[bytes]], name: str) -> list[bytes] | None:
    wanted = name.encode("utf-8", "surrogateescape")
    for column in (0, 2):
        for fields in lines:
            if fields[column] == wanted:
                return fields
    return None


def _number(digits: bytes, subject: str, file: str) -> int:
    shown = digits.decode("utf-8", "replace")
    if not digits.isdigit() or int(digits) > MAX_ID:
        raise Refused("user", f"{subject}: expected a number or a name in the container's /etc/{file}, got {shown!r}")
    return int(digits)
