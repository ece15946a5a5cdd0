"""The image the pipeline is measured with, and its larger relatives, each made once and kept as OCI layouts.

standard  four layers: Debian with documentation; nginx; python3, numpy, git and more; an edge layer made by hand.
          138 MB of gzip, 368 MB of tar; merges to 316 MB and 14,300 entries, as the edge layer hides all translations
zstd      the same tars, compressed by zstd
times4    sixteen layers: the standard image four times, in directories of their own
grown-*   synthetic: so many entries in so many layers (see `grown`)
flat-*    synthetic: so many entries in one directory

`PYTHONPATH=.:tests .venv/bin/python -m support.benchimage [NAME…]` makes them and prints where they are.
"""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from pipeline.build import mmdebstrap
from pipeline.build.layer import CHUNK_BYTES, GZIP_LEVEL, Layer, tar_bytes
from pipeline.build.ociimage import image_config, store_image
from pipeline.build.roottree import Entry, Root, add, difference, directory, file, in_order, read_root, symlink
from pipeline.debian import PackageLock
from pipeline.env import Env
from pipeline.fetch import debian
from pipeline.inflate import inflated
from pipeline.oci import LAYER_GZIP, LAYER_ZSTD, Descriptor, Digest
from pipeline.progress import for_terminal
from pipeline.recipe import PROJECT
from pipeline.store import Store
from support.tars import Member
from support.tars import tar_bytes as tar_of_members

VERSION = 2  # of what is made here: rises when an image kept from before is not to be used any more
IMAGES = PROJECT / "build" / "bench" / "images"
SUITE = "bookworm"
LOCK = PROJECT / "build" / "lock" / "bench-image.json"
# From the bottom up; each layer has what the one below has, and this.
PACKAGES = (
    ("base", ("usr-is-merged", "apt", "ca-certificates", "e2fsprogs", "iproute2", "procps", "whiptail")),
    ("nginx", ("nginx-light",)),
    ("python", ("python3", "python3-pip", "python3-numpy", "python3-setuptools", "git", "openssl")),
)
EDGE = "opt/edge"
MIB = 1 << 20


class Compressor(Protocol):
    """What turns a tar into a layer's bytes, piece by piece."""

    def compress(self, data: bytes, /) -> bytes:
        """Some more output."""

    def flush(self) -> bytes:
        """The rest."""


def gzip() -> Compressor:
    """As registries hold most layers."""
    return zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)


def fast_gzip() -> Compressor:
    """Larger by a tenth, five times as fast: for images of which nothing is timed against others."""
    from isal import isal_zlib

    made: Compressor = isal_zlib.compressobj(2, isal_zlib.DEFLATED, 31)
    return made


def zstd() -> Compressor:
    """As zstd layers are mostly made."""
    import zstandard

    return zstandard.ZstdCompressor(level=3).compressobj()


# -- images by name ----------------------------------------------------------------------------------------------------


def reference(name: str) -> str:
    """`oci:DIRECTORY:NAME` of an image, made now if it is not there."""
    store = Store(IMAGES)
    with store.lock(f"image-{name}"):
        if store.tags().get(tag(name)) is None:
            make(name, store)
    return f"oci:{IMAGES}:{tag(name)}"


def tag(name: str) -> str:
    """What an image is called in its layout."""
    return f"{name}-v{VERSION}"


def make(name: str, store: Store) -> None:
    """Build one of the images into the layout."""
    match name.split("-"):
        case ["standard"]:
            _standard(store)
        case ["zstd"]:
            _publish(store, name, [write(store, plain(store, layer), zstd) for layer in _layers(store)])
        case ["times4"]:
            _times4(store, name)
        case ["grown", entries, layers]:
            _publish(store, name, grown(store, entries=int(entries), layers=int(layers)))
        case ["flat", entries]:
            files = (file(f"data/f{index:07}", b"%d\n" % index, 0) for index in range(int(entries)))
            _publish(store, name, [write(store, tar_bytes([directory("data", 0), *files]), fast_gzip)])
        case _:
            raise ValueError(f"no such image: {name}")


def write(store: Store, tar: Iterable[bytes], compressor: Callable[[], Compressor]) -> Layer:
    """A tar stream as a layer blob."""
    seen, pack = hashlib.sha256(), compressor()
    with store.writer() as writer:
        for chunk in tar:
            seen.update(chunk)
            writer.write(pack.compress(chunk))
        writer.write(pack.flush())
        blob = writer.commit(media_type=LAYER_ZSTD if compressor is zstd else LAYER_GZIP)
    return Layer(blob, Digest("sha256", seen.hexdigest()))


def _publish(store: Store, name: str, layers: Sequence[Layer]) -> None:
    config = image_config(layers, architecture="amd64", epoch=0, settings={}, history=[name] * len(layers))
    store_image(store, tag(name), layers, config, {})


