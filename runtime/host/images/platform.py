"""The platform of this host: what zones without a kernel of their own boot from. One small file of the state directory.

Its blobs are in the store, or, in the lab, disks that are plugged into dom0.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.bundle.model import INITRD_SEGMENT, KERNEL_ELF, ROOTFS_SQUASHFS
from pipeline.durable import write_atomic
from pipeline.errors import PipelineError
from pipeline.jsonmodel import from_json, to_json
from pipeline.oci import Descriptor, canonical_json, parse_json
from pipeline.store import Store
from runtime.errors import RuntimeFault
from runtime.host.images.model import Platform

TAG = "platform/default"


class NoPlatform(RuntimeFault):
    """A zone that names no kernel, on a host that has none of its own."""


class PlatformFile:
    """The platform, as it was given last.

    store: where its blobs are named, so that no gc takes them; those that are not there are left alone.
    """

    def __init__(self, path: Path, store: Store) -> None:
        self._path, self._store = path, store

    def load(self) -> Platform | None:
        """None where none was given, and where what was given cannot be read any more."""
        try:
            return from_json(Platform, parse_json(self._path.read_bytes(), subject=str(self._path)))
        except (FileNotFoundError, PipelineError):
            return None

    def need(self) -> Platform:
        """The platform. Raises NoPlatform."""
        if (platform := self.load()) is None:
            raise NoPlatform(
                "zone without a kernel",
                expected="a default platform on this host",
                got="none",
                hint="zone host platform gives it one",
            )
        return platform

    def save(self, platform: Platform) -> None:
        """Take a platform from now on."""
        parts = [part for part in blobs(platform) if self._store.has(part)]
        if parts:
            self._store.tag(TAG, self._store.put_manifest(parts, artifact_type=TAG))
        write_atomic(self._path, canonical_json(to_json(platform)))


def blobs(platform: Platform) -> list[Descriptor]:
    """Everything a zone on this platform boots from."""
    initrd = platform.initrd
    found = [
        Descriptor(KERNEL_ELF, initrd.kernel_elf.digest, initrd.kernel_elf.size_bytes),
        Descriptor(INITRD_SEGMENT, initrd.base.digest, initrd.base.size_bytes),
        Descriptor(INITRD_SEGMENT, initrd.modules_segment.digest, initrd.modules_segment.size_bytes),
        Descriptor(ROOTFS_SQUASHFS, platform.root.digest, platform.root.size_bytes),
    ]
    return [*found, initrd.addons] if initrd.addons else found
