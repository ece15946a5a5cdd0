"""The steps of squashing: the merged tree as a sorted tar into tar2sqfs, its image into the store."""

from __future__ import annotations

import contextlib

from pipeline.env import Env, cached
from pipeline.layers import Spools
from pipeline.squash.errors import UnknownFormat
from pipeline.squash.model import SquashParams, SquashResult
from pipeline.squashfs import compression_of, squash_rootfs, writer_versions
from pipeline.unpack.model import open_rootfs

VERSION = 1
FORMATS = ("squashfs",)


def run(params: SquashParams, env: Env, spools: Spools | None = None) -> SquashResult:
    """Write a merged image as a file system.

    spools:  inflated layers shared with other stages of this process; made and dropped here if None.
    Raises:  UnknownFormat, BadCompressionName, SquashFailed, ToolMissing, DigestMismatch, StoreDamaged.
    """
    if params.format not in FORMATS:
        raise UnknownFormat(f"format {params.format!r}", expected=f"one of {', '.join(FORMATS)}", got="another")
    how = compression_of(params.compression)
    tree = params.tree

    def build() -> SquashResult:
        with contextlib.ExitStack() as stack:
            inflated = spools or stack.enter_context(Spools(env.store, env.config.limits))
            image = squash_rootfs(
                env.store,
                open_rootfs(env.store, tree, inflated),
                compression=params.compression,
                progress=env.progress,
                total_bytes=tree.size_bytes,
            )
        return SquashResult(image, tree.entries, tree.size_bytes)

    return cached(
        env,
        SquashResult,
        stage="squash",
        version=VERSION,
        params={
            "format": params.format,
            "compressor": how.compressor,
            "options": how.options,
            "block_bytes": how.block_bytes,
        },
        # The tree says which bytes of which layer; gzip and zstd forms of a layer share its diff_id, and the result.
        inputs={"tree": str(tree.tree.digest), "layers": [str(layer.diff_id) for layer in tree.layers]},
        tools=writer_versions(params.compression),
        build=build,
    )
