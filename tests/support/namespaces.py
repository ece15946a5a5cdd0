"""Namespaces of a test's own, also where the root directory is no mount point (a chroot)."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import pytest


@functools.cache
def unshare_mount() -> tuple[str, ...]:
    """The words that give a command a private mount namespace.

    unshare makes every mount private, beginning at "/"; in a chroot that is no mount point, and it fails. Whoever made
    the chroot has cut it off then, so its mounts can stay as they are.
    """
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0:
        return ("unshare", "--mount")
    return ("unshare", "--mount", "--propagation", "unchanged")


@functools.cache
def _user_namespace_refused() -> str:
    done = subprocess.run(["unshare", "--user", "true"], capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""


def require_user_namespaces() -> None:
    """Skip the test where none can be made: the kernel refuses them in a chroot (user_namespaces(7), EPERM)."""
    if refused := _user_namespace_refused():
        pytest.skip(f"needs user namespaces, which a chroot has not: {refused}")


def require_mounted_root() -> None:
    """Skip the test where "/" is no mount point, as in a chroot: nothing can be put in its place (pivot_root(2))."""
    if not any(line.split()[4] == "/" for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        pytest.skip("needs a root directory that is a mount point, which that of a chroot is not")
