"""The steps of converting an extension image: what it says, where its files go, its modules, its segment or tree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline import kmodule
from pipeline.env import Env, cached
from pipeline.extension.errors import BadExtension
from pipeline.extension.facts import parse_facts
from pipeline.extension.model import ExtensionKind, ExtensionModule, ExtensionParams, ExtensionResult, Facts, Phase
from pipeline.extension.place import place
from pipeline.extension.segment import write_segment
from pipeline.jsonmodel import to_json
from pipeline.layers import Spools
from pipeline.rootfs import Rootfs
from pipeline.store import Store
from pipeline.tree import Entry, Kind, printable, write_tree
from pipeline.unpack.model import open_rootfs

VERSION = 1
MODULE = "application/vnd.zonewright.module.v1.elf"


def run(params: ExtensionParams, env: Env) -> ExtensionResult:
    """Convert an extension image, or find it converted: images with the same tree share one conversion.

    Raises:  NotAnExtension, BadExtension, BadModule, BadArchive, DigestMismatch, StoreDamaged.
    """
    fetch, unpack = params.fetch, params.unpack
    annotations = env.store.read_json(fetch.manifest.digest).get("annotations") or {}
    facts = parse_facts(annotations, env.store.read_json(fetch.config.digest), subject=fetch.reference)
    result = cached(
        env,
        ExtensionResult,
        stage="extension",
        version=VERSION,
        params={"facts": to_json(facts)},
        inputs={"tree": str(unpack.tree.digest), "layers": [str(layer.diff_id) for layer in unpack.layers]},
        build=lambda: _convert(params, facts, env),
    )
    # The layers as this image has them: another that shares the conversion may have had them compressed otherwise.
    return replace(result, reference=fetch.reference, manifest=fetch.manifest.digest, layers=unpack.layers)


def _convert(params: ExtensionParams, facts: Facts, env: Env) -> ExtensionResult:
    subject, store = params.fetch.reference, env.store
    with (
        Spools(store) as spools,
        store.scratch() as scratch,
        env.progress.bar(f"extension {subject}", unit="parts") as bar,
    ):
        rootfs = open_rootfs(store, params.unpack, spools)
        placed = place(facts, rootfs.entries(), subject=subject)
        modules: list[ExtensionModule] = []
        plain: dict[bytes, Path] = {}
        if facts.kind is ExtensionKind.MODULES:
            placed, modules, plain = _modules(rootfs, facts, placed, store, scratch, subject)
        if facts.kind is ExtensionKind.INIT:
            _check_init(placed, subject)
        bar.advance(1)
        result = ExtensionResult(
            reference=subject,
            manifest=params.fetch.manifest.digest,
            facts=facts,
            layers=params.unpack.layers,
            modules=tuple(sorted(modules, key=lambda module: module.name)),
        )
        if facts.phase is Phase.INITRD:
            return replace(result, segment=write_segment(store, rootfs, facts, placed, plain))
        return replace(result, tree=write_tree(store, placed))


def _modules(
    rootfs: Rootfs, facts: Facts, placed: list[Entry], store: Store, scratch: Path, subject: str
) -> tuple[list[Entry], list[ExtensionModule], dict[bytes, Path]]:
    """The entries with their final names; what each module says of itself; files of those that were compressed."""
    found: dict[str, ExtensionModule] = {}
    plain: dict[bytes, Path] = {}
    by_path = {entry.path: entry for entry in placed}
    final = []
    for entry in placed:
        if entry.kind is Kind.DIRECTORY:
            final.append(entry)
            continue
        first = by_path[entry.target] if entry.kind is Kind.HARDLINK else entry
        old = entry.path.decode("utf-8", "replace")
        where = f"{subject}: {printable(entry.path)}"
        raw = _read(rootfs, first, where)
        data = kmodule.unpack(where, raw)
        info = kmodule.modinfo(data, subject=where)
        name = kmodule.canonical(old.rpartition("/")[2])
        path = f"modules/{name}.ko" if facts.phase is Phase.INITRD else kmodule.SUFFIX.sub(".ko", old)
        if name in found:
            raise BadExtension(where, expected=f"one module called {name}", got=f"another as {found[name].path}")
        blob = store.put(data, MODULE) if facts.phase is Phase.ADDONS and data != raw else None
        found[name] = ExtensionModule(name, path, kmodule.depends(info), kmodule.vermagic(info), blob)
        if facts.phase is Phase.INITRD and data != raw:
            plain[path.encode()] = scratch / name
            plain[path.encode()].write_bytes(data)
        if blob is None:
            final.append(replace(first, path=path.encode()))
    return final, list(found.values()), plain


def _read(rootfs: Rootfs, entry: Entry, where: str) -> bytes:
    if entry.size_bytes > kmodule.MODULE_LIMIT_BYTES:
        limit = f"a module of at most {kmodule.MODULE_LIMIT_BYTES >> 20} MiB"
        raise BadExtension(where, expected=limit, got=f"{entry.size_bytes} bytes")
    data = bytearray()
    rootfs.copy(entry, data.extend)
    return bytes(data)


def _check_init(placed: list[Entry], subject: str) -> None:
    entry = next((entry for entry in placed if entry.path == b"init"), None)
    if entry is None or entry.kind is not Kind.FILE or not entry.mode & 0o100:
        got = "none" if entry is None else "another" if entry.kind is not Kind.FILE else f"mode {entry.mode:o}"
        raise BadExtension(f"{subject}: /init", expected="a program for pid 1, executable by its owner", got=got)
