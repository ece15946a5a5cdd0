"""Extension images made by hand, brought through fetch, unpack and conversion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import extension, fetch, unpack
from pipeline.env import Env
from pipeline.extension.facts import PREFIX
from pipeline.extension.model import ExtensionResult
from support.modules import module_of
from support.tars import Image, image_of, tar_of, write_layout

RELEASE = "6.1.0-test"
VERMAGIC = f"{RELEASE} SMP preempt mod_unload "


def module(name: str, *, depends: str = "", vermagic: str = VERMAGIC) -> bytes:
    """A kernel module file that says what the host reads of it."""
    return module_of("license=GPL", f"depends={depends}", f"name={name}", f"vermagic={vermagic}")


def extension_image(
    tree: Mapping[str, Any], *, labels: bool = False, architecture: str = "amd64", split: bool = False, **facts: str
) -> Image:
    """An image of a `tar_of` tree that says these facts, as manifest annotations or as labels of its config.

    split:   every name in a layer of its own.
    """
    said = {PREFIX + key: value for key, value in ({"abi": "1"} | facts).items()}
    tars = [tar_of({name: value}) for name, value in tree.items()] if split else [tar_of(tree)]
    config = {"config": {"Labels": said}} if labels else {}
    image = image_of(*tars, config=config, architecture=architecture)
    if not labels:
        image.manifest = json.dumps(json.loads(image.manifest) | {"annotations": said}).encode()
    return image


def converted(env: Env, directory: Path, name: str, image: Image) -> ExtensionResult:
    """The image, put into a layout of its own and converted; its reference is oci:DIRECTORY/NAME:x."""
    layout = write_layout(directory / name, {"x": image})
    fetched = fetch.run(fetch.FetchParams(f"oci:{layout}:x"), env)
    unpacked = unpack.run(unpack.UnpackParams(fetched), env)
    return extension.run(extension.ExtensionParams(fetched, unpacked), env)