def _layers(store: Store) -> list[Layer]:
    """The layers of the standard image, which is made if need be."""
    reference("standard")
    manifest = store.read_json(store.tags()[tag("standard")].digest)
    config = store.read_json(Digest.parse(manifest["config"]["digest"]))
    ids = config["rootfs"]["diff_ids"]
    return [
        Layer(Descriptor.from_json(layer), Digest.parse(diff_id))
        for layer, diff_id in zip(manifest["layers"], ids, strict=True)
    ]


def plain(store: Store, layer: Layer) -> Iterator[bytes]:
    """The tar of a stored layer."""
    with open(store.path(layer.descriptor.digest), "rb") as source:
        yield from inflated(source, limit_bytes=1 << 40, subject="bench image")


# -- the standard image ------------------------------------------------------------------------------------------------


def _standard(store: Store) -> None:
    progress = for_terminal()
    try:
        env = Env(Store(), progress)
        wanted = sorted({package for _, packages in PACKAGES for package in packages})
        layers = debian.with_packages(
            env,
            lambda lock: _standard_layers(env, lock, store),
            suite=SUITE,
            include=wanted,
            essential=True,
            name="the bench image",
            path=LOCK,
        )
    finally:
        progress.close()
    _publish(store, "standard", layers)


def _standard_layers(env: Env, lock: PackageLock, store: Store) -> list[Layer]:
    debs = debian.download(env, lock)
    layers: list[Layer] = []
    include: list[str] = []
    lower: Root = {}
    with tempfile.TemporaryDirectory(prefix="bench-image-", dir=store.tmp) as scratch:
        for name, packages in PACKAGES:
            include += packages
            tar = mmdebstrap.bootstrap(
                env,
                lock,
                debs,
                variant="essential",
                include=include,
                excludes=(),
                out_tar=Path(scratch, f"{name}.tar"),
                title=f"bench image, layer {name}",
            )
            root = read_root(tar)
            add(root, edge_lower(lock.epoch))
            root = {entry.path: entry for entry in in_order(root)}
            layers.append(write(store, tar_bytes(difference(lower, root, epoch=lock.epoch)), gzip))
            lower = root
    layers.append(write(store, in_chunks(tar_of_members(edge_upper(lock.epoch))), gzip))
    return layers


def edge_lower(epoch: int) -> list[Entry]:
    """What the edge layer hides, replaces and links to; in the layers below it."""
    files = "whited whited-dir/a whited-dir/sub/b opaque/old1 opaque/old2 opaque/sub/old dir-to-file/a dir-to-file/b"
    files += " file-to-dir chmod-dir/kept link-lower replaced real/below"
    entries = [file(f"{EDGE}/{name}", f"lower {name}\n".encode() * 50, epoch) for name in files.split()]
    return [*entries, symlink(f"{EDGE}/through", "real", epoch), directory(f"{EDGE}/empty", epoch)]


def edge_upper(epoch: int, prefix: str = "") -> list[Member | bytes]:
    """The edge layer: what merges, readers and writers get wrong.

    prefix:  a directory with its slash, below which all of it is to lie.
    """
    top = f"{prefix}{EDGE}"
    shared = random.Random(1).randbytes(3 * MIB)  # the same in two files: writers may keep it once
    wide = [(f"SCHILY.xattr.user.{name}", value) for name, value in (("binary", b"\0\xff\n=\x01"), ("empty", b""))]
    capability = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service, effective

    def at(name: str | bytes, **rest: Any) -> Member:
        path = f"{top}/".encode() + (name.encode() if isinstance(name, str) else name)
        return Member(path, **({"mtime": epoch} | rest))

    def record(name: str, **pax: bytes | str) -> Member:
        return at(name, data=name.encode(), pax=[(key.replace("__", "."), value) for key, value in pax.items()])

    return [
        Member(f"{prefix}usr/share/locale/", kind=b"5", mode=0o755, mtime=epoch),  # as many images clean up: too late
        Member(f"{prefix}usr/share/locale/.wh..wh..opq", mtime=epoch),
        at(".wh.whited"),
        at(".wh.whited-dir"),
        at(".wh.replaced"),
        at("replaced", data=b"upper\n"),
        at("opaque/", kind=b"5", mode=0o755),
        at("opaque/new", data=b"upper\n"),
        at("opaque/.wh..wh..opq"),
        at("dir-to-file", data=b"a file now\n"),
        at("file-to-dir/", kind=b"5", mode=0o755),
        at("file-to-dir/inside", data=b"inside\n"),
        at("chmod-dir/", kind=b"5", mode=0o700),
        at("through/passed", data=b"by way of a symbolic link\n"),
        at("trio-a", data=b"three names\n"),
        at("trio-b", kind=b"1", link=f"{top}/trio-a"),
        at("trio-c", kind=b"1", link=f"{top}/trio-a"),
        at("link-upper", kind=b"1", link=f"{top}/link-lower"),
        at("setuid", data=b"#!\n", mode=0o4755),
        at("setgid", data=b"#!\n", mode=0o2755),
        at("sticky/", kind=b"5", mode=0o1777),
        at("char", kind=b"3", device=(1, 3), mode=0o666),
        at("block", kind=b"4", device=(7, 0), mode=0o660),
        at("fifo", kind=b"6"),
        at("capable", data=b"#!\n", mode=0o755, pax=[("SCHILY.xattr.security.capability", capability)]),
        at("xattrs", data=b"user\n", pax=wide),
        at("trusted", data=b"root\n", pax=[("SCHILY.xattr.trusted.note", b"only root sees this")]),
        at("owner", data=b"70000\n", uid=70000, gid=70000),
        at("größe-Ω-語", data=b"UTF-8\n"),
        at(b"latin-\xe9", data=b"not UTF-8\n"),
        at("new\nline", data=b"\n"),
        at("n" * 255, data=b"long name\n"),
        at("/".join(["d" * 99] * 11) + "/deep", data=b"long path\n"),
        at("absolute", kind=b"2", mode=0o777, link="/" + "/".join(["target"] * 26) + "/ab"),
        record("mtime-1969", mtime="-1"),
        record("mtime-2100", mtime=str(4102444800)),
        record("mtime-subsecond", mtime=f"{epoch}.123456789"),
        at("empty-file"),
        at("zeros", data=bytes(4 * MIB)),
        at("copy-1", data=shared),
        at("copy-2", data=shared),
        sparse(at("sparse"), hole_bytes=4 * MIB),
    ]


