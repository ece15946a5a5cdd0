"""`zone store fsck`: looks at everything in a store, names each thing that is not as it was made, and can set it right.

To set right is mostly to remove: whatever is gone is made again by the next build, with the same bytes. A name that
leads to something missing is taken out of index.json; the build that gave it gives it again. What was never the
store's own is named and left alone. It works on a store that nothing else would open.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.durable import take, write_atomic
from pipeline.errors import PipelineError
from pipeline.oci import INDEX, MANIFEST, REF_NAME, Descriptor, Digest, parse_json
from pipeline.progress import Bar, Progress
from pipeline.store import graph as storegraph
from pipeline.store.documents import index_document, read_index
from pipeline.store.form import FORMS, NAMES, StoreUnfit, check_form, check_place
from pipeline.store.lease import GC, PREFIX
from pipeline.store.workshop import is_unowned

CHUNK_BYTES = 1 << 20
BLOB_MODE, FILE_MODE = 0o444, 0o644
RESULT_NAME = re.compile(r"[0-9a-f]{64}\.json")


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong. name: its path below the store. remedy: what `repair` does."""

    name: str
    problem: str
    remedy: str
    repair: Callable[[], object]


def fsck(
    root: Path, *, repair: bool = False, progress: Progress | None = None, more: Iterable[Damage] = ()
) -> list[Damage]:
    """Everything wrong with a store, each thing once, by name; with `repair` it is set right as well.

    more:    what the caller found in the parts of the store that he knows better.
    Raises:  StoreUnfit for what is no store, or one of another form; OSError.
    Effects: none on what is in order. Builds may go on meanwhile, a gc waits.
    """
    if not (root / "blobs").is_dir():
        raise StoreUnfit(f"store {root}", expected="a store", got="none, or one that was never used")
    check_place(root)
    with _no_gc(root):
        found = _Check(root, progress or Progress()).run() + list(more)
        if repair:
            for item in found:
                item.repair()
            for item in _Check(root, Progress()).references():  # what named something that was removed just now
                item.repair()
    return sorted(found, key=lambda item: item.name)


