"""Temporary files with known owners: each is locked by the process that works in it, so what a kill left has none."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pipeline.durable import take

# What is made in a store's tmp: its own kinds of files and directories, and what `durable.write_atomic` makes there.
_OURS = re.compile(r"(?:blob|scratch|spool)\..*|\..*\.partial", re.S)


class Workshop:
    """A directory of temporary files.

    door:    the lock held shared between the making of a temporary file and its own lock, and alone by a sweep.
    """

    def __init__(self, directory: Path, door: Path) -> None:
        self._directory, self._door = directory, door

    @contextlib.contextmanager
    def file(self, prefix: str) -> Iterator[tuple[IO[bytes], Path]]:
        """An open file, gone afterwards unless it was renamed."""
        with self._making():
            fd, name = tempfile.mkstemp(prefix=prefix, dir=self._directory)
            fcntl.flock(fd, fcntl.LOCK_EX)
        path = Path(name)
        try:
            with os.fdopen(fd, "wb") as file:
                yield file, path
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    @contextlib.contextmanager
    def directory(self, prefix: str) -> Iterator[Path]:
        """An empty directory, gone afterwards."""
        with self._making():
            path = Path(tempfile.mkdtemp(prefix=prefix, dir=self._directory))
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(fd)

    @contextlib.contextmanager
    def _making(self) -> Iterator[None]:
        fd = take(self._door, shared=True)
        try:
            yield
        finally:
            os.close(fd)

    def sweep(self) -> int:
        """Remove what is ours and has no owner; returns how many.

        Does nothing while a file is being made, or another sweeps.
        """
        try:
            door = take(self._door, wait=False)
        except BlockingIOError:
            return 0
        try:
            return sum(remove_unowned(path) for path in self._directory.iterdir() if is_ours(path.name))
        finally:
            os.close(door)


def is_ours(name: str) -> bool:
    """Is this a name of a temporary file or directory of a store? Whatever else lies there is somebody's."""
    return _OURS.fullmatch(name) is not None


def is_unowned(path: Path) -> bool:
    """Does no living process hold this temporary file or directory?"""
    with _held(path) as held:
        return held


def remove_unowned(path: Path) -> bool:
    """Remove a temporary file or directory that no living process holds; returns whether it is gone.

    It is held while it goes, so that a writer who takes the same name over (`durable.write_atomic`) waits, and then
    begins with a file of its own.
    """
    with _held(path) as held:
        if not held:
            return False
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return not os.path.lexists(path)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Hold what nobody holds; yields whether that is so."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        yield False
        return
    try:
        yield True
    finally:
        os.close(fd)
