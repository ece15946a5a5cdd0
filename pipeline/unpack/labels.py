"""What a layer's media type says its compression is, against its first bytes. The bytes win: the diff_id decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pipeline.inflate import compression_of
from pipeline.layers import Layer
from pipeline.store import Store

HEAD_BYTES = 8


def label_warnings(layers: Iterable[Layer], store: Store) -> Counter[str]:
    """Counted warnings about layers whose media type is wrong."""
    warnings: Counter[str] = Counter()
    for layer in layers:
        with store.open(layer.blob.digest) as blob:
            found = compression_of(blob.read(HEAD_BYTES), subject=layer.name)
        said = next((kind for kind in ("gzip", "zstd") if layer.blob.media_type.endswith(kind)), "none")
        if said != found:
            warnings[f"media type says compression {said}, the bytes say {found}"] += 1
    return warnings
