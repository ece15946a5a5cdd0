"""What images are called in the store, and what a user's words mean.

A pulled image is tagged `images/<reference>`: without its transport where that is docker://, and with `+OS/ARCH` behind
it where the platform is not the usual one. Where it came from, for which platform and when are annotations of the tag.
What is built here has names of its own: recipe/, kernel/, os/, zones/.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from pipeline.errors import PipelineError
from pipeline.fetch.errors import NoSuchImage
from pipeline.fetch.manifest import Platform
from pipeline.fetch.model import DEFAULT_PLATFORM
from pipeline.fetch.reference import ArchiveReference, LayoutReference, RegistryReference, parse
from pipeline.oci import MANIFEST, Descriptor, Digest
from pipeline.store import Store

PREFIX = "images/"
BUILT = ("recipe/", "kernel/", "os/", "zones/")
REFERENCE = "dev.zonewright.image.reference"
PLATFORM = "dev.zonewright.image.platform"
PULLED = "dev.zonewright.image.pulled"
SCHEME = "docker://"

_PINNED = re.compile(r"(@sha(?:256|512):[0-9a-f]{12})[0-9a-f]+")
_DIGEST_BEGIN = re.compile(r"sha(256:[0-9a-f]{6,64}|512:[0-9a-f]{6,128})")


class AmbiguousName(PipelineError):
    """The beginning of more than one digest."""


@dataclass(frozen=True)
class Stored:
    """A manifest of the store. name: its tag, or "" where it was named by digest alone."""

    name: str
    manifest: Descriptor

    @property
    def subject(self) -> str:
        """For people."""
        return shown_name(self.name) or str(self.manifest.digest)

    @property
    def platform(self) -> str:
        """What it was pulled for; "" where nothing says so."""
        return self.manifest.annotations.get(PLATFORM, "")


def canonical(text: str) -> str:
    """A reference written out: host, tag, and whole paths, so that it means the same in any directory."""
    reference = parse(text)
    if isinstance(reference, LayoutReference):
        reference = replace(reference, directory=os.path.abspath(reference.directory))
    elif isinstance(reference, ArchiveReference):
        reference = replace(reference, file=os.path.abspath(reference.file))
    return str(reference)


def tag_of(text: str, platform: str) -> str:
    """The name a pulled image gets in the store."""
    name, of = PREFIX + canonical(text).removeprefix(SCHEME), str(Platform.parse(platform))
    return name if of == DEFAULT_PLATFORM else f"{name}+{of}"


def shown_name(tag: str) -> str:
    """A tag as `ls` shows it: pulled from a registry, it is the reference; else it is the tag itself."""
    bare = tag.removeprefix(PREFIX)
    return tag if bare.startswith(("oci:", "oci-archive:", "docker-archive:", "recipe:")) else bare


def find(text: str, store: Store, platform: str = "") -> Stored | None:
    """The image of the store a user's words name; None where they are a reference to be asked for where it says.

    A name as `ls` shows it, a digest or its beginning, or a reference without a transport whose image was pulled.
    Raises:  NoSuchImage, with near names, for what can only be the store's; AmbiguousName; BadReference.
    """
    tags = store.tags()
    for name in (text, PREFIX + text):
        if name in tags and text in (name, shown_name(name)):  # "oci:DIR" is asked of DIR, though it has been pulled
            return Stored(name, tags[name])
    if _DIGEST_BEGIN.fullmatch(text):
        return _by_digest(text, tags, store)
    if _DIGEST_BEGIN.fullmatch(text.partition("@")[2]):  # as `ls` cuts the name of what was pulled by digest
        pinned = [tag for tag in tags if shown_name(tag).startswith(text)]
        if len({tags[tag].digest for tag in pinned}) == 1:
            return Stored(pinned[0], tags[pinned[0]])
    if text.startswith((PREFIX, *BUILT)):
        raise no_such_name(text, store)
    if isinstance(parse(text), RegistryReference) and not text.startswith(SCHEME):
        name = tag_of(text, platform or DEFAULT_PLATFORM)
        if name in tags:
            return Stored(name, tags[name])
    return None


def last_pulled(text: str, store: Store, platform: str = "") -> Stored | None:
    """What a reference named when it was last pulled."""
    name = tag_of(text, platform or DEFAULT_PLATFORM)
    found = store.tags().get(name)
    return None if found is None else Stored(name, found)


def cut_name(name: str) -> str:
    """A name short enough for a table: of a digest in it the first twelve digits, by which `find` knows it too."""
    return _PINNED.sub(r"\1", name)


def no_such_name(text: str, store: Store) -> NoSuchImage:
    """The error for a name the store does not have, with what may have been meant."""
    import difflib

    known = sorted(shown_name(tag) for tag in store.tags())
    near = difflib.get_close_matches(text, known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else "zone image ls shows what there is"
    return NoSuchImage(f"image {text!r}", expected="a name in the store", got="none of that name", hint=hint)


def _by_digest(text: str, tags: dict[str, Descriptor], store: Store) -> Stored:
    named = {entry.digest: Stored(tag, entry) for tag, entry in tags.items() if str(entry.digest).startswith(text)}
    if len(named) == 1:
        return next(iter(named.values()))
    if named:
        several = ", ".join(sorted(digest.short for digest in named))
        raise AmbiguousName(f"digest {text}", expected="the beginning of one", got=f"that of {several}"[:200])
    try:
        digest = Digest.parse(text)
        return Stored("", Descriptor(MANIFEST, digest, store.path(digest).stat().st_size))
    except (PipelineError, OSError):
        hint = "zone image ls shows what there is"
        raise NoSuchImage(f"digest {text}", expected="a manifest in the store", got="none", hint=hint) from None
