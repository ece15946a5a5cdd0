"""What assembling a zone takes and gives."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.bundle.model import BundledExtension, ExtensionChoice, Module, ModuleWish
from pipeline.extension.model import ExtensionResult
from pipeline.initrd.model import InitrdResult
from pipeline.oci import Descriptor
from pipeline.unpack.model import UnpackResult


@dataclass(frozen=True)
class Wanted:
    """What a zone's spec says about it. Images by their references, for what is said to people."""

    zone: str
    image: str
    kernel: str
    extensions: tuple[ExtensionChoice, ...] = ()
    modules: tuple[ModuleWish, ...] = ()


@dataclass(frozen=True)
class AssembleParams:
    """kernel: its initrd; image: what the zone runs; extensions: in the order of `wanted.extensions`."""

    wanted: Wanted
    kernel: InitrdResult
    image: UnpackResult
    extensions: tuple[ExtensionResult, ...] = ()

    @classmethod
    def of(
        cls, wanted: Wanted, kernel: InitrdResult, image: UnpackResult, *extensions: ExtensionResult
    ) -> AssembleParams:
        """From results in a row, as the graph has them."""
        return cls(wanted, kernel, image, extensions)


@dataclass(frozen=True)
class AssembleResult:
    """initrd: whole segments, to be appended in this order; the launch segment follows at boot.

    modules: loaded from the initrd; late_modules: loaded after them, once the addons disk is mounted.
    extensions: in the order in which they were merged.
    """

    initrd: tuple[Descriptor, ...]
    modules: tuple[Module, ...]
    late_modules: tuple[Module, ...] = ()
    addons: Descriptor | None = None
    extensions: tuple[BundledExtension, ...] = ()