def sparse(member: Member, *, hole_bytes: int) -> Member:
    """A file of data, hole, data. Source: GNU tar manual, "PAX Format, Versions 1.0"; umoci does not read the older."""
    block = 512
    last = block + hole_bytes
    text = "\n".join(map(str, (2, 0, block, last, block))).encode() + b"\n"
    real = [("GNU.sparse.name", member.name), ("GNU.sparse.realsize", str(last + block))]
    pax = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), *real]
    return replace(member, data=text.ljust(block, b"\0") + b"s" * block + b"e" * block, pax=pax)


# -- its relatives -----------------------------------------------------------------------------------------------------


def _times4(store: Store, name: str) -> None:
    """Every layer four times, in directories of their own; the edge layer is written anew, for its strange names."""
    *packages, _ = _layers(store)
    made: list[Layer] = []
    with tempfile.TemporaryDirectory(prefix="bench-image-", dir=store.tmp) as scratch:
        for number, layer in enumerate(packages):
            tar = Path(scratch, f"{number}.tar")
            with open(tar, "wb") as out:
                out.writelines(plain(store, layer))
            entries = in_order(read_root(tar))
            for copy in range(4):
                moved = [below(f"copy{copy}", entry) for entry in entries]
                made.append(write(store, tar_bytes([directory(f"copy{copy}", 0), *moved]), fast_gzip))
            tar.unlink()
    for copy in range(4):
        made.append(write(store, in_chunks(tar_of_members(edge_upper(0, f"copy{copy}/"))), fast_gzip))
    _publish(store, name, made)


def below(top: str, entry: Entry) -> Entry:
    """The entry in a directory."""
    return replace(entry, path=f"{top}/{entry.path}", group=tuple(f"{top}/{name}" for name in entry.group))


def grown(store: Store, *, entries: int, layers: int) -> list[Layer]:
    """So many entries spread evenly over so many layers: directories of fifty files of about a kilobyte.

    Every layer also replaces a file of the layer below and hides another, so that merging has something to do.
    """
    made = []
    for number in range(layers):
        part: Root = {}
        chance = random.Random(number)
        count = entries // layers
        for index in range(count):
            path = f"data/l{number:03}/d{index // 50:04}/f{index:06}"
            part[path] = file(path, chance.randbytes(chance.randrange(512)) * 4, 0)
        if number:
            part["data/shared"] = file("data/shared", b"%d\n" % number, 0)
            hidden = f"data/l{number - 1:03}/d0000/.wh.f000000"
            part[hidden] = file(hidden, b"", 0)
        whole: Root = {}
        add(whole, part.values())
        made.append(write(store, tar_bytes(in_order(whole)), fast_gzip))
    return made


def in_chunks(data: bytes) -> Iterator[bytes]:
    """Bytes piece by piece."""
    for at in range(0, len(data), CHUNK_BYTES):
        yield data[at : at + CHUNK_BYTES]


if __name__ == "__main__":
    for asked in sys.argv[1:] or ["standard"]:
        print(reference(asked))
