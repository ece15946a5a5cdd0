"""What a child does, by the stages of the pipeline: pull or import an image and pack it; assemble kernel and initrd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline import fetch, newc, squash, unpack
from pipeline.assemble import run as assemble_zone
from pipeline.assemble.model import AssembleParams, Wanted
from pipeline.build.model import InitResult
from pipeline.bundle.model import ExtensionChoice
from pipeline.env import Env, healing
from pipeline.extension import run as convert_extension
from pipeline.extension.model import ExtensionParams, ExtensionResult
from pipeline.fetch.archive import TarFiles
from pipeline.fetch.documents import documents
from pipeline.fetch.errors import BadReference
from pipeline.fetch.model import DEFAULT_PLATFORM, FetchResult
from pipeline.fetch.reference import RegistryReference, parse
from pipeline.images.names import canonical, last_pulled
from pipeline.images.pull import name_image
from pipeline.initrd import run as make_initrd
from pipeline.initrd.model import InitrdParams, InitrdResult
from pipeline.kernelconfig import mountable
from pipeline.layers import Spools
from pipeline.oci import Descriptor, Digest
from pipeline.squashfs import squash_entries
from pipeline.store import Store
from pipeline.tree import Entry, Kind, write_tree
from pipeline.unpack.model import UnpackResult
from runtime.host.images import catalog
from runtime.host.images.model import (
    Assembled,
    AssembleWork,
    Format,
    ImportWork,
    Packed,
    Phase,
    Platform,
    PullWork,
    Result,
    Work,
)

INIT_ELF = "application/vnd.zonewright.init.v1.elf"
LATEST = "latest"

Tell = Callable[[Phase, tuple[Descriptor, ...]], None]  # of a phase; with the layers, once they are known


def run(work: Work, env: Env, tell: Tell) -> Result:
    """Do one thing. A damaged object of the store is made again once. Raises what the stages raise."""
    match work:
        case PullWork():
            return healing(env, lambda: pull(work, env, tell))
        case ImportWork():
            return healing(env, lambda: bring(work, env, tell))
        case AssembleWork():
            return healing(env, lambda: assemble(work, env))


def pull(work: PullWork, env: Env, tell: Tell) -> Packed:
    """An image of a registry into the store: fetched, named, packed. Raises BadReference for any other transport."""
    reference = parse(work.image)
    if not isinstance(reference, RegistryReference):
        raise BadReference(
            work.image, expected="an image of a registry", got="a path", hint="ImportImage takes archives"
        )
    known = None if work.update or reference.tag == LATEST else last_pulled(work.image, env.store, DEFAULT_PLATFORM)
    if known is not None and reference.digest is None:
        source = f"oci:{env.store.root}@{known.manifest.digest}"
    else:
        tell(Phase.RESOLVING, ())
        found = documents(fetch.FetchParams(str(reference), DEFAULT_PLATFORM), env)
        tell(Phase.RESOLVED, found.manifest.layers)
        # By digest from here on: the tag may move while its layers come.
        source = str(replace(reference, digest=(found.index or found.descriptor).digest))
    packed = _pack(source, env, work.format, tell, overwrite=work.overwrite)
    name_image(canonical(work.image), packed.manifest, env.store, DEFAULT_PLATFORM)
    return packed


def bring(work: ImportWork, env: Env, tell: Tell) -> Packed:
    """An image of an archive into the store: an OCI layout, or what docker save writes."""
    files = TarFiles(Path(work.file), subject="archive")
    transport = "docker-archive" if files.size("index.json") is None else "oci-archive"
    name = canonical(work.image) if work.image else ""
    pinned = f"@{Digest.parse(work.digest)}" if work.digest else ""
    packed = _pack(f"{transport}:{work.file}{pinned}", env, work.format, tell, overwrite=work.overwrite)
    if name:
        name_image(name, packed.manifest, env.store, DEFAULT_PLATFORM)
    return packed


def _pack(source: str, env: Env, format: Format, tell: Tell, *, overwrite: bool) -> Packed:
    squash.form_of(format.value, "").tools()  # what is missing here is said before anything is downloaded
    with Spools(env.store, env.config.limits) as spools:
        fetched = fetch.run(
            fetch.FetchParams(source, DEFAULT_PLATFORM), env, sink=unpack.layer_sinks(spools, env.config.limits)
        )
        tell(Phase.ASSEMBLE, fetched.layers)
        tree = unpack.run(unpack.UnpackParams(fetched), env, spools)
        tell(Phase.PACK, ())
        packed = _squashed(fetched, tree, env, format, spools)
        if overwrite and not env.store.verify(packed.rootfs.digest):
            packed = _squashed(fetched, tree, env, format, spools)
    catalog.add(env.store, packed)
    tell(Phase.COMPLETE, ())
    return packed


def _squashed(fetched: FetchResult, tree: UnpackResult, env: Env, format: Format, spools: Spools) -> Packed:
    image = squash.run(squash.SquashParams(tree, "", format.value), env, spools).image
    return Packed(fetched.manifest.digest, format, image, fetched.manifest, fetched.config, tree.passwd, tree.group)


# -- kernel and initrd -------------------------------------------------------------------------------------------------


def assemble(work: AssembleWork, env: Env) -> Assembled:
    """Kernel, initrd and addons of a zone without an image. Raises what the stages raise."""
    platform = work.platform
    kernel = platform.initrd if platform else None
    if work.kernel:
        init = _init_of(env.store, kernel.base) if kernel else Descriptor(INIT_ELF, env.store.put(b"").digest, 0)
        params = InitrdParams(_unpacked(work.kernel, env)[1], InitResult(init, init))
        kernel = make_initrd(params, env, subject=f"kernel {Digest.parse(work.kernel).short}")
    assert kernel is not None  # the caller refuses a zone for which there is none
    names = [*([work.init] if work.init else []), *work.addons]
    extensions = [_extension(name, env) for name in names]
    wanted = Wanted(work.zone, "", work.kernel, tuple(map(ExtensionChoice, names)), work.modules)
    nothing = UnpackResult(write_tree(env.store, [Entry(b"", Kind.DIRECTORY, 0o755)]), (), 1, 0)
    parts = assemble_zone(AssembleParams.of(wanted, kernel, nothing, *extensions), env)
    return Assembled(
        kernel.kernel_elf,
        kernel.release,
        parts.initrd,
        parts.modules,
        platform.root if platform else empty_root(env.store),
        parts.late_modules,
        parts.addons,
        parts.extensions,
        mountable(kernel.filesystems, (module.path for module in (*parts.modules, *parts.late_modules))),
    )


def platform_of(store: Store, initrd: InitrdResult) -> Platform:
    """The platform of an initrd; its root is made here."""
    return Platform(initrd, empty_root(store))


def empty_root(store: Store) -> Descriptor:
    """A squashfs with nothing in it; the same bytes everywhere."""
    return squash_entries(store, [(Entry(b"", Kind.DIRECTORY, 0o755), ())])


def _unpacked(digest: str, env: Env) -> tuple[FetchResult, UnpackResult]:
    fetched = fetch.run(fetch.FetchParams(f"oci:{env.store.root}@{Digest.parse(digest)}", DEFAULT_PLATFORM), env)
    return fetched, unpack.run(unpack.UnpackParams(fetched), env)


def _extension(digest: str, env: Env) -> ExtensionResult:
    fetched, tree = _unpacked(digest, env)
    return convert_extension(ExtensionParams(replace(fetched, reference=Digest.parse(digest).short), tree), env)


def _init_of(store: Store, base: Descriptor) -> Descriptor:
    """The program in the base of an initrd."""
    for entry in newc.read(store.read(base.digest), subject=f"initrd {base.digest.short}"):
        if entry.path == "init" and isinstance(entry.data, bytes):
            return store.put(entry.data, INIT_ELF)
    raise newc.BadArchive(f"initrd {base.digest.short}", expected="an /init", got="none")
