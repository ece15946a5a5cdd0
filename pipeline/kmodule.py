"""Kernel module files: their names, their plain bytes, what they say of themselves, and the order they load in."""

from __future__ import annotations

import lzma
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence

from pipeline.errors import PipelineError

SUFFIX = re.compile(r"\.ko(\.xz|\.zst|\.gz)?$")
ELF_MAGIC = b"\x7fELF\x02\x01"
MODULE_LIMIT_BYTES = 64 << 20


class BadModule(PipelineError):
    """A file that is no kernel module this can read, or a module that is asked for and not there."""


def canonical(name: str) -> str:
    """The name the kernel uses, of a module or its file: `xen-netback.ko.xz` and `xen_netback` are one module."""
    return SUFFIX.sub("", name).replace("-", "_")


def unpack(file_name: str, data: bytes) -> bytes:
    """The plain ELF bytes of a module, decompressed by its suffix within a bound. Raises BadModule."""
    try:
        if file_name.endswith(".xz"):
            data = lzma.LZMADecompressor(memlimit=256 << 20).decompress(data, MODULE_LIMIT_BYTES)
        elif file_name.endswith(".gz"):
            data = zlib.decompressobj(31).decompress(data, MODULE_LIMIT_BYTES)
        elif file_name.endswith(".zst"):
            import zstandard

            with zstandard.ZstdDecompressor().stream_reader(data) as reader:
                data = bytes(reader.read(MODULE_LIMIT_BYTES))
    except Exception as error:  # each library has its own
        raise BadModule(file_name, expected="a compressed kernel module", got=str(error)[:200]) from error
    if not data.startswith(ELF_MAGIC):
        raise BadModule(file_name, expected="a 64-bit ELF file", got=data[:6].hex())
    return data


def modinfo(data: bytes, *, subject: str = "module") -> dict[str, list[str]]:
    """The strings of the .modinfo section, by key, in file order.

    Raises:  BadModule where the section headers lead nowhere.
    Source:  ELF-64 object file format; include/linux/moduleparam.h, __MODULE_INFO.
    """
    try:
        (shoff,) = struct.unpack_from("<Q", data, 40)
        shentsize, shnum, shstrndx = struct.unpack_from("<HHH", data, 58)
        headers = [struct.unpack_from("<IIQQQQ", data, shoff + index * shentsize) for index in range(shnum)]
        names = data[headers[shstrndx][4] :][: headers[shstrndx][5]]
        for name, _type, _flags, _addr, offset, size in headers:
            if names.startswith(b".modinfo\0", name):
                return _strings(data[offset : offset + size])
    except (struct.error, IndexError) as error:
        raise BadModule(subject, expected="ELF section headers", got=str(error)) from error
    raise BadModule(subject, expected="a .modinfo section", got="none")


def depends(info: dict[str, list[str]]) -> tuple[str, ...]:
    """The canonical names in `depends=` of a module's strings. Source: include/linux/module.h, MODULE_INFO(depends)."""
    return tuple(canonical(item) for item in ",".join(info.get("depends", [])).split(",") if item)


def vermagic(info: dict[str, list[str]]) -> str:
    """Which kernel a module was built for: the release, then options. Source: kernel/module, same_magic()."""
    return " ".join("".join(info.get("vermagic", [])[:1]).split())


def load_order(wanted: Iterable[str], needs: Callable[[str, Sequence[str]], Sequence[str] | None]) -> list[str]:
    """The wanted modules and all they need, each after its own needs.

    needs:   what a module, asked for by a chain of others, depends on; None for one that is not loaded: it is built in.
    Raises:  BadModule for a circle, and what `needs` raises.
    """
    order: dict[str, None] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in order:
            return
        if name in above:
            raise BadModule(f"module {name}", expected="no circle of dependencies", got=" > ".join((*above, name)))
        found = needs(name, above)
        if found is None:
            return
        for need in found:
            visit(need, (*above, name))
        order[name] = None

    for name in wanted:
        visit(name, ())
    return list(order)


def _strings(section: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in section.decode("utf-8", "replace").split("\0"):
        key, equals, value = text.partition("=")
        if equals:
            found.setdefault(key, []).append(value)
    return found
