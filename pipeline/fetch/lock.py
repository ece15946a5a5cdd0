"""images.lock.json: which digest each tag stood for when someone last looked, under review like any other file.

    {"docker://docker.io/library/nginx:1.27": {"linux/amd64": "sha256:…"}}

The digest is that of the platform's manifest. What is locked is fetched by digest: a tag that moves changes nothing
until `./doit lock` is run and its diff is accepted, and what is in the store needs no network.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.env import Env
from pipeline.errors import PipelineError
from pipeline.fetch.follow import any_manifest
from pipeline.fetch.manifest import Platform
from pipeline.fetch.model import DEFAULT_PLATFORM
from pipeline.fetch.reference import RegistryReference, parse
from pipeline.fetch.source import resolve
from pipeline.oci import Digest, parse_json
from pipeline.store import write_atomic

if TYPE_CHECKING:
    from pipeline.fetch.http import Patience

Locked = Mapping[str, Mapping[str, Digest]]


class BadLock(PipelineError):
    """A lock file that is not what `./doit lock` writes."""


def read_lock(path: Path) -> Locked:
    """What is locked; nothing where there is no file. Raises BadLock."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        document = parse_json(data, subject=str(path))
        return {str(name): {at: Digest.parse(digest) for at, digest in by.items()} for name, by in document.items()}
    except (PipelineError, AttributeError) as error:
        expected = "platforms and digests by image reference"
        raise BadLock(str(path), expected=expected, got=str(error)[:200], hint="mend it, or remove it") from error


def pinned(reference: str, locked: Locked, platform: str = DEFAULT_PLATFORM) -> str:
    """A reference with the digest that is locked for it; any other reference as it is. Raises BadReference."""
    parsed = parse(reference)
    if not isinstance(parsed, RegistryReference) or parsed.digest is not None:
        return reference
    digest = locked.get(str(parsed), {}).get(str(Platform.parse(platform)))
    return str(replace(parsed, digest=digest)) if digest else reference


def lock(
    path: Path,
    references: Iterable[str],
    env: Callable[[], Env],
    *,
    whole: bool,
    platform: str = DEFAULT_PLATFORM,
    patience: Patience | None = None,
) -> None:
    """Ask what the tags among the references stand for now, write the file and say what changed.

    whole:   the references are all there are: what the file has besides is taken out.
    Raises:  BadLock, RegistryError, NoSuchImage; the file is then as it was.
    """
    environment = env()
    old = read_lock(path)
    parsed = {str(to): to for reference in references if isinstance(to := parse(reference), RegistryReference)}
    tags = {name: to for name, to in sorted(parsed.items()) if to.digest is None}
    at = str(Platform.parse(platform))
    new = {name: dict(by) for name, by in old.items() if not whole or name in tags}
    for name in tags:
        new.setdefault(name, {})[at] = current(name, environment, platform=at, patience=patience)
    if new != old:
        text = {name: {at: str(digest) for at, digest in by.items()} for name, by in new.items()}
        write_atomic(path, json.dumps(text, indent=2, sort_keys=True).encode() + b"\n")
    nothing = f"{path.name}: no tag has moved, {len(tags)} looked up" if tags else "no image is named by a tag"
    for line in changes(old, new) or [nothing]:
        environment.progress.say(line)


def current(reference: str, env: Env, *, platform: str, patience: Patience | None = None) -> Digest:
    """The digest of the manifest that a tag stands for on a platform: one request, two where there is an index."""
    parsed = parse(reference)
    with contextlib.ExitStack() as stack:
        source, found, data = resolve(parsed, env, patience, stack)
        _, manifest = any_manifest(str(parsed), source, found, data, Platform.parse(platform), env.store)
    return manifest.digest


def changes(old: Locked, new: Locked) -> list[str]:
    """One line for each digest that came, changed or went."""
    lines = []
    for name in sorted({*old, *new}):
        before, after = old.get(name, {}), new.get(name, {})
        for platform in sorted({*before, *after}):
            was, now = before.get(platform), after.get(platform)
            if was != now:
                what = f"{was} -> {now}" if was and now else f"{now} (new)" if now else f"{was} (no zone names it)"
                lines.append(f"{name} {platform}: {what}")
    return lines
