"""From layers to a merged tree, for tests that look at the tree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import fetch, unpack
from pipeline.env import Env
from pipeline.layers import Spools
from pipeline.store import Store
from pipeline.tree import Entry, Kind
from support.tars import image_of, write_layout

Tree = dict[str, str]


def unpacked(tmp_path: Path, layers: Sequence[bytes], **options: Any) -> tuple[unpack.UnpackResult, Env]:
    """Layers through fetch and unpack, in a store of their own."""
    layout = write_layout(tmp_path / "layout", {"t": image_of(*layers, compression="none")})
    env = Env(Store(tmp_path / "store"))
    fetched = fetch.run(fetch.FetchParams(f"oci:{layout}:t"), env)
    return unpack.run(unpack.UnpackParams(fetched, **options), env), env


def entries(result: unpack.UnpackResult, env: Env) -> dict[bytes, Entry]:
    """The merged tree's entries by path."""
    with Spools(env.store) as spools:
        return {entry.path: entry for entry in unpack.open_rootfs(env.store, result, spools).entries()}


def tree(result: unpack.UnpackResult, env: Env) -> Tree:
    """The merged tree without its root: path -> what stands there.

    "d" a directory, "f CONTENT" a file, "l TARGET" a symlink, "= PATH" a hardlink to an earlier name, "p", "c 1:3",
    "b 8:0".
    """
    found: Tree = {}
    with Spools(env.store) as spools:
        rootfs = unpack.open_rootfs(env.store, result, spools)
        for entry in rootfs.entries():
            content = bytearray()
            if entry.kind is Kind.FILE:
                rootfs.copy(entry, content.extend)
            what = {
                Kind.DIRECTORY: "d",
                Kind.FILE: f"f {content.decode('latin-1')}",
                Kind.SYMLINK: f"l {entry.target.decode('latin-1')}",
                Kind.HARDLINK: f"= {entry.target.decode('latin-1')}",
                Kind.FIFO: "p",
                Kind.CHAR: f"c {entry.major}:{entry.minor}",
                Kind.BLOCK: f"b {entry.major}:{entry.minor}",
            }[entry.kind]
            found[entry.path.decode("latin-1")] = what
    found.pop("")
    return found