@contextlib.contextmanager
def _no_gc(root: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a store that can only be read
            stack.callback(os.close, take(root / "locks" / GC))
        yield


class _Check:
    """One look at a store."""

    def __init__(self, root: Path, progress: Progress) -> None:
        self._root, self._progress = root, progress

    def run(self) -> list[Damage]:
        """Everything."""
        forms = [*self._forms()]
        # First what names blobs, then the blobs: what a build adds meanwhile then comes in the right order.
        results, named = self._results()
        index, entries = self._index()
        blobs, there = self._blobs()
        missing = self._missing(named, entries, there)
        return [*forms, *results, *index, *blobs, *missing, *self._strangers()]

    def references(self) -> list[Damage]:
        """Only results and names that lead to a blob that is not there."""
        _, named = self._results()
        _, entries = self._index()
        return self._missing(named, entries, {_digest_of(path): path for path in self._blob_files()})

    # -- files by which a store is known -------------------------------------------------------------------------------

    def _forms(self) -> Iterator[Damage]:
        for name, content in FORMS.items():
            path = self._root / name
            problem = _kind_problem(path, FILE_MODE)
            if not problem and path.read_bytes() != content:
                if name == "format":
                    check_form(self._root, damage_too=False)  # a whole file of another form is not for us to mend
                problem = "has other bytes than it was made with"
            if problem:
                yield self._damage(path, problem, "written anew", partial(_rewrite, path, content))

    # -- blobs ---------------------------------------------------------------------------------------------------------

    def _blob_files(self) -> list[Path]:
        """Whatever lies where blobs lie."""
        directories = [path for path in (self._root / "blobs").iterdir() if path.name in ("sha256", "sha512")]
        return [path for directory in directories if directory.is_dir() for path in sorted(directory.iterdir())]

    def _blobs(self) -> tuple[list[Damage], dict[str, Path]]:
        """What is wrong with them, and all that are there, in whatever state, by their digests."""
        paths = self._blob_files()
        total = sum(path.lstat().st_size for path in paths if path.exists())
        with self._progress.bar("store objects", total=total) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
            found = [item for item in pool.map(partial(self._blob, bar), paths) if item is not None]
        for path in (self._root / "blobs").iterdir():
            if path.name not in ("sha256", "sha512") or not path.is_dir():
                found.append(self._removed(path, "is no directory of blobs"))
        return found, {_digest_of(path): path for path in paths}

    def _blob(self, bar: Bar, path: Path) -> Damage | None:
        try:
            digest = Digest.parse(_digest_of(path))
        except PipelineError:
            return self._removed(path, "has no digest for a name")
        try:
            if problem := _kind_problem(path):
                return self._removed(path, problem)
            actual = _hash(path, digest.algorithm, bar)
            if actual != digest.hex:
                return self._removed(path, f"has {path.stat().st_size} bytes that hash to {actual[:12]}…")
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            return None  # a reader was faster to find and remove it
        except OSError as error:
            return self._removed(path, f"cannot be read: {error.strerror}")
        if mode != BLOB_MODE:
            return self._damage(path, _mode_text(mode, BLOB_MODE), "set right", partial(os.chmod, path, BLOB_MODE))
        return None

    # -- what names blobs ----------------------------------------------------------------------------------------------

    def _results(self) -> tuple[list[Damage], dict[Path, list[Descriptor]]]:
        """What is wrong with result files as such, and what each sound one names."""
        found, named = [], {}
        for path in sorted((self._root / "results").iterdir()):
            if path.name.startswith(".") and not is_unowned(path):
                continue
            if not RESULT_NAME.fullmatch(path.name):
                found.append(self._removed(path, "is no result"))
            elif problem := _kind_problem(path, FILE_MODE):
                found.append(self._removed(path, problem))
            elif (result := storegraph.read_result(path)) is None:
                if path.exists():
                    found.append(self._removed(path, "has other bytes than it was made with"))
            else:
                named[path] = list(storegraph.descriptors_of(result))
        return found, named

    def _index(self) -> tuple[list[Damage], list[Descriptor]]:
        path = self._root / "index.json"
        remedy = "written anew with the names that lead somewhere"
        problem, entries = _kind_problem(path, FILE_MODE), []
        if not problem or problem.startswith("has mode"):
            try:
                data = path.read_bytes()
                entries = read_index(data, subject=str(path))
                if data != index_document(entries):
                    problem = "was changed by something else, or damaged"
            except PipelineError as error:
                problem, remedy = f"is no image index: {error.got}", "written anew, without names"
        repair = partial(_rewrite_index, self._root)
        # What a damaged index names says nothing; `references` looks at what is written anew.
        return ([self._damage(path, problem, remedy, repair)], []) if problem else ([], entries)

    def _missing(
        self, named: dict[Path, list[Descriptor]], entries: list[Descriptor], there: dict[str, Path]
    ) -> list[Damage]:
        """Each blob that something names and that is not there, once, with whatever names it."""
        wanting: dict[str, list[tuple[str, Callable[[], object]]]] = {}
        for path, blobs in named.items():
            for digest in {str(blob.digest) for blob in blobs} - there.keys():
                wanting.setdefault(digest, []).append((self._name(path), partial(_remove, path)))
        for entry in entries:
            name = entry.annotations.get(REF_NAME, "")
            for digest in self._led_to(entry) - there.keys():
                text = f"index.json for {name}"
                wanting.setdefault(digest, []).append((text, partial(_take_out, self._root, entry)))
        found = []
        for digest, namers in sorted(wanting.items()):
            others = f" and {len(namers) - 1} more" if len(namers) > 1 else ""
            found.append(
                Damage(
                    f"blobs/{digest.replace(':', '/')}",
                    f"is missing; {namers[0][0]}{others} names it",
                    "no longer named",
                    partial(_all, [repair for _, repair in namers]),
                )
            )
        return found

    def _led_to(self, entry: Descriptor) -> set[str]:
        """The blobs a name needs: its manifest, and what that names. An index need not have every platform here."""
        needed = {str(entry.digest)}
        with contextlib.suppress(OSError, PipelineError):
            data = (self._root / "blobs" / entry.digest.algorithm / entry.digest.hex).read_bytes()
            document = parse_json(data, subject=str(entry.digest))
            if hashlib.new(entry.digest.algorithm, data).hexdigest() != entry.digest.hex:
                return needed  # damaged, and named as such: what it says now means nothing
            if entry.media_type != INDEX and document.get("mediaType", MANIFEST) != INDEX:
                needed |= {str(item.digest) for item in storegraph.descriptors_of(document)}
        return needed

    # -- the rest ------------------------------------------------------------------------------------------------------

    def _strangers(self) -> Iterator[Damage]:
        for path in sorted(self._root.iterdir()):
            if path.name not in NAMES and not path.name.startswith("."):
                yield self._damage(path, "is nothing a store has", "left alone", lambda: None)
        for path in sorted((self._root / "locks").iterdir()):
            lease = path.name.startswith(PREFIX)
            if (problem := _kind_problem(path)) or (not lease and path.exists() and path.stat().st_size):
                yield self._removed(path, problem or "has bytes in it, which no lock has")
        for directory, sound in (("used", _is_days), ("checkouts", _is_path)):
            for path in sorted((self._root / directory).glob("*")):
                problem = _kind_problem(path)
                if problem or (path.exists() and not sound(path.read_bytes())):
                    yield self._removed(path, problem or "has other bytes than it was made with")
        for path in sorted((self._root / "tmp").iterdir()):
            if not path.is_symlink() and (path.is_file() or path.is_dir()):
                continue  # of a process that lives, or for the next one to sweep
            if os.path.lexists(path):
                yield self._removed(path, _kind_problem(path))

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._root))

    def _damage(self, path: Path, problem: str, remedy: str, repair: Callable[[], object]) -> Damage:
        return Damage(self._name(path), problem, remedy, repair)

    def _removed(self, path: Path, problem: str) -> Damage:
        return self._damage(path, problem, "removed", partial(_remove, path))


