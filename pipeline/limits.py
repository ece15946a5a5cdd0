"""What an image may be at most; [limits] of the config file may say otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Limits:
    """What an image may be at most. Larger ones are refused by name, in bounded time and memory.

    ratio:          inflated bytes per compressed byte, once a layer inflates to more than `ratio_free_bytes`.
    extents:        pieces of one sparse file.
    entries:        of one layer, and of the image; layers that replace each other's may have more between them.
    metadata_bytes: of names, link targets, xattrs and sparse maps, which are kept in memory: likewise.
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
    metadata_bytes: int = 128 << 20

    def inflated_bytes(self, compressed_bytes: int) -> int:
        """How much a layer of this compressed size may inflate to."""
        return min(self.layer_bytes, max(self.ratio_free_bytes, self.ratio * compressed_bytes))

    def check_blob(self, subject: str, size_bytes: int, refused: type[PipelineError]) -> None:
        """Raise `refused` for a blob too large to be fetched: compressed, a layer is hardly larger than inflated."""
        most = self.layer_bytes + (self.layer_bytes >> 8)
        if size_bytes > most:
            hint = limit_hint("layer_bytes")
            raise refused(subject, expected=f"at most {most} bytes", got=str(size_bytes), hint=hint)

    def inflated_hint(self, compressed_bytes: int) -> str:
        """Which limit `inflated_bytes` is, and where it is set."""
        if self.inflated_bytes(compressed_bytes) < self.layer_bytes:
            return limit_hint("ratio", "ratio_free_bytes")
        return limit_hint("layer_bytes")


def limit_hint(*keys: str) -> str:
    """The hint of an error about a limit: where it is set."""
    return f"{' or '.join(keys)} under [limits] of the config file raises the limit"
