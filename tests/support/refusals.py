"""A kernel that refuses one thing: what a forked process asks of it is counted, and the one of a number is refused."""

from __future__ import annotations

import _socket
import contextlib
import errno
import mmap
import os
import posix
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runtime.init import abi as zone_abi
from runtime.init import kernel
from runtime.init.container import abi

_NAMES = {
    number: name.removeprefix("SYS_").lower()
    for module in (zone_abi, abi)
    for name, number in vars(module).items()
    if name.startswith("SYS_")
}
# What the interpreter has functions of its own for, and code of the zone calls.
_FUNCTIONS = (
    *("access", "chdir", "chmod", "chown", "chroot", "dup", "dup2", "execve", "fchdir", "fchmod", "fchown", "fork"),
    *("fstat", "getcwd", "listdir", "mkdir", "mknod", "open", "pidfd_open", "pipe2", "read", "readlink", "rename"),
    *("rmdir", "setgroups", "setresgid", "setresuid", "setsid", "stat", "symlink", "uname", "unlink", "write"),
)
_SOCKETS = ("if_nametoindex", "sethostname", "socket", "socketpair")
_SOCKET = _socket.socket
_MOST_BYTES = 256
REFUSED = os.strerror(errno.EPERM)


class Refusals:
    """In place for the rest of a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._parent, self._left = os.getpid(), 0
        self._told = mmap.mmap(-1, _MOST_BYTES)  # shared with what is forked
        for name, name_of in (("syscall", lambda number, *_: _NAMES[number]), ("clone3", lambda *_: "clone3")):
            monkeypatch.setattr(kernel.zsys, name, self._counted(getattr(kernel.zsys, name), name_of))
        for module, names in ((posix, _FUNCTIONS), (_socket, _SOCKETS)):
            for name in names:
                function = self._counted(getattr(module, name), lambda *_, name=name: name)
                monkeypatch.setattr(module, name, function)

    @contextlib.contextmanager
    def of(self, number: int) -> Iterator[None]:
        """Refuse the one of this number, from 1 on: in each process that is forked meanwhile, or in a forked one."""
        self._told[:] = bytes(_MOST_BYTES)
        self._left = number
        try:
            yield
        finally:
            self._left = 0

    @property
    def refused(self) -> str:
        """The name of the last, and what it was asked with; "" where it did not come to that."""
        return self._told[:].rstrip(b"\0").decode(errors="replace")

    def _counted(self, function: Callable[..., Any], name_of: Callable[..., str]) -> Callable[..., Any]:
        def call(*words: Any, **keys: Any) -> Any:
            # A socket made of a descriptor asks for nothing.
            if os.getpid() != self._parent and not (function is _SOCKET and len(words) == 4):
                self._left -= 1
                if self._left == 0:
                    told = f"{name_of(*words)} {words}".encode(errors="replace")[:_MOST_BYTES]
                    self._told[: len(told)] = told
                    raise OSError(errno.EPERM, REFUSED)
            return function(*words, **keys)

        return call
