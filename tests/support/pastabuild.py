"""The pasta that the tests of the engine are for, built from Debian's source where the machine has another or none."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from pipeline.debian import LockedPackage
from pipeline.errors import PipelineError
from pipeline.fetch import aptsources, debdownload
from pipeline.progress import PlainProgress
from pipeline.store import Store
from runtime.net.errors import EngineFault
from runtime.net.pasta.version import ask_version, check_version

VERSION = "2025_05_03.587980c"
FILENAME = "pool/main/p/passt/passt_0.0~git20250503.587980c.orig.tar.xz"
SHA256, SIZE_BYTES = "69d5eb843f7d648c2cc60bfbca6ea7b5014c6b6f07cdee362c2a8cf490515a49", 261392


# What is tested is what it does, and a quarter of the time is spent.
UNOPTIMIZED = "-O0 -U_FORTIFY_SOURCE"


class NoPasta(Exception):
    """There is none that will do, and none can be made; says why."""


def pasta_for_tests(directory: Path, store: Store) -> str:
    """find_pasta, which skips where none can be."""
    try:
        return find_pasta(directory, store, UNOPTIMIZED)
    except NoPasta as error:
        pytest.skip(str(error))


def find_pasta(directory: Path, store: Store, flags: str = "-O2") -> str:
    """$ZONEWRIGHT_TEST_PASTA, or the one on the path, or one that is made in a directory.

    flags:   the compiler's.
    Raises:  NoPasta.
    """
    program = os.environ.get("ZONEWRIGHT_TEST_PASTA") or shutil.which("pasta")
    try:
        if program is not None:
            check_version(program, ask_version(program))
            return program
        reason = "none is on the path"
    except EngineFault as fault:
        reason = str(fault)
    if not (shutil.which("gcc") and shutil.which("make")):
        raise NoPasta(f"needs a pasta (package passt), or gcc and make to build one: {reason}")
    return str(_build(directory, _source(store), flags))


def _source(store: Store) -> Path:
    uri = f"{aptsources.choose_mirrors(aptsources.read_sources()).main}/{FILENAME}"
    archive = LockedPackage("passt", VERSION, "source", FILENAME, SHA256, SIZE_BYTES, uri, "")
    try:
        debdownload.fetch_all(store, PlainProgress(), [archive], title="source of pasta")
    except PipelineError as error:
        raise NoPasta(f"needs pasta's source: {error}") from error
    return store.path(archive.descriptor.digest)


def _build(directory: Path, source: Path, flags: str) -> Path:
    with tarfile.open(source) as archive:
        archive.extractall(directory)  # of a digest that is known
    (tree,) = directory.iterdir()
    words = ["make", "-C", tree, "passt", f"VERSION={VERSION}", f"CFLAGS={flags}"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (tree / "passt").rename(tree / "pasta")
