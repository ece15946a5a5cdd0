"""Where the pipeline is measured: scratch space, a registry on loopback with the images, a cold packing."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from process import Spent, settle, spend, zone
from support import benchimage
from support.dockerregistry import docker_registry

from pipeline.store import Store

PAIRS = int(os.environ.get("BENCH_PAIRS", "5"))


@dataclass(frozen=True)
class Place:
    """Where everything is measured: scratch space, a registry on loopback with the images, pictures."""

    scratch: Path
    registry: str
    out: Path

    def reference(self, name: str) -> str:
        """An image in the registry, put there now if it is not yet."""
        there = f"docker://{self.registry}/bench/{name}:latest"
        mark = self.scratch / f"pushed-{name}"
        if not mark.exists():
            spend("skopeo", "copy", "--quiet", "--dest-tls-verify=false", benchimage.reference(name), there)
            mark.touch()
        return there

    def pinned(self, name: str) -> str:
        """The same, named by digest."""
        there = self.reference(name)
        return there.replace(":latest", f"@{Store(benchimage.IMAGES).tags()[benchimage.tag(name)].digest}")


def say(what: str) -> None:
    """What is being done, for who waits."""
    print(f"bench: pipeline: {what.replace('_', ' ')}", file=sys.stderr, flush=True)


@contextmanager
def place(out: Path) -> Iterator[Place]:
    """Scratch space on the disk that has the checkout, and a registry."""
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=out) as scratch:
        directory = Path(scratch, "registry")
        directory.mkdir()
        with docker_registry(directory) as host:
            yield Place(Path(scratch), host, out)


@contextmanager
def cold(scratch: Path) -> Iterator[Path]:
    """An empty directory, whose files somebody else's time goes for: all is written before, removed after."""
    with tempfile.TemporaryDirectory(prefix="cold-", dir=scratch) as path:
        settle()
        yield Path(path)


def pack(at: Place, reference: str, out: Path | None = None) -> Spent:
    """`zone image pack` with an empty store."""
    with cold(at.scratch) as work:
        return zone(work / "store", "image", "pack", reference, "-o", out or work / "out.squashfs")


def middle(values: Iterable[float]) -> float:
    """The median, as short as is sensible to print."""
    return round(statistics.median(values), 3)


def megabytes(size_bytes: int) -> float:
    """In units of a million bytes."""
    return round(size_bytes / 1e6, 1)
