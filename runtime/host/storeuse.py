"""What of a store is in use on this machine by something that is no build: zones, the lab, open files, loop devices."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.oci import Digest
from pipeline.store import Store
from pipeline.store.fsck import Damage
from runtime.host import actions
from runtime.host.hosts import Host
from runtime.host.lab.snapshot import FORMAT, MEMORY, META, Snapshots

PROC, LOOPS = Path("/proc"), Path("/sys/block")


def in_use(store: Store, host: Host) -> set[Digest]:
    """The blobs gc must leave although no name may lead to them any more: a zone outlives the build that replaced it.

    Raises:  what the host raises when it is up and does not answer: then nobody knows what its zones need.
    """
    found = set(open_blobs(store))
    for zone in actions.zones(host):
        for digest in (zone.manifest, *zone.blobs):
            with contextlib.suppress(PipelineError):
                found.add(Digest.parse(digest))
    return found


def open_blobs(store: Store) -> Iterator[Digest]:
    """Blobs that processes have open (QEMU its disks) or loop devices stand on, as far as this user may see."""
    blobs = os.path.realpath(store.root / "blobs") + os.sep
    for link in PROC.glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            yield from _blob(os.readlink(link), blobs)
    for file in LOOPS.glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            yield from _blob(file.read_text().rstrip("\n"), blobs)


def _blob(path: str, blobs: str) -> Iterator[Digest]:
    if path.startswith(blobs):
        with contextlib.suppress(PipelineError):
            yield Digest.parse(path.removeprefix(blobs).replace(os.sep, ":"))


def damaged_snapshots(root: Path) -> Iterator[Damage]:
    """The lab's memory snapshots that are not as they were saved, for fsck."""
    snapshots = Snapshots(root / "lab" / "snapshots")
    for path in sorted(snapshots.directory.glob("*")):
        if path.suffix == ".partial":
            continue
        for name, problem in _snapshot_problems(path):
            where = str((path / name if name else path).relative_to(root))
            yield Damage(where, problem, "the snapshot removed", partial(snapshots.drop, path.name))


def _snapshot_problems(path: Path) -> Iterator[tuple[str, str]]:
    if not path.is_dir() or path.is_symlink():
        yield "", "is no snapshot"
        return
    for extra in sorted(item.name for item in path.iterdir() if item.name not in (MEMORY, META)):
        yield extra, "is nothing a snapshot has"
    try:
        meta = json.loads((path / META).read_bytes())
        sound = meta.keys() == {"format", "sha256", "size_bytes"} and meta["format"] == FORMAT
    except (OSError, ValueError, AttributeError):
        meta, sound = {}, False
    if not sound:
        yield META, "has other bytes than it was made with"
        return
    try:
        with open(path / MEMORY, "rb") as file:
            actual, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except OSError as error:
        yield MEMORY, f"cannot be read: {error.strerror}"
        return
    if actual != meta["sha256"] or size != meta["size_bytes"]:
        yield MEMORY, f"has {size} bytes that hash to {actual[:12]}…"
