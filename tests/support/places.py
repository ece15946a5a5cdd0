"""Where a test's files lie."""

from __future__ import annotations

import tempfile
from pathlib import Path


def open_to_others(path: Path) -> Path:
    """Let other users reach a test's directory, which is deeper where several processes run the tests; returns it."""
    for directory in (path, *path.parents):
        if directory == Path(tempfile.gettempdir()):
            break
        directory.chmod(0o755)
    return path
