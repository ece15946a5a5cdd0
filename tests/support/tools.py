"""Programs a test needs: it skips itself, naming the one that is missing."""

from __future__ import annotations

import os
import shutil

import pytest

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def missing(*programs: str) -> str:
    """Why a test that needs these programs has to be skipped; empty if they are all there."""
    lacking = [program for program in programs if shutil.which(program, path=PATH) is None]
    return f"needs {', '.join(lacking)}" if lacking else ""


def require(*programs: str) -> None:
    """Skip the test that runs if a program is missing."""
    if why := missing(*programs):
        pytest.skip(why)


def needs(*programs: str) -> pytest.MarkDecorator:
    """The same as a mark."""
    return pytest.mark.skipif(bool(missing(*programs)), reason=missing(*programs))
