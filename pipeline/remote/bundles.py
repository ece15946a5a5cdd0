"""Zone bundles and recipes' images between hosts: pushed as they are, taken by reference, named as if built here."""

from __future__ import annotations

import re
from dataclasses import replace

from pipeline.bundle import manifest
from pipeline.bundle.model import Bundle
from pipeline.bundle.spec import NAME
from pipeline.env import Env
from pipeline.errors import PipelineError
from pipeline.fetch.errors import BadReference, NoSuchImage
from pipeline.fetch.reference import LayoutReference, RegistryReference, parse
from pipeline.oci import BadDocument, Descriptor
from pipeline.recipe import maker_of


class BundleClash(PipelineError):
    """A bundle of another origin has the name already."""


def publish_bundle(env: Env, zone: str, to: str) -> RegistryReference:
    """Push a zone's bundle as one artifact. Raises UnknownName, and what `push` raises."""
    target = registry_reference(to)
    descriptor, _ = manifest.find(env.store, zone)
    return _push(env, descriptor, target)


def publish_recipe(env: Env, name: str, to: str) -> RegistryReference:
    """Push the image a recipe made. Raises UnknownName, NoSuchImage where it is not built, and what `push` raises."""
    target, task = registry_reference(to), maker_of(name)
    found = env.store.tags().get(task.replace(":", "/"))
    if found is None:
        raise NoSuchImage(f"recipe:{name}", expected="its image in the store", got="none", hint=f"./doit {task}")
    return _push(env, found, target)


def _push(env: Env, descriptor: Descriptor, to: RegistryReference) -> RegistryReference:
    from pipeline.remote.push import push

    return push(env.store, descriptor, to, progress=env.progress, config=env.config)


def registry_reference(text: str) -> RegistryReference:
    """Where to publish to. Raises BadReference."""
    reference = parse(text)
    if not isinstance(reference, RegistryReference):
        raise BadReference(f"target {text!r}", expected="HOST/REPOSITORY[:TAG] of a registry", got="something else")
    return reference


def is_reference(text: str) -> bool:
    """Does a word name a bundle elsewhere, rather than a zone of this store? Names of zones have neither : nor /."""
    return re.search("[:/@]", text) is not None


def pull_bundle(env: Env, reference: str, *, replaces: bool = False) -> tuple[Descriptor, Bundle]:
    """Bring a bundle into the store, verified, and give it its zone's name there.

    replaces: take the name from whatever has it. Without, only a bundle that came from the same place gives way.
    Raises:   what fetching raises, BadDocument for what is no bundle, BundleClash.
    """
    from pipeline.fetch.artifact import fetch_artifact

    found = fetch_artifact(reference, env)
    bundle = manifest.read(env.store, found)
    subject = f"bundle {reference}"
    if not NAME.fullmatch(bundle.name):
        raise BadDocument(subject, expected="a zone's name in it", got=repr(bundle.name)[:80])
    named = {layer.digest for layer in manifest.layers(env.store, found)}
    for part in manifest.parts(bundle):
        if part.digest not in named:
            title = part.annotations[manifest.TITLE]
            raise BadDocument(subject, expected=f"its {title} among its layers", got="another")
    with env.store.lock(f"name-{bundle.name}"):
        origin = _origin(reference)
        _refuse_clash(env, bundle.name, found, origin, reference, replaces)
        found = replace(found, annotations={**found.annotations, manifest.ORIGIN: origin})
        env.store.tag(manifest.TAG_PREFIX + bundle.name, found)
    return found, bundle


def _origin(reference: str) -> str:
    """Where bundles that replace each other come from: the reference without tag and digest."""
    parsed = parse(reference)
    if isinstance(parsed, (RegistryReference, LayoutReference)):
        return str(replace(parsed, tag="", digest=None))
    return str(parsed)


def _refuse_clash(env: Env, name: str, found: Descriptor, origin: str, reference: str, replaces: bool) -> None:
    there = env.store.tags().get(manifest.TAG_PREFIX + name)
    if there is None or there.digest == found.digest or replaces:
        return
    its_origin = there.annotations.get(manifest.ORIGIN, "")
    if its_origin != origin:
        where = f"from {its_origin}" if its_origin else "built here"
        raise BundleClash(
            f"zone {name}",
            expected=f"no bundle of that name here, or {found.digest.short}",
            got=f"{there.digest.short}, {where}",
            hint=f"zone boot --replace {reference} takes the new one in its place",
        )
    env.progress.say(f"zone {name}: {there.digest.short} gives way to {found.digest.short}, both from {origin}")
