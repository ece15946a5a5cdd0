"""What converting an extension image takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pipeline.fetch.model import FetchResult
from pipeline.layers import Layer
from pipeline.oci import Descriptor, Digest
from pipeline.unpack.model import UnpackResult


class ExtensionKind(Enum):
    """What an extension brings."""

    INIT = "init"
    UTILS = "utils"
    MODULES = "modules"
    FIRMWARE = "firmware"


class Phase(Enum):
    """Where it lies: in the zone's memory before the root is there, or on the addons disk."""

    INITRD = "initrd"
    ADDONS = "addons"


@dataclass(frozen=True)
class Facts:
    """What an image says of itself; see facts.py for the words.

    abi:     number of the zone ABI it was made for; arch: "amd64" or "any".
    order:   lower comes first; equal ones in the order of the zone's spec.
    """

    kind: ExtensionKind
    phase: Phase
    abi: int
    arch: str
    kernel_release: str = ""
    provides: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    order: int = 0


@dataclass(frozen=True)
class ExtensionModule:
    """A kernel module of an extension.

    path:   in the initrd or on the addons disk.
    plain:  its bytes where the image has them compressed; else they are in the image's layer.
    """

    name: str
    path: str
    depends: tuple[str, ...]
    vermagic: str
    plain: Descriptor | None = None


@dataclass(frozen=True)
class ExtensionParams:
    """An image that is to be an extension."""

    fetch: FetchResult
    unpack: UnpackResult


@dataclass(frozen=True)
class ExtensionResult:
    """segment: for the initrd phase; tree: for the addons phase, its paths those on the disk, its bytes in `layers`.

    modules: by name; those on the disk that are compressed in the image are not in `tree`.
    """

    reference: str
    manifest: Digest
    facts: Facts
    layers: tuple[Layer, ...]
    modules: tuple[ExtensionModule, ...] = ()
    segment: Descriptor | None = None
    tree: Descriptor | None = None
