"""Small stores with every kind of file in them, and ways to damage one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from pipeline.env import Env, cached
from pipeline.oci import MANIFEST, Descriptor
from pipeline.store import Store


def built(store: Store, name: str, data: bytes | None = None, made: list[str] | None = None) -> Descriptor:
    """The blob that the action `name` makes: the same bytes every time; `made` counts the times."""

    def build() -> Descriptor:
        if made is not None:
            made.append(name)
        return store.put(data if data is not None else name.encode() * 100)

    return cached(Env(store), Descriptor, stage=name, version=1, params={}, inputs={}, build=build)


def image(store: Store, name: str, layers: list[Descriptor]) -> Descriptor:
    """A manifest of these layers with a name."""
    manifest = store.put_manifest(layers, artifact_type="test")
    store.tag(name, Descriptor(MANIFEST, manifest.digest, manifest.size_bytes))
    return manifest


def key_of(store: Store, blob: Descriptor) -> str:
    """The key of the one result that names a blob."""
    (path,) = [path for path in store.results.iterdir() if blob.digest.hex in path.read_text()]
    return path.stem


def damage(path: Path, how: str, elsewhere: Path | None = None) -> None:
    """Do one of DAMAGES to a file; `elsewhere` is where a symbolic link then leads."""
    mode = path.stat().st_mode
    data = path.read_bytes()
    path.chmod(0o644)
    if how == "flipped":
        path.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])
    elif how == "truncated":
        os.truncate(path, len(data) - 1)
    elif how == "emptied":
        os.truncate(path, 0)
    elif how == "extended":
        path.write_bytes(data + b"\0")
    elif how == "zeroed":
        path.write_bytes(bytes(len(data)))
    elif how == "made a directory":
        path.unlink()
        path.mkdir()
    elif how == "made a symlink":
        assert elsewhere is not None
        shutil.copyfile(path, elsewhere)
        path.unlink()
        path.symlink_to(elsewhere)
    elif how == "deleted":
        path.unlink()
    elif how == "chmodded":
        path.chmod(0o777)
        return
    if path.is_file() and not path.is_symlink():
        path.chmod(mode)


DAMAGES = (
    "flipped",
    "truncated",
    "emptied",
    "extended",
    "zeroed",
    "made a directory",
    "made a symlink",
    "deleted",
    "chmodded",
)


def tree(root: Path) -> dict[str, Any]:
    """Every file below a directory with its bytes, and every directory."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))
    }
