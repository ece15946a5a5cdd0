"""Every object of an image hashed again: manifest, config, layers, and what the layers inflate to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from pipeline.env import Env
from pipeline.errors import PipelineError, StoreDamaged
from pipeline.fetch.errors import BadImage
from pipeline.fetch.manifest import LAYER_TYPES, Manifest, parse_document
from pipeline.images.names import Stored, find
from pipeline.images.pull import bring
from pipeline.layers import Layer, inflate_layer
from pipeline.oci import Descriptor, Digest


class ImageDamaged(PipelineError):
    """Objects of an image that are missing or altered."""


@dataclass(frozen=True)
class Checked:
    """One object. fault: what is the matter with it, or ""."""

    what: str
    digest: Digest
    size_bytes: int
    diff_id: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Verified:
    """Every object of an image, as it was found."""

    subject: str
    digest: Digest
    objects: tuple[Checked, ...]

    @property
    def damaged(self) -> list[Checked]:
        """Those that are not good."""
        return [item for item in self.objects if item.fault]

    def error(self) -> ImageDamaged:
        """The sentence that names each damaged object."""
        named = "; ".join(f"{item.what} {item.digest}: {item.fault}" for item in self.damaged)
        good = f"{len(self.objects)} good objects"
        return ImageDamaged(self.subject, expected=good, got=named, hint="pull or build it again")


def verify_image(text: str, env: Env, *, platform: str = "") -> Verified:
    """Hash what a name or a digest names in the store, or fetch a reference and hash what came.

    Effects: damaged objects are removed from the store, so that the next pull or build makes them anew.
    Raises:  what finding or fetching raises; damage found in the store is in the answer.
    """
    stored = find(text, env.store, platform)
    if stored is None:
        stored = Stored(text, bring(text, env, platform=platform))
    return verify_stored(stored, env)


def verify_stored(stored: Stored, env: Env) -> Verified:
    """Hash a manifest of the store and everything it names."""
    manifest = _checked("manifest", stored.manifest, env)
    if manifest.fault:
        return Verified(stored.subject, stored.manifest.digest, (manifest,))
    content = env.store.read(stored.manifest.digest)
    document = parse_document(content, media_type=stored.manifest.media_type, subject=stored.subject)
    if not isinstance(document, Manifest):
        raise BadImage(stored.subject, expected="the manifest of one image", got="an index")
    config_blob, layers = document.config, document.layers
    config = _checked("config", config_blob, env)
    diff_ids = [] if config.fault else _diff_ids(config_blob, env)
    with env.progress.bar("verify", total=sum(layer.size_bytes for layer in layers)) as bar:

        def check(number: int) -> Checked:
            layer = layers[number]
            what = f"layer {number + 1}/{len(layers)}"
            if layer.media_type in LAYER_TYPES and len(diff_ids) == len(layers):
                done = _inflated(what, layer, diff_ids[number], env)
            else:
                done = _checked(what, layer, env)
            bar.advance(layer.size_bytes)
            return done

        checked = _parallel(check, len(layers))
    if config_blob.media_type.endswith("config.v1+json") and not config.fault and len(diff_ids) != len(layers):
        fault = f"{len(diff_ids)} diff_ids for {len(layers)} layers"
        config = Checked(config.what, config.digest, config.size_bytes, fault=fault)
    return Verified(stored.subject, stored.manifest.digest, (manifest, config, *checked))


def _parallel(check: Any, count: int) -> list[Checked]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(check, range(count)))


def _diff_ids(config_blob: Descriptor, env: Env) -> list[Digest]:
    document = env.store.read_json(config_blob.digest) if config_blob.media_type.endswith("json") else None
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    return [Digest.parse(item) for item in found] if isinstance(found, list) else []


def _checked(what: str, blob: Descriptor, env: Env) -> Checked:
    """One object hashed as it is stored."""
    path = env.store.path(blob.digest)
    there = path.exists()
    size = path.stat().st_size if there else 0
    good = env.store.verify(blob.digest)
    fault = ""
    if not good:
        fault = "altered" if there else "missing"
    elif size != blob.size_bytes:
        fault = f"{size} bytes, not {blob.size_bytes}"
    return Checked(what, blob.digest, blob.size_bytes, fault=fault)


def _inflated(what: str, blob: Descriptor, diff_id: Digest, env: Env) -> Checked:
    """One layer hashed as it is stored and as it inflates, in one pass."""
    fault, there = "", env.store.path(blob.digest).exists()
    try:
        inflate_layer(env.store, Layer(blob, diff_id), env.config.limits)
    except StoreDamaged:
        fault = "altered" if there else "missing"
    except PipelineError as error:
        fault = str(error)
    return Checked(what, blob.digest, blob.size_bytes, str(diff_id), fault)
