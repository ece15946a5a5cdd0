"""Which directories of this host a zone may have."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import RuntimeFault

# The kernel's own: what is written there changes this host.
_KERNELS = (Path("/proc"), Path("/sys"), Path("/dev"))


class ShareUnfit(RuntimeFault):
    """A directory that no zone may have."""


def check_directory(path: Path, subject: str, private: Sequence[Path] = ()) -> None:
    """Raise ShareUnfit for what is no directory, or is or holds what no zone may have.

    private: directories of zoned's: whoever writes there writes what zoned goes by.
    """
    try:
        resolved = path.resolve(strict=True)
    except OSError as error:
        got = (error.strerror or str(error)).lower()
        raise ShareUnfit(subject, expected="a directory of the zone's host", got=got) from error
    if not os.path.isdir(resolved):
        raise ShareUnfit(subject, expected="a directory of the zone's host", got="another kind of file")
    for kept in (*_KERNELS, *(directory.resolve() for directory in private)):
        if kept.is_relative_to(resolved) or resolved.is_relative_to(kept):
            raise ShareUnfit(subject, expected="a directory apart from this host's own", got=f"{resolved}, with {kept}")
