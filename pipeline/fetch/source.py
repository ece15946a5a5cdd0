"""Where an image comes from: the source a reference names, and the manifest or index it names there."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.env import Env
from pipeline.fetch.errors import NoSuchImage, RegistryError
from pipeline.fetch.layout import DirectoryFiles, LayoutSource
from pipeline.fetch.reference import ArchiveReference, LayoutReference, RecipeReference, Reference, RegistryReference
from pipeline.oci import Descriptor, Digest
from pipeline.store import BlobWriter, Store

if TYPE_CHECKING:
    from pipeline.fetch.http import Patience
    from pipeline.fetch.registry import RegistrySource


class Source(Protocol):
    """Where an image comes from."""

    def manifest(self, descriptor: Descriptor) -> tuple[bytes, str]:
        """Bytes and media type of a manifest or index."""

    def copy(self, descriptor: Descriptor, writer: BlobWriter, advance: Callable[[int], None], subject: str) -> None:
        """Write a blob's bytes."""

    def stop(self) -> None:
        """End copies that other threads have under way, where one might wait for its sender."""


class _Registry:
    """A RegistrySource that is made when something is first asked of it, and refuses to be when offline.

    A hit asks nothing, and then does not pay for the import of the client either.
    """

    def __init__(self, reference: RegistryReference, env: Env, patience: Patience | None) -> None:
        self._reference, self._offline, self._registries = reference, env.offline, env.config.registries
        self._patience, self._known = patience, env.known
        self._made: RegistrySource | None = None
        self._guard = threading.Lock()

    def close(self) -> None:
        """End the connections, if there are any."""
        if self._made is not None:
            self._made.close()

    def by_name(self, name: str) -> tuple[bytes, str]:
        """Bytes and media type of a tag's manifest."""
        return self._source().manifest(name, subject=str(self._reference))

    def manifest(self, descriptor: Descriptor) -> tuple[bytes, str]:
        return self.by_name(str(descriptor.digest))

    def copy(self, descriptor: Descriptor, writer: BlobWriter, advance: Callable[[int], None], subject: str) -> None:
        self._source().copy(descriptor, writer, advance, subject)

    def stop(self) -> None:
        if self._made is not None:
            self._made.stop()

    def _source(self) -> RegistrySource:
        if self._offline:
            raise RegistryError(
                str(self._reference), expected="the image in the store, being offline", got="not all of it"
            )
        from pipeline.fetch.registry import RegistrySource

        with self._guard:
            if self._made is None:
                self._made = RegistrySource(
                    self._reference, patience=self._patience, registries=self._registries, known=self._known
                )
            return self._made


def resolve(
    reference: Reference, env: Env, patience: Patience | None, stack: contextlib.ExitStack
) -> tuple[Source, Descriptor, bytes | None]:
    """The source, the manifest or index the reference names, and its bytes where they came with the name."""
    if isinstance(reference, RecipeReference):
        layout = LayoutSource(DirectoryFiles(env.store.root), subject=str(reference))
        return layout, _recipe(reference, env.store), None
    if isinstance(reference, LayoutReference):
        layout = LayoutSource(DirectoryFiles(Path(os.path.abspath(reference.directory))), subject=str(reference))
        return layout, layout.resolve(reference.tag, reference.digest), None
    if isinstance(reference, ArchiveReference):
        return _archive(reference)
    registry = _Registry(reference, env, patience)
    stack.callback(registry.close)
    if reference.digest is not None:
        return registry, Descriptor("", reference.digest, -1), None
    data, media_type = registry.by_name(reference.tag)
    return registry, Descriptor(media_type, Digest.of(data), len(data)), data


def _archive(reference: ArchiveReference) -> tuple[Source, Descriptor, bytes | None]:
    """What an archive has under a reference. Raises NoSuchImage, BadImage."""
    from pipeline.fetch.archive import TarFiles
    from pipeline.fetch.dockerarchive import DockerArchiveSource, named_layout

    subject = str(reference)
    files = TarFiles(Path(os.path.abspath(reference.file)), subject=subject)
    layout = LayoutSource(files, subject=subject)
    if reference.transport == "oci-archive" or reference.digest is not None:
        return layout, layout.resolve(reference.name, reference.digest), None
    if files.size("manifest.json") is None and files.size("index.json") is not None:
        return (*named_layout(files, reference.name, subject=subject), None)
    archive = DockerArchiveSource(files, subject=subject)
    return archive, *archive.resolve(reference.name)


def _recipe(reference: RecipeReference, store: Store) -> Descriptor:
    """What a recipe made. Raises NoSuchImage."""
    tags = store.tags()
    for kind in ("recipe", "kernel"):
        if (found := tags.get(f"{kind}/{reference.name}")) is not None:
            return found
    from pipeline.recipe import UnknownName, maker_of

    try:
        hint = f"./doit {maker_of(reference.name)} makes it"
    except UnknownName as error:
        hint = error.hint
    raise NoSuchImage(str(reference), expected=f"recipe/{reference.name} in the store", got="none", hint=hint)
