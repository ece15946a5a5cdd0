"""What is asked of a child, how far it is, and what comes of it: frozen, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from pipeline.bundle.model import BundledExtension, Module, ModuleWish
from pipeline.initrd.model import InitrdResult
from pipeline.oci import Descriptor, Digest


class Format(Enum):
    """The file system an image is packed as."""

    SQUASHFS = "squashfs"
    EROFS = "erofs"
    TAR = "tar"


class Phase(Enum):
    """Where a pull is, in the order of their coming."""

    STARTED = "started"
    RESOLVING = "resolving"
    RESOLVED = "resolved"
    CONFIG_DOWNLOAD = "config download"
    LAYER_DOWNLOAD = "layer download"
    ASSEMBLE = "assemble"
    PACK = "pack"
    COMPLETE = "complete"


class LayerPhase(Enum):
    """Where a layer is. A layer is inflated while it comes: it is extracted as soon as it is downloaded."""

    WAITING = "waiting"
    DOWNLOADING = "downloading"
    EXTRACTED = "extracted"


@dataclass(frozen=True)
class LayerProgress:
    """One layer, by its digest."""

    id: str
    phase: LayerPhase = LayerPhase.WAITING
    done_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True)
class Progress:
    """Where a task is. done and total are bytes of the phase; 0 of 0 where nobody knows."""

    phase: Phase = Phase.STARTED
    layers: tuple[LayerProgress, ...] = ()
    done_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True)
class Credentials:
    """Who the caller is to the image's registry. Its repr shows nothing of it."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True)
class PullWork:
    """An image of a registry, wanted in a format.

    update:     ask what the tag means now; else what was pulled under it before does (of `latest` never).
    overwrite:  hash what is there already, and make anew what is damaged.
    """

    image: str
    format: Format = Format.SQUASHFS
    update: bool = False
    overwrite: bool = False
    credentials: Credentials | None = None


@dataclass(frozen=True)
class ImportWork:
    """An image of an archive file, wanted in a format. digest: of its manifest or index, "" for the only one."""

    file: str
    image: str = ""
    digest: str = ""
    format: Format = Format.SQUASHFS
    overwrite: bool = False


@dataclass(frozen=True)
class Platform:
    """What zones without a kernel of their own boot from.

    root: an empty squashfs, the root of a zone that has no image.
    """

    initrd: InitrdResult
    root: Descriptor


@dataclass(frozen=True)
class AssembleWork:
    """Kernel and initrd of one zone, from images by their manifests' digests; "" takes the platform's."""

    zone: str
    platform: Platform | None = None
    kernel: str = ""
    init: str = ""
    addons: tuple[str, ...] = ()
    modules: tuple[ModuleWish, ...] = ()


@dataclass(frozen=True)
class Packed:
    """An image in the store, in one format. manifest and config are its own documents."""

    digest: Digest
    format: Format
    rootfs: Descriptor
    manifest: Descriptor
    config: Descriptor
    passwd: Descriptor | None = None
    group: Descriptor | None = None


@dataclass(frozen=True)
class Assembled:
    """What a zone without an image is made of; the fields are a bundle's."""

    kernel: Descriptor
    release: str
    initrd: tuple[Descriptor, ...]
    modules: tuple[Module, ...]
    root: Descriptor
    late_modules: tuple[Module, ...] = ()
    addons: Descriptor | None = None
    extensions: tuple[BundledExtension, ...] = ()
    filesystems: tuple[str, ...] = ()


Work = PullWork | ImportWork | AssembleWork
Result = Packed | Assembled
