"""Leases: which objects a living process relies on, so that `zone store gc` never takes one from under a build.

    locks/sweep        held shared for the moment in which objects are noted, before they are looked for or published;
                       held alone by gc while it looks at the leases and then removes a few objects
    locks/gc           held by a gc from its first look to its last removal
    locks/lease.<…>    one a process, locked while it lives; a line for every digest it found or made

A lease that outlives its process counts until the gc that runs by then has ended, if one does: what the process made
may have got a name after that gc looked at the names.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import weakref
from pathlib import Path

from pipeline.durable import take
from pipeline.errors import PipelineError
from pipeline.oci import Digest

PREFIX = "lease."
SWEEP, GC = "sweep", "gc"


class Lease:
    """The lease of one open store."""

    def __init__(self, locks: Path) -> None:
        self._locks = locks
        self._fd = -1
        self._held: set[Digest] = set()
        self._guard = threading.Lock()

    def note(self, *digests: Digest) -> None:
        """From now on, while this process lives, no gc removes these objects; look for them, or publish them, after.

        Raises:  OSError where the lease cannot be written; they are then not protected.
        """
        new = [digest for digest in digests if digest not in self._held]
        if not new:
            return
        sweep = take(self._locks / SWEEP, shared=True)
        try:
            with self._guard:
                if self._fd < 0:
                    self._open()
                os.write(self._fd, "".join(f"{digest}\n" for digest in new).encode())
            self._held.update(new)
        finally:
            os.close(sweep)

    def _open(self) -> None:
        path = self._locks / f"{PREFIX}{secrets.token_hex(8)}"
        fd = take(path)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        weakref.finalize(self, _end, self._locks, path, (self._fd, fd), os.getpid())


def _end(locks: Path, path: Path, fds: tuple[int, int], pid: int) -> None:
    """Give a lease up. A gc that runs goes on counting it, so its file stays; another process's is not ours to end."""
    if os.getpid() != pid:
        return
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        for fd in fds:
            stack.callback(os.close, fd)
        stack.callback(os.close, take(locks / GC, shared=True, wait=False))
        path.unlink()


def drop_dead(locks: Path) -> int:
    """Remove the leases of processes that are no more. For whoever holds the lock `gc`; returns how many."""
    dropped = 0
    sweep = take(locks / SWEEP)  # no lease is made, but not yet locked, meanwhile
    try:
        for path in locks.glob(f"{PREFIX}*"):
            with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
                stack.callback(os.close, take(path, wait=False))
                path.unlink()
                dropped += 1
    finally:
        os.close(sweep)
    return dropped


def noted(locks: Path) -> set[Digest]:
    """Every digest in any lease."""
    found: set[Digest] = set()
    for path in locks.glob(f"{PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            for line in path.read_text("ascii", "replace").splitlines():
                with contextlib.suppress(PipelineError):  # the last line of one that was killed may be half
                    found.add(Digest.parse(line))
    return found
