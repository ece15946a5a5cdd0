"""unpack: a fetched image to one merged tree. No layer is extracted; no root; no network; no program is run.

Takes:  FetchResult, limits.
Gives:  UnpackResult: the tree as a document (names, metadata, where the bytes lie), /etc/passwd and /etc/group.
Keeps:  the index of every layer by its diff_id, so that a shared base layer is read once.
Reads:  `open_rootfs(store, result, spools)` for other stages: entries, one file's bytes.
"""

from pipeline.unpack.model import UnpackParams, UnpackResult, open_rootfs
from pipeline.unpack.stage import INDEX_VERSION, VERSION, layer_sinks, run

__all__ = ["INDEX_VERSION", "VERSION", "UnpackParams", "UnpackResult", "layer_sinks", "open_rootfs", "run"]
