"""What unpacking takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.fetch.model import FetchResult
from pipeline.layers import Layer
from pipeline.layers import Spools as Spools
from pipeline.limits import Limits
from pipeline.oci import Descriptor
from pipeline.rootfs import Rootfs
from pipeline.store import Store


@dataclass(frozen=True)
class UnpackParams:
    """fetch: the image; limits: if None the config file's; strict: refuse what is else put right with a warning."""

    fetch: FetchResult
    limits: Limits | None = None
    strict: bool = False


@dataclass(frozen=True)
class LayerIndex:
    """One layer's entries as a document; the same for every image that has this layer."""

    index: Descriptor
    entries: int
    warnings: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class UnpackResult:
    """tree: the merged tree's document; size_bytes: of all files; passwd, group: /etc/passwd and /etc/group."""

    tree: Descriptor
    layers: tuple[Layer, ...]
    entries: int
    size_bytes: int
    passwd: Descriptor | None = None
    group: Descriptor | None = None
    warnings: dict[str, int] = field(default_factory=dict)


def open_rootfs(store: Store, result: UnpackResult, spools: Spools) -> Rootfs:
    """Read the merged image: `with Spools(store) as spools: open_rootfs(store, result, spools).read("/etc/passwd")`."""
    return Rootfs(store, result.tree, result.layers, spools)
