"""Resolve `User` of an image config to numbers, from the image's own passwd and group files, never from the host's."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.bundle.errors import NoSuchUser

MAX_ID = (1 << 32) - 2  # (uid_t)-1 means "leave as it is" to the kernel


@dataclass(frozen=True)
class Account:
    """Numbers to run as. `home` is "" where the image has no entry for the user."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve_user(user: str, *, passwd: bytes, group: bytes, subject: str) -> Account:
    """Resolve "", "name", "uid", "name:group", "uid:gid" and mixtures.

    Semantics: with an explicit group there are no further groups; without one they are those of the group file that
    list the user, as OCI runtimes do. The primary group is always among them: a program that becomes another group
    would else be let through where files are closed to this one (CVE-2023-25173).
    Raises:    NoSuchUser for a name the image lacks or a number out of range.
    Source:    OCI image specification, config.md, "User".
    """
    name, _, group_name = (user or "0").partition(":")
    users = [fields for line in passwd.split(b"\n") if len(fields := line.split(b":")) >= 7]
    groups = [fields for line in group.split(b"\n") if len(fields := line.split(b":")) >= 4]
    entry = _find(users, name)
    uid = _number(entry[2] if entry else _bytes(name), f"{subject}: user {name!r:.80}", "passwd")
    if group_name:
        found = _find(groups, group_name)
        gid = _number(found[2] if found else _bytes(group_name), f"{subject}: group {group_name!r:.80}", "group")
        return Account(uid, gid, (gid,), _text(entry[5]) if entry else "")
    if entry is None:
        return Account(uid, 0, (0,), "")
    gid = _number(entry[3], f"{subject}: user {name!r:.80}", "passwd")
    members = (
        _number(fields[2], f"{subject}: group", "group") for fields in groups if entry[0] in fields[3].split(b",")
    )
    return Account(uid, gid, tuple(sorted({gid, *members})), _text(entry[5]))


def _find(lines: list[list[bytes]], name: str) -> list[bytes] | None:
    wanted = _bytes(name)
    for column in (0, 2):
        for fields in lines:
            if fields[column] == wanted:
                return fields
    return None


def _number(digits: bytes, subject: str, file: str) -> int:
    if not digits.isdigit():
        raise NoSuchUser(
            subject, expected=f"a number or a name in the image's /etc/{file}", got=repr(_text(digits))[:80]
        )
    digits = digits.lstrip(b"0") or b"0"
    if len(digits) > len(str(MAX_ID)) or int(digits) > MAX_ID:  # int() takes no text of any length
        raise NoSuchUser(subject, expected=f"at most {MAX_ID}", got=_text(digits)[:80])
    return int(digits)


def _bytes(text: str) -> bytes:
    """A config of JSON can have half a surrogate pair, which no file has."""
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
