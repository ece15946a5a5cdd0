"""The files of a merged image."""

from __future__ import annotations

from pipeline import unpack
from pipeline.env import Env, healing
from pipeline.images.pull import image_of
from pipeline.tree import Entry, read_tree


def files_of(text: str, env: Env, *, platform: str = "") -> list[Entry]:
    """Every name of the merged image, parents first. Raises what finding, fetching and unpacking raise."""

    def files() -> list[Entry]:
        image = image_of(text, env, platform=platform)
        merged = unpack.run(unpack.UnpackParams(image), env)
        return list(read_tree(env.store, merged.tree))

    return healing(env, files)
