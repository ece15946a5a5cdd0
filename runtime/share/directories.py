"""Which directories of this host a zone may have."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import RuntimeFault
from runtime.share import steps

# The kernel's own: what is written there changes this host.
_KERNELS = (Path("/proc"), Path("/sys"), Path("/dev"))


class ShareUnfit(RuntimeFault):
    """A directory that no zone may have."""


def open_directory(path: Path, subject: str, private: Sequence[Path] = ()) -> int:
    """An O_PATH descriptor of a directory that a zone may have. Raises ShareUnfit.

    A path of no symlinks: who shares what is above, or whoever may write there, could else put one in the path's place,
    and lead another zone to any directory of this host.
    private: directories of zoned's: whoever writes there writes what zoned goes by.
    """
    try:
        opened = steps.directory(os.fsencode(path))
    except OSError as error:
        raise _unfit(path, subject, error) from error
    try:
        # Where it is now: of what was opened, not of what has the path by then.
        found = Path(os.readlink(f"/proc/self/fd/{opened}"))
        for kept in (*_KERNELS, *(directory.resolve() for directory in private)):
            if kept.is_relative_to(found) or found.is_relative_to(kept):
                got = f"{found}, with {kept}"
                raise ShareUnfit(subject, expected="a directory apart from this host's own", got=got)
    except BaseException:
        os.close(opened)
        raise
    return opened


def check_directory(path: Path, subject: str, private: Sequence[Path] = ()) -> None:
    """Could a zone have this? Raises ShareUnfit."""
    os.close(open_directory(path, subject, private))


def _unfit(path: Path, subject: str, error: OSError) -> ShareUnfit:
    if error.errno == errno.ELOOP:
        got, hint = f"one in {path}", f"name it {os.path.realpath(path)}, if that is what it is meant to be"
        return ShareUnfit(subject, expected="a path without symlinks", got=got, hint=hint)
    got = (error.strerror or str(error)).lower()
    return ShareUnfit(subject, expected="a directory of the zone's host", got=got)
