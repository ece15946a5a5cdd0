"""May these sets of names be laid over each other? Decided before any of them is written."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline import newc
from pipeline.assemble.errors import Clash
from pipeline.tree import Entry, Kind, printable
from pipeline.zonebase import OVERLAY

_WORDS = {Kind.FILE: "a file", Kind.HARDLINK: "a file", Kind.DIRECTORY: "a directory", Kind.SYMLINK: "a symlink"}


@dataclass(frozen=True, slots=True)
class Claim:
    """A name some image brings. what: in words; linked: it is one of several names of a file."""

    path: bytes
    what: str
    linked: bool = False

    @property
    def directory(self) -> bool:
        return self.what == "a directory"


@dataclass(frozen=True)
class Claimant:
    """An image and its names. override: its files may replace those of images before it."""

    owner: str
    claims: Sequence[Claim]
    override: bool = False


def refuse_clashes(claimants: Iterable[Claimant], *, zone: str) -> None:
    """Each path from one image, unless a later one may override it; a directory stays a directory.

    Raises:  Clash naming the path and both images.
    """
    taken: dict[bytes, tuple[Claim, str]] = {}
    for claimant in claimants:
        for claim in claimant.claims:
            there = taken.get(claim.path)
            if there is not None and there[1] != claimant.owner:
                _check(claim, claimant, *there, zone)
            taken[claim.path] = (claim, claimant.owner)


def _check(claim: Claim, claimant: Claimant, there: Claim, owner: str, zone: str) -> None:
    subject = f"zone {zone}: /{printable(claim.path.removeprefix(OVERLAY))}"
    if claim.directory and there.directory:
        return
    if claim.directory or there.directory:
        got = f"{there.what} in {owner} and {claim.what} in {claimant.owner}"
        raise Clash(subject, expected="the same type of file from every image", got=got)
    if not claimant.override:
        hint = f"{{ image = {claimant.owner!r}, override = true }} would let the second replace it".replace("'", '"')
        raise Clash(subject, expected="one image that has it", got=f"{owner} and {claimant.owner}", hint=hint)
    if there.linked:
        # The kernel would write through to the other names of the file that is there.
        got = f"a hard link in {owner}, to be replaced by {claimant.owner}"
        raise Clash(subject, expected="no hard link where another image overrides", got=got)


def tree_claims(entries: Iterable[Entry]) -> list[Claim]:
    """The names of a merged tree, its root left out."""
    entries = list(entries)
    linked = {entry.target for entry in entries if entry.kind is Kind.HARDLINK}
    return [
        Claim(
            entry.path,
            _WORDS.get(entry.kind, "a device node"),
            entry.kind is Kind.HARDLINK or entry.path in linked,
        )
        for entry in entries
        if entry.path
    ]


def segment_claims(entries: Iterable[newc.Entry]) -> list[Claim]:
    """The names of an initrd segment."""
    words = {stat.S_IFREG: "a file", stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symlink"}
    return [
        Claim(
            entry.path.encode("utf-8", "surrogateescape"),
            words.get(stat.S_IFMT(entry.mode), "a device node"),
            bool(entry.hardlink),
        )
        for entry in entries
    ]
