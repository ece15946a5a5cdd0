"""Layers of a small alphabet at random: our merge against a model that is simple and slow."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import example, given
from support import facts
from support.fuzz import ends, fuzz
from support.tars import image_of, tar_of, write_layout

from pipeline import fetch, unpack
from pipeline.env import Env
from pipeline.store import Store
from pipeline.tree import Entry, Kind
from pipeline.unpack.errors import BadPath
from pipeline.unpack.merge import Merge

Parts = tuple[bytes, ...]


@dataclass
class Thing:
    """A node of the model; two names of one thing are a hardlink."""

    kind: str
    content: bytes = b""


class Refused(Exception):
    """The model says that this cannot be merged."""


@dataclass
class Model:
    """A tree as a flat mapping, and layers applied to it rule by rule as the OCI specification has them."""

    tree: dict[Parts, Thing] = field(default_factory=dict)

    def real(self, parts: Parts, hops: int = 0) -> Parts:
        """Where a path leads, symlinks resolved: all of it, the last part too."""
        done: Parts = ()
        for index, part in enumerate(parts):
            if part == b"..":
                done = done[:-1]
                continue
            thing = self.tree.get((*done, part))
            if thing is None or thing.kind != "l":
                done = (*done, part)
                continue
            if hops >= 40:
                raise Refused
            target = tuple(word for word in thing.content.split(b"/") if word)
            start = () if thing.content.startswith(b"/") else done
            # The hops of a whole walk count together: go on from where the link leads.
            return self.real((*start, *target, *parts[index + 1 :]), hops + 1)
        return done

    def remove(self, path: Parts, *, itself: bool) -> None:
        for name in [name for name in self.tree if name[: len(path)] == path and (itself or len(name) > len(path))]:
            del self.tree[name]

    def make_directories(self, path: Parts) -> None:
        for depth in range(1, len(path) + 1):
            thing = self.tree.get(path[:depth])
            if thing is None or thing.kind != "d":
                self.tree[path[:depth]] = Thing("d")

    def apply(self, layer: list[Entry]) -> None:
        before = Model(dict(self.tree))
        explicit = {tuple(entry.path.split(b"/")) for entry in layer if entry.kind is Kind.DIRECTORY}
        for entry in layer:
            *parents, name = entry.path.split(b"/")
            if not name.startswith(b".wh."):
                continue
            if any(
                tuple(parents[:depth]) in explicit and self._is_link(tuple(parents[:depth]))
                for depth in range(1, len(parents) + 1)
            ):
                continue  # this layer puts a directory where the link is: what the link leads to is not meant
            where = self.real(tuple(parents))
            if where and (where not in self.tree or self.tree[where].kind != "d"):
                continue
            if name == b".wh..wh..opq":
                self.remove(where, itself=False)
            else:
                self.remove((*where, name.removeprefix(b".wh.")), itself=True)
        for entry in layer:
            *parents, name = entry.path.split(b"/")
            if not name.startswith(b".wh."):
                self._put(entry, self.real(tuple(parents)), name, before)

    def _is_link(self, path: Parts) -> bool:
        thing = self.tree.get((*self.real(path[:-1]), path[-1]))
        return thing is not None and thing.kind == "l"

    def _put(self, entry: Entry, where: Parts, name: bytes, before: Model) -> None:
        self.make_directories(where)
        path = (*where, name)
        old = self.tree.get(path)
        if entry.kind is Kind.DIRECTORY:
            if old is None or old.kind != "d":
                self.tree[path] = Thing("d")
            return
        if entry.kind is Kind.HARDLINK:
            thing = self._target(entry.target) or before._target(entry.target)
            if thing is None or thing.kind == "d":
                raise Refused
            if thing is old and entry.target == entry.path:
                raise Refused
        else:
            thing = Thing({Kind.FILE: "f", Kind.SYMLINK: "l"}[entry.kind], entry.target or b"%d" % entry.offset)
        self.remove(path, itself=True)
        self.tree[path] = thing

    def _target(self, target: bytes) -> Thing | None:
        *parents, name = target.split(b"/")
        return self.tree.get((*self.real(tuple(parents)), name))


def merged_by_model(layers: list[list[Entry]]) -> dict[bytes, tuple[str, bytes, int]] | None:
    model = Model()
    try:
        for layer in layers:
            model.apply(layer)
    except Refused:
        return None
    first: dict[int, int] = {}
    return {
        b"/".join(path): (thing.kind, thing.content, first.setdefault(id(thing), index))
        for index, (path, thing) in enumerate(sorted(model.tree.items()))
    }


def merged_by_us(layers: list[list[Entry]]) -> dict[bytes, tuple[str, bytes, int]] | None:
    merge = Merge()
    try:
        for number, layer in enumerate(layers):
            merge.add([replace(entry) for entry in layer], subject=f"layer {number}")  # it alters them
        found = [entry for entry in merge.entries() if entry.path]
    except BadPath:
        return None
    found.sort(key=lambda entry: entry.path.split(b"/"))
    place = {entry.path: index for index, entry in enumerate(found)}
    by_path = {entry.path: entry for entry in found}
    result = {}
    for entry in found:
        node = by_path[entry.target] if entry.kind is Kind.HARDLINK else entry
        content = {Kind.FILE: b"%d" % node.offset, Kind.SYMLINK: node.target}.get(node.kind, b"")
        result[entry.path] = (node.kind.value, content, place[node.path])
    return result


names = st.lists(st.sampled_from([b"a", b"b", b"l"]), min_size=1, max_size=3)
paths = names.map(b"/".join)
targets = st.sampled_from([b"a", b"/a", b"b/a", b"../b", b"l", b"/a/b", b"none", b".."])
marks = st.builds(
    lambda parents, mark: b"/".join([*parents, mark]),
    st.lists(st.sampled_from([b"a", b"b", b"l"]), max_size=2),
    st.sampled_from([b".wh.a", b".wh.b", b".wh.l", b".wh..wh..opq"]),
)
entries = st.one_of(
    st.builds(lambda path, offset: Entry(path, Kind.FILE, offset=offset), paths, st.integers(1, 99)),
    st.builds(lambda path: Entry(path, Kind.DIRECTORY), paths),
    st.builds(lambda path, target: Entry(path, Kind.SYMLINK, target=target), paths, targets),
    st.builds(lambda path, target: Entry(path, Kind.HARDLINK, target=target), paths, paths),
    st.builds(lambda path: Entry(path, Kind.FILE), marks),
)
stacks = st.lists(st.lists(entries, max_size=6), min_size=1, max_size=4)


@fuzz(600)
@given(stacks)
@example(
    [[Entry(b"a/l", Kind.FILE, offset=1)], [Entry(b"a/.wh.l", Kind.FILE), Entry(b"b", Kind.HARDLINK, target=b"a/l")]]
)
@example([[Entry(b"l", Kind.SYMLINK, target=b"l")], [Entry(b"l/.wh.a", Kind.FILE)]])
def test_fuzz_merge_is_that_of_the_model(layers: list[list[Entry]]) -> None:
    with ends():
        assert merged_by_us(layers) == merged_by_model(layers)


@fuzz(150)
@given(stacks, st.randoms(use_true_random=False))
def test_fuzz_whiteouts_may_stand_anywhere_in_their_layer(layers: list[list[Entry]], random: object) -> None:
    def shuffled(layer: list[Entry]) -> list[Entry]:
        """The same entries in their order, the whiteouts at other places among them."""
        marks = [entry for entry in layer if b".wh." in entry.path]
        others = [entry for entry in layer if b".wh." not in entry.path]
        for mark in marks:
            others.insert(random.randint(0, len(others)), mark)  # type: ignore[attr-defined]
        return others

    assert merged_by_us([shuffled(layer) for layer in layers]) == merged_by_us(layers)


@fuzz(8)
@given(st.lists(st.dictionaries(paths, st.binary(max_size=9), max_size=4), min_size=1, max_size=3))
def test_fuzz_merge_through_the_store_is_that_of_the_last_writer(layers: list[dict[bytes, bytes]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        tars = [tar_of(layer) for layer in layers]
        layout = write_layout(Path(directory) / "layout", {"t": image_of(*tars)})
        env = Env(Store(Path(directory) / "store"))
        result = unpack.run(unpack.UnpackParams(fetch.run(fetch.FetchParams(f"oci:{layout}:t"), env)), env)
        found = {path: fact.sha256 for path, fact in facts.of_tree(result, env).items() if fact.kind == "f"}
    model: dict[bytes, bytes] = {}
    for layer in layers:
        for path, content in layer.items():
            parts = path.split(b"/")
            above = {b"/".join(parts[:depth]) for depth in range(1, len(parts))}
            model = {n: c for n, c in model.items() if n not in above and not n.startswith(path + b"/")}
            model[path] = content
    assert found == {path: facts.digest(content) for path, content in model.items()}
