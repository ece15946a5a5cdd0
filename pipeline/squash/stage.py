"""The steps of squashing: the merged tree into the writer of a format, its image into the store."""

from __future__ import annotations

from pipeline.env import Env, cached, inflated_layers
from pipeline.layers import Spools
from pipeline.squash.formats import form_of
from pipeline.squash.model import SquashParams, SquashResult
from pipeline.unpack.model import open_rootfs

VERSION = 2


def run(params: SquashParams, env: Env, spools: Spools | None = None) -> SquashResult:
    """Write a merged image as a file system.

    spools:  inflated layers shared with other stages of this process; made and dropped here if None.
    Raises:  UnknownFormat, BadCompressionName, SquashFailed, ToolMissing, DigestMismatch, StoreDamaged.
    """
    form, tree = form_of(params.format, params.compression), params.tree

    def build() -> SquashResult:
        with inflated_layers(env, spools) as inflated:
            rootfs = open_rootfs(env.store, tree, inflated)
            image = form.write(env.store, rootfs, env.progress, tree.size_bytes)
        return SquashResult(image, tree.entries, tree.size_bytes)

    return cached(
        env,
        SquashResult,
        stage="squash",
        version=VERSION,
        params=form.params,
        # The tree says which bytes of which layer; gzip and zstd forms of a layer share its diff_id, and the result.
        inputs={"tree": str(tree.tree.digest), "layers": [str(layer.diff_id) for layer in tree.layers]},
        tools=form.tools(),
        build=build,
    )
