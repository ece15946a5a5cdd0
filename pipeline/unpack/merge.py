"""Layers to one tree, on metadata alone: whiteouts first, then entries, bottom layer first.

Nothing is written anywhere while merging, so a path can do no harm: symlinked parents are followed inside the tree.
A hardlink is bound to its target's node, so links across layers and links whose first name is later removed just work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from pipeline.limits import Limits, limit_hint
from pipeline.tree import Entry, Kind, printable
from pipeline.unpack.errors import BadPath, LimitExceeded
from pipeline.unpack.paths import Mark, Names, Place
from pipeline.unpack.sparse import EXTENT_BYTES

HOPS_MAX = 40  # symlinks on the way to one name, as in the kernel (MAXSYMLINKS)
STEPS_MAX = 50_000_000  # names looked at on the way, by one image: half a minute; real ones take a few per entry
IDS_MAX = 0xFFFF  # squashfs counts its id table in 16 bits

MERGED = "the merged image"

_OnTheWay = tuple[bytes, ...]


class Node:
    """A file, directory or other object; the same node under two names is a hardlink."""

    __slots__ = ("children", "entry")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.children: dict[bytes, Node] | None = {} if entry.kind is Kind.DIRECTORY else None


def _implied_directory() -> Node:
    return Node(Entry(b"", Kind.DIRECTORY, mode=0o755))


def _metadata_bytes(entry: Entry) -> int:
    """As the limit of that name has it."""
    size = len(entry.path) + len(entry.target)
    if entry.xattrs:
        size += sum(len(name) + len(value) for name, value in entry.xattrs.items())
    return size + EXTENT_BYTES * len(entry.extents or ())


def _exceeded(key: str, subject: str, expected: str) -> LimitExceeded:
    return LimitExceeded(subject, expected=expected, got="more", hint=limit_hint(key))


class Merge:
    """The tree that grows by `add`ing layers.

    strict:  refuse what is otherwise put right with a warning.
    Raises:  BadPath, LimitExceeded.
    """

    def __init__(self, limits: Limits | None = None, *, strict: bool = False) -> None:
        self.warnings: Counter[str] = Counter()
        self._limits, self._strict = limits or Limits(), strict
        self._root = _implied_directory()
        self._layers = 0
        self._implied = 0
        self._added = self._added_bytes = 0  # since it was last looked at what the tree holds
        self._steps = 0
        self._subject = ""
        self._names = Names(self._limits, self.warnings, subject="", strict=strict)
        # Where walks have led since the last time a name was given to something else.
        self._ways: dict[_OnTheWay, Node] = {}
        # Where this layer replaces no symlink on the way; as whiteouts only remove, that stays so among them.
        self._no_link: set[_OnTheWay] = set()

    # -- one layer -----------------------------------------------------------------------------------------------------

    def add(self, entries: Sequence[Entry], *, subject: str) -> None:
        """Put a layer on top. Its entries are the merge's from here on, and are altered."""
        self._subject = subject
        self._names = Names(self._limits, self.warnings, subject=subject, strict=self._strict)
        placed = [(self._names.place(entry.path), entry) for entry in entries]
        explicit = {
            (*where.parents, where.name)
            for where, entry in placed
            if entry.kind is Kind.DIRECTORY and where.mark is Mark.NONE
        }
        # Links are bound to what their target was before this layer's whiteouts, where this layer has no such name.
        links = {
            id(entry): self._names.split(entry.target)
            for where, entry in placed
            if entry.kind is Kind.HARDLINK and where.mark is Mark.NONE
        }
        lower = {link: self._find(target) for link, target in links.items()}
        self._ways.clear()
        self._no_link.clear()
        for where, entry in placed:
            if where.mark is Mark.AUFS:
                self.warnings["leftover of AUFS skipped"] += 1
            elif where.mark is not Mark.NONE:
                self._hide(where, entry, explicit)
        seen: set[_OnTheWay] = set()
        for where, entry in placed:
            if where.mark is Mark.NONE:
                name = (*where.parents, where.name)
                if name in seen and name != (b"",):
                    self._questionable("name given twice in a layer, last one taken", entry)
                seen.add(name)
                self._put(where, entry, links.get(id(entry), ()), lower.get(id(entry)))
        self._layers += 1
        self._added += len(entries)
        self._added_bytes += sum(map(_metadata_bytes, entries))
        if self._added > self._limits.entries or self._added_bytes > self._limits.metadata_bytes:
            self._check_size()

    def _check_size(self) -> None:
        """What the tree holds, without what later layers have replaced; layers can add up to far more than memory."""
        self._added = self._added_bytes = 0
        count = size_bytes = 0
        todo = [self._root]
        while todo:
            node = todo.pop()
            count += 1
            size_bytes += _metadata_bytes(node.entry)
            if node.children is not None:
                todo += node.children.values()
        if count > self._limits.entries:
            raise _exceeded("entries", MERGED, f"at most {self._limits.entries} entries")
        if size_bytes > self._limits.metadata_bytes:
            expected = f"at most {self._limits.metadata_bytes} bytes of names, link targets, xattrs, sparse maps"
            raise _exceeded("metadata_bytes", MERGED, expected)

    def _questionable(self, what: str, entry: Entry) -> None:
        if self._strict:
            raise self._refused(entry, "no doubtful entry", what)
        self.warnings[what] += 1

    def _refused(self, entry: Entry, expected: str, got: str) -> BadPath:
        return BadPath(f"{self._subject}: {printable(entry.path)}", expected=expected, got=got)

    # -- walking -------------------------------------------------------------------------------------------------------

    def _walk(self, parts: Sequence[bytes], *, create: bool) -> Node | None:
        """The directory `parts` leads to, symlinks followed inside the root; missing ones are made if `create`.

        Raises:  BadPath after too many symlinks.
        """
        way, todo, hops = [self._root], list(reversed(parts)), 0
        self._count(parts)
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(way) > 1:
                    way.pop()
                continue
            children = way[-1].children
            assert children is not None
            child = children.get(part)
            if child is not None and child.entry.kind is Kind.SYMLINK:
                hops += 1
                if hops > HOPS_MAX:
                    raise BadPath(
                        f"{self._subject}: {printable(b'/'.join(parts))}",
                        expected=f"at most {HOPS_MAX} symlinks on the way",
                        got="more, or a loop",
                    )
                target = child.entry.target
                if target.startswith(b"/"):
                    del way[1:]
                through = target.split(b"/")
                self._count(through)
                todo.extend(reversed(through))
                continue
            if child is None or child.children is None:
                if not create:
                    return None
                child = children[part] = self._imply()
            way.append(child)
            if len(way) > self._limits.depth + 1:
                where = f"{self._subject}: {printable(b'/'.join(parts))}"
                raise _exceeded("depth", where, f"at most {self._limits.depth} directories deep")
        return way[-1]

    def _count(self, parts: Sequence[bytes]) -> None:
        """Take note of names to go along: forty symlinks of 4 KiB make hours of a few thousand entries."""
        self._steps += len(parts)
        if self._steps > STEPS_MAX:
            raise LimitExceeded(self._subject, expected=f"at most {STEPS_MAX} steps along paths", got="more")

    def _imply(self) -> Node:
        self._implied += 1
        if self._implied > self._limits.entries:
            raise _exceeded("entries", self._subject, f"at most {self._limits.entries} entries")
        return _implied_directory()

    def _find(self, parts: tuple[bytes, ...]) -> Node | None:
        """The node under a name; a symlink as last part is not followed."""
        if not parts:
            return self._root
        parent = self._walk(parts[:-1], create=False)
        return parent.children.get(parts[-1]) if parent is not None and parent.children is not None else None

    # -- whiteouts -----------------------------------------------------------------------------------------------------

    def _hide(self, where: Place, entry: Entry, explicit: set[_OnTheWay]) -> None:
        """Remove from the lower layers what a whiteout names. Its type and contents mean nothing."""
        if entry.kind is not Kind.FILE or entry.size_bytes:
            self._questionable("whiteout that is no empty file", entry)
        if self._link_replaced(where.parents, explicit):
            return
        parent = self._walk(where.parents, create=False)
        if parent is None or parent.children is None:
            self.warnings["whiteout of nothing"] += 1
        elif where.mark is Mark.OPAQUE:
            if self._strict and self._by_symlink(where.parents):
                raise self._refused(entry, "an opaque mark in a directory", "one behind a symlink")
            parent.children.clear()
        elif parent.children.pop(where.name, None) is None:
            self.warnings["whiteout of nothing"] += 1

    def _link_replaced(self, parents: tuple[bytes, ...], explicit: set[_OnTheWay]) -> bool:
        """Does this layer put a directory where a lower one has a symlink? Then nothing lower lies below it."""
        if parents in self._no_link:
            return False
        for depth in range(1, len(parents) + 1):
            if parents[:depth] in explicit and parents[:depth] not in self._no_link:
                node = self._find(parents[:depth])
                if node is not None and node.entry.kind is Kind.SYMLINK:
                    return True
                self._no_link.add(parents[:depth])
        self._no_link.add(parents)
        return False

    def _by_symlink(self, parents: tuple[bytes, ...]) -> bool:
        nodes = (self._find(parents[:depth]) for depth in range(1, len(parents) + 1))
        return any(node is not None and node.entry.kind is Kind.SYMLINK for node in nodes)

    # -- entries -------------------------------------------------------------------------------------------------------

    def _put(self, where: Place, entry: Entry, target: _OnTheWay, lower_target: Node | None) -> None:
        entry.layer = self._layers
        if not where.name:
            if entry.kind is not Kind.DIRECTORY:
                raise self._refused(entry, "a directory as the root", entry.kind.name.lower())
            self._root.entry = entry
            return
        parent = self._ways.get(where.parents)
        if parent is None:
            parent = self._walk(where.parents, create=True)
            assert parent is not None
            self._ways[where.parents] = parent
        assert parent.children is not None
        old = parent.children.get(where.name)
        if old is not None and not (entry.kind is Kind.DIRECTORY and old.children is not None):
            self._ways.clear()
        if entry.kind is Kind.HARDLINK:
            itself = old if target == (*where.parents, where.name) else None
            parent.children[where.name] = self._linked(entry, self._find(target) or lower_target, itself)
        elif entry.kind is Kind.DIRECTORY and old is not None and old.children is not None:
            old.entry = entry
        else:
            parent.children[where.name] = Node(entry)

    def _linked(self, entry: Entry, target: Node | None, itself: Node | None) -> Node:
        if target is None:
            raise self._refused(entry, "a hardlink to an earlier entry", f"no {printable(entry.target)}")
        if target.children is not None:
            raise self._refused(entry, "a hardlink to something else than a directory", printable(entry.target))
        if target is itself:
            raise self._refused(entry, "a hardlink to another name", "one to itself")
        return target

    # -- the result ----------------------------------------------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        """The merged tree: parents first, siblings by name bytes; a node's first name carries it, later ones link.

        Raises:  LimitExceeded.
        """
        first: dict[int, bytes] = {}
        ids: set[int] = set()
        count = size = 0
        todo: list[tuple[bytes, Node]] = [(b"", self._root)]
        while todo:
            path, node = todo.pop()
            entry = node.entry
            count += 1
            known = first.get(id(node)) if node.children is None else None
            if known is not None:
                yield Entry(path, Kind.HARDLINK, target=known, layer=entry.layer)
                continue
            first[id(node)] = path
            ids.update((entry.uid, entry.gid))
            size += entry.size_bytes
            if count > self._limits.entries:
                raise _exceeded("entries", MERGED, f"at most {self._limits.entries} entries")
            if size > self._limits.image_bytes:
                raise _exceeded("image_bytes", MERGED, f"at most {self._limits.image_bytes} bytes")
            if len(ids) > IDS_MAX:
                raise LimitExceeded(MERGED, expected=f"at most {IDS_MAX} user and group ids", got="more")
            entry.path = path  # of several names' entries, all are this one
            yield entry
            if node.children is not None:
                prefix = path + b"/" if path else b""
                todo += [(prefix + name, node.children[name]) for name in sorted(node.children, reverse=True)]