# -- looking at one file -----------------------------------------------------------------------------------------------


def _kind_problem(path: Path, mode: int | None = None) -> str:
    """Why this is not the regular file it should be, or ""."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return "is missing"
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe"}
        return f"is {kinds.get(stat.S_IFMT(status.st_mode), 'a special file')}, not a regular file"
    if mode is not None and stat.S_IMODE(status.st_mode) != mode:
        return _mode_text(stat.S_IMODE(status.st_mode), mode)
    return ""


def _mode_text(mode: int, expected: int) -> str:
    return f"has mode {mode:04o}, not {expected:04o}"


def _digest_of(path: Path) -> str:
    return f"{path.parent.name}:{path.name}"


def _hash(path: Path, algorithm: str, bar: Bar) -> str:
    hashed = hashlib.new(algorithm)
    with open(path, "rb", buffering=0) as file:
        while data := file.read(CHUNK_BYTES):
            hashed.update(data)
            bar.advance(len(data))
    return hashed.hexdigest()


def _is_days(data: bytes) -> bool:
    # Empty, where a process was killed just then: a stamp is not worth an fsync.
    return re.fullmatch(rb"(\d+( \d{4}-\d\d-\d\d)*\n)?", data) is not None


def _is_path(data: bytes) -> bool:
    return data.startswith(b"/") and data.endswith(b"\n")


# -- setting right -----------------------------------------------------------------------------------------------------


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _rewrite(path: Path, data: bytes) -> None:
    if path.is_symlink() or path.is_dir():
        _remove(path)
    write_atomic(path, data, staging=path.parent / "tmp")


def _rewrite_index(root: Path) -> None:
    """Write index.json anew with the names it has now: a build may have given one since it was looked at."""
    path = root / "index.json"
    lock = take(root / "locks" / "index")
    try:
        entries: list[Descriptor] = []
        with contextlib.suppress(PipelineError, OSError):
            entries = read_index(path.read_bytes(), subject=str(path))
        _rewrite(path, index_document(entries))
    finally:
        os.close(lock)


def _take_out(root: Path, entry: Descriptor) -> None:
    """Take one name out of index.json, if it still names the same."""
    path = root / "index.json"
    lock = take(root / "locks" / "index")
    try:
        entries = read_index(path.read_bytes(), subject=str(path))
        write_atomic(path, index_document([item for item in entries if item != entry]), staging=root / "tmp")
    finally:
        os.close(lock)


def _all(repairs: list[Callable[[], object]]) -> None:
    for repair in repairs:
        repair()
