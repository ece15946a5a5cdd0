"""Which modules of a kernel's addons go into the initrd, and in which order they are loaded."""

from __future__ import annotations

import io
import lzma
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence

from pipeline.initrd.errors import BadAddons

# What a zone needs before its root is there; a kernel may have any of them built in.
BOOT_DRIVERS = ("xen_blkfront", "xen_netfront", "squashfs", "overlay")
MAX_MODULE_BYTES = 64 << 20
_SUFFIX = re.compile(r"\.ko(\.xz|\.zst|\.gz)?$")


def canonical(name: str) -> str:
    """The kernel's name of a module: `-` and `_` are one."""
    return _SUFFIX.sub("", name).replace("-", "_")


class Addons:
    """An addons squashfs as PySquashfsImage sees it: files by path, modules by canonical name."""

    def __init__(self, data: bytes, *, subject: str) -> None:
        from PySquashfsImage import SquashFsImage

        self._subject = subject
        try:
            self._image = SquashFsImage.from_bytes(data)
            self.files = {entry.path.lstrip("/"): entry for entry in self._image if entry.is_file}
        except Exception as error:  # the library raises whatever a damaged image leads it to
            raise BadAddons(subject, expected="a readable squashfs", got=f"{type(error).__name__}: {error}") from None
        self.modules = {
            canonical(path.rpartition("/")[2]): path
            for path in sorted(self.files)
            if path.startswith("modules/") and _SUFFIX.search(path)
        }

    def read(self, name: str) -> bytes:
        """The plain ELF bytes of a module. Raises BadAddons."""
        path = self.modules[name]
        entry = self.files[path]
        if entry.size > MAX_MODULE_BYTES:
            raise BadAddons(f"{self._subject}: {path}", expected="a module under 64 MiB", got=f"{entry.size} bytes")
        try:
            data = unpack(path, entry.read_bytes())
        except Exception as error:
            raise BadAddons(f"{self._subject}: {path}", expected="a readable module", got=str(error)[:200]) from None
        if not data.startswith(b"\x7fELF"):
            raise BadAddons(f"{self._subject}: {path}", expected="an ELF module", got=repr(data[:8]))
        return data


def unpack(path: str, data: bytes) -> bytes:
    """Decompress a module by its suffix, with a bound."""
    if path.endswith(".xz"):
        return lzma.LZMADecompressor(memlimit=256 << 20).decompress(data, MAX_MODULE_BYTES)
    if path.endswith(".gz"):
        return zlib.decompressobj(31).decompress(data, MAX_MODULE_BYTES)
    if path.endswith(".zst"):
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            return bytes(reader.read(MAX_MODULE_BYTES))
    return data


def boot_modules(addons: Addons | None, metadata: Mapping[str, str], *, subject: str) -> list[str]:
    """Canonical names in load order: those of KERNEL_BOOT_MODULES, else the boot drivers and what they depend on.

    Raises:  BadAddons for a module that is named and not there.
    """
    there = addons.modules if addons else {}
    if "KERNEL_BOOT_MODULES" in metadata:
        names = [canonical(name) for name in metadata["KERNEL_BOOT_MODULES"].split()]
        for name in names:
            if name not in there:
                raise BadAddons(
                    f"{subject}: module {name}",
                    expected="it in addons.squashfs, as KERNEL_BOOT_MODULES says",
                    got="none",
                )
        return list(dict.fromkeys(names))
    # One that is no module is built in; a kernel that has it neither way is found out when the zone misses it.
    wanted = [name for name in BOOT_DRIVERS if name in there]
    return closure(wanted, {name: depends(addons.read(name)) for name in _reach(wanted, addons)} if addons else {})


def _reach(wanted: Sequence[str], addons: Addons) -> Iterator[str]:
    seen: set[str] = set()
    todo = list(wanted)
    while todo:
        name = todo.pop()
        if name not in seen and name in addons.modules:
            seen.add(name)
            todo += depends(addons.read(name))
            yield name


def closure(wanted: Sequence[str], needs: Mapping[str, Sequence[str]]) -> list[str]:
    """The wanted names with all they need, each after its own needs; names not in `needs` are built in."""
    order: dict[str, None] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in order or name not in needs:
            return
        if name in above:
            raise BadAddons(f"module {name}", expected="no circle of dependencies", got=" > ".join((*above, name)))
        for need in needs[name]:
            visit(need, (*above, name))
        order[name] = None

    for name in wanted:
        visit(name, ())
    return list(order)


def depends(elf: bytes) -> list[str]:
    """The canonical names in a module's `depends=`. Source: include/linux/module.h, MODULE_INFO(depends)."""
    from elftools.elf.elffile import ELFFile

    section = ELFFile(io.BytesIO(elf)).get_section_by_name(".modinfo")
    for item in (section.data() if section else b"").split(b"\0"):
        key, _, value = item.partition(b"=")
        if key == b"depends":
            return [canonical(name) for name in value.decode("ascii", "replace").split(",") if name]
    return []


def parse_metadata(text: str) -> dict[str, str]:
    """KEY=VALUE lines, values with or without quotes; comments and other lines are left out."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'"
            found[key.strip()] = value[1:-1] if quoted else value
    return found
