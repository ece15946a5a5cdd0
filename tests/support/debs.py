"""Debian packages and mirrors for tests: .debs made by hand, a loopback mirror, the real one where it answers."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import io
import lzma
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pipeline.debian import LockedPackage, PackageLock, locked
from pipeline.errors import PipelineError


def tar_of(files: Mapping[str, bytes], *, mtime: int = 0) -> bytes:
    """A tar of regular files, named as dpkg names them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mtime = len(data), mtime
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def ar_of(members: Mapping[str, bytes]) -> bytes:
    """An ar archive, as a .deb is one."""
    out = b"!<arch>\n"
    for name, data in members.items():
        out += b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name.encode(), 0, 0, 0, b"100644", len(data))
        out += data + b"\n" * (len(data) % 2)
    return out


def deb_of(files: Mapping[str, bytes], *, control: str = "Package: tiny\nVersion: 1\nArchitecture: all\n") -> bytes:
    """A .deb with these files and this control file."""
    return ar_of(
        {
            "debian-binary": b"2.0\n",
            "control.tar.xz": lzma.compress(tar_of({"control": control.encode()})),
            "data.tar.xz": lzma.compress(tar_of(files)),
        }
    )


def package_of(deb: bytes, uri: str, *, name: str = "tiny", version: str = "1", depends: str = "") -> LockedPackage:
    """The locked package for a .deb served at `uri`."""
    stanza = (
        f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
        + (f"Depends: {depends}\n" if depends else "")
        + f"Filename: pool/{name}.deb\nSize: {len(deb)}\nSHA256: {hashlib.sha256(deb).hexdigest()}\n"
    )
    return locked(stanza, uri)


def lock_of(*packages: LockedPackage, include: tuple[str, ...] = ("tiny",)) -> PackageLock:
    """A lock of these packages, for a request of `include` without the essential ones."""
    return PackageLock("bookworm", include, False, "amd64", 1_700_000_000, packages)


@contextlib.contextmanager
def mirror(directory: Path) -> Iterator[str]:
    """Serve a directory on loopback; gives the URI of its root."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@functools.cache
def _mirror_fault() -> str:
    from pipeline.fetch.aptsources import choose_mirrors, read_sources

    try:
        uri = f"{choose_mirrors(read_sources()).main}/dists/bookworm/InRelease"
        with urllib.request.urlopen(uri, timeout=10) as response:
            response.read(1)
    except (PipelineError, OSError, urllib.error.URLError) as error:
        return str(error)
    return ""


def need_mirror() -> None:
    """Skip the test where this machine's Debian mirror does not answer."""
    if fault := _mirror_fault():
        pytest.skip(f"needs the Debian mirror: {fault}")
