"""What an image may be at most; the config file may say otherwise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What an image may be at most. Larger ones are refused by name, in bounded time and memory.

    ratio:   inflated bytes per compressed byte, once a layer inflates to more than `ratio_free_bytes`.
    extents: pieces of one sparse file.
    """

    layers: int = 512
    entries: int = 1_000_000
    path_bytes: int = 4096
    name_bytes: int = 255
    depth: int = 512
    file_bytes: int = 64 << 30
    layer_bytes: int = 64 << 30
    image_bytes: int = 128 << 30
    ratio: int = 250
    ratio_free_bytes: int = 256 << 20
    extents: int = 100_000

    def inflated_bytes(self, compressed_bytes: int) -> int:
        """How much a layer of this compressed size may inflate to."""
        return min(self.layer_bytes, max(self.ratio_free_bytes, self.ratio * compressed_bytes))
