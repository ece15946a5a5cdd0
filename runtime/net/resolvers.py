"""The host's name servers: read where the files are, by whoever starts an engine, which has no files.

Source: resolv.conf(5), inotify(7).
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")
NONE_NAMED: tuple[str, ...] = ("127.0.0.1",)  # resolv.conf(5): where no entry is, the name server of this host
_MAX = 3  # resolv.conf(5), MAXNS
_LAST_SCOPE = 0xFFFFFFFF
_MAX_LINKS = 40  # path_resolution(7)
# sys/inotify.h: MODIFY, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF
_MASK = 0x002 | 0x008 | 0x040 | 0x080 | 0x100 | 0x200 | 0x400 | 0x800
_libc = ctypes.CDLL(None, use_errno=True)


def parse_resolvers(text: str) -> tuple[str, ...]:
    """The name servers of a resolv.conf as numeric addresses, an interface as a number ("fe80::1%2").

    What is no address is left out: an engine that tried to resolve it would have to be able to.
    """
    words = (line.split() for line in text.splitlines())
    named = [fields[1] for fields in words if len(fields) > 1 and fields[0] == "nameserver"]
    return tuple(address for name in named[:_MAX] if (address := _numeric(name))) or NONE_NAMED


def _numeric(name: str) -> str:
    host, _, scope = name.partition("%")
    try:
        address = ip_address(host)
        if not scope:
            return str(address)
        number = int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
        # No socket takes another: an interface of an IPv4 address, or a number of more than 32 bits.
        return f"{address}%{number}" if address.version == 6 and number <= _LAST_SCOPE else ""
    except (ValueError, OSError):
        return ""


def read_resolvers(path: Path) -> tuple[str, ...] | None:
    """The name servers a file names; None where there is no such file, as while it is being replaced."""
    try:
        return parse_resolvers(path.read_text(encoding="ascii", errors="replace"))
    except OSError:
        return None


class FileWatch:
    """Tells that a file may have changed: written, replaced, or a symbolic link on the way to it set anew.

    fd:  readable then; `changed` says whether it really has. Raises OSError where this kernel gives no watch.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._watched: dict[Path, int] = {}
        try:
            self._follow()
        except OSError:
            self.close()
            raise
        self._seen = self._state()

    def changed(self) -> bool:
        """Has it, since this was asked before?"""
        try:
            while os.read(self.fd, 65536):
                pass
        except BlockingIOError:
            pass
        self._follow()  # before the look: what happens after it is told
        before, self._seen = self._seen, self._state()
        return before != self._seen

    def close(self) -> None:
        """Watch no more."""
        os.close(self.fd)

    def _state(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_dev, status.st_size

    def _follow(self) -> None:
        current: dict[Path, int] = {}
        for path in self._way():
            watch = _libc.inotify_add_watch(self.fd, os.fsencode(path), _MASK)
            if watch < 0 and not current:
                raise OSError(ctypes.get_errno(), f"inotify_add_watch {path}")
            current[path] = watch
        for watch in set(self._watched.values()) - set(current.values()):
            _libc.inotify_rm_watch(self.fd, watch)
        self._watched = current

    def _way(self) -> Iterator[Path]:
        """The directories of every link on the way, or what there is of them, and the file at its end."""
        path = self._path
        for _ in range(_MAX_LINKS):
            yield next(parent for parent in path.parents if parent.is_dir())
            try:
                path = path.parent / path.readlink()
            except OSError:  # no link, or not any more: whoever sets it anew may be about to
                break
        if path.exists():
            yield path
