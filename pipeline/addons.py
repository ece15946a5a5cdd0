"""A kernel image's addons.squashfs, read piece by piece from its file: what is in it, and its modules by name.

Source:  the format of Edera's kernel images: modules/ (what lib/modules/RELEASE holds), firmware/, overlays/ and more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline import kmodule
from pipeline.errors import PipelineError
from pipeline.tree import Entry, Kind

MODULES = "modules/"


class BadAddons(PipelineError):
    """An addons squashfs that cannot be read, or lacks a module the zone needs."""


class Addons:
    """An addons squashfs. `files`: sizes of regular files by path; `modules`: paths by canonical name."""

    def __init__(self, path: Path, *, subject: str) -> None:
        from PySquashfsImage import SquashFsImage

        self._subject = subject
        with contextlib.ExitStack() as undo:
            file = undo.enter_context(open(path, "rb"))
            try:
                self._image = SquashFsImage(file)
                self._nodes: dict[str, Any] = {entry.path.lstrip("/"): entry for entry in self._image}
            except Exception as error:  # the library raises whatever a damaged image leads it to
                got = f"{type(error).__name__}: {error}"[:200]
                raise BadAddons(subject, expected="a readable squashfs", got=got) from None
            self._open = undo.pop_all()
        self.files: dict[str, int] = {path: node.size for path, node in self._nodes.items() if node.is_file}
        self.modules = {
            kmodule.canonical(path.rpartition("/")[2]): path
            for path in sorted(self.files)
            if path.startswith(MODULES) and kmodule.SUFFIX.search(path)
        }

    def __enter__(self) -> Addons:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def content(self, path: str) -> Iterator[bytes]:
        """The bytes of a regular file. Raises BadAddons."""
        try:
            yield from self._nodes[path].iter_bytes()
        except Exception as error:
            where = f"{self._subject}: {path}"
            raise BadAddons(where, expected="a readable file", got=f"{type(error).__name__}: {error}"[:200]) from None

    def read(self, name: str) -> bytes:
        """The plain ELF bytes of a module. Raises BadAddons, BadModule."""
        path = self.modules[name]
        if self.files[path] > kmodule.MODULE_LIMIT_BYTES:
            limit = f"a module of at most {kmodule.MODULE_LIMIT_BYTES >> 20} MiB"
            raise BadAddons(f"{self._subject}: {path}", expected=limit, got=f"{self.files[path]} bytes")
        return kmodule.unpack(path, b"".join(self.content(path)))

    def builtin(self) -> frozenset[str]:
        """Canonical names of what modules.builtin says is no module but a part of the kernel."""
        path = f"{MODULES}modules.builtin"
        if self.files.get(path, 0) > kmodule.MODULE_LIMIT_BYTES or path not in self.files:
            return frozenset()
        lines = b"".join(self.content(path)).decode("utf-8", "replace").split()
        return frozenset(kmodule.canonical(line.rpartition("/")[2]) for line in lines)

    def entries(self) -> Iterator[Entry]:
        """Every name below the root, mtime 0. Raises BadAddons for what is neither file, directory nor symlink."""
        for path, node in self._nodes.items():
            if not path:
                continue
            kind = Kind.FILE if node.is_file else Kind.DIRECTORY if node.is_dir else Kind.SYMLINK
            if kind is Kind.SYMLINK and not node.is_symlink:
                where = f"{self._subject}: {path}"
                raise BadAddons(where, expected="files, directories and symlinks", got="another kind of node")
            entry = Entry(path.encode("utf-8", "surrogateescape"), kind, node.mode & 0o7777, node.uid, node.gid)
            if kind is Kind.SYMLINK:
                target = node.readlink()
                entry.target = target if isinstance(target, bytes) else target.encode("utf-8", "surrogateescape")
            elif kind is Kind.FILE:
                entry.size_bytes = node.size
            yield entry
