"""Which mirrors this machine uses: parsed from its own apt sources, so that no mirror is named in the project."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.debian import fields_of, paragraphs
from pipeline.errors import PipelineError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
ROLLING = ("sid", "unstable", "experimental")

# `trixie`, `stable`, `bookworm-security`, and the form before bullseye, `buster/updates`.
_SUITE = re.compile(r"(?P<release>[a-z]+)(?P<pocket>-updates|-security|-backports|-proposed-updates|/updates)?/?")
_FETCHABLE = ("http://", "https://", "file:/")


@dataclass(frozen=True)
class Source:
    """One line's worth of apt sources: what is served where."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""


@dataclass(frozen=True)
class Mirrors:
    """Where Debian's main archive and its security archive are."""

    main: str
    security: str | None


class NoMirror(PipelineError):
    """No Debian mirror in the apt configuration of this machine."""


def parse_list(text: str) -> Iterator[Source]:
    """Sources of a one-line-style file. Source: sources.list(5)."""
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        match = re.fullmatch(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<rest>.+)", line)
        if match is None:
            continue
        words = match["rest"].split()
        options = dict(word.partition("=")[::2] for word in shlex.split(match["options"] or ""))
        if len(words) >= 2:
            yield Source(words[0], words[1], tuple(words[2:]), options.get("signed-by", ""))


def parse_deb822(text: str) -> Iterator[Source]:
    """Sources of a deb822-style file. Source: sources.list(5)."""
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for paragraph in paragraphs(text):
        fields = {name.lower(): value for name, value in fields_of(paragraph).items()}
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, tuple(fields.get("components", "").split()), fields.get("signed-by", ""))


def read_sources(etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """All sources of this machine, in apt's order."""
    sources: list[Source] = []
    parts = sorted((etc_apt / "sources.list.d").glob("*")) if (etc_apt / "sources.list.d").is_dir() else []
    for path in [etc_apt / "sources.list", *parts]:
        parse = {".list": parse_list, ".sources": parse_deb822}.get(path.suffix)
        if parse is not None and path.is_file():
            sources += parse(path.read_text(encoding="utf-8", errors="replace"))
    return [fetchable for source in sources if (fetchable := _resolve_mirror_file(source)) is not None]


def _resolve_mirror_file(source: Source) -> Source | None:
    """Cloud images name a file that lists mirrors (`mirror+file:/…`): take its first. None where we cannot fetch."""
    uri = source.uri
    if uri.startswith("mirror+file:"):
        listing = Path("/" + uri.removeprefix("mirror+file:").lstrip("/"))
        lines = listing.read_text().split("\n") if listing.is_file() else []
        uri = next((line.split()[0] for line in lines if line.strip() and not line.startswith("#")), "")
    return Source(uri, source.suite, source.components, source.signed_by) if uri.startswith(_FETCHABLE) else None


def choose_mirrors(sources: Iterable[Source]) -> Mirrors:
    """The mirrors of Debian's archive and of its security archive among all sources.

    Others serve suites called `bookworm`, too. Debian's own is told by its keyring, or by having none named, and by
    its component `main`; apt checks the signature against Debian's keyring whatever was chosen here.
    Raises:  NoMirror.
    """
    found: dict[bool, list[tuple[int, str]]] = {True: [], False: []}
    for source in sources:
        match = _SUITE.fullmatch(source.suite)
        foreign = bool(source.signed_by) and "debian-archive" not in source.signed_by
        if match is None or "main" not in source.components or foreign:
            continue
        is_security = match["pocket"] in ("-security", "/updates")
        rank = (0 if source.signed_by else 1) + (0 if match["pocket"] in (None, "-security") else 2)
        found[is_security].append((rank, source.uri.rstrip("/")))
    if not found[False]:
        raise NoMirror(
            "apt sources",
            expected="a Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d (component main)",
            got="none",
            hint="add one, for example a debian.sources file",
        )
    # min() keeps the first of equals: apt's order decides among them.
    main = min(found[False], key=lambda item: item[0])[1]
    security = min(found[True], key=lambda item: item[0])[1] if found[True] else None
    return Mirrors(main, security)


def source_lines(mirrors: Mirrors, suite: str, *, keyring: str = KEYRING) -> str:
    """A sources.list for one release: the suite, its updates, its security suite."""
    options = f"[signed-by={keyring}]"
    lines = [f"deb {options} {mirrors.main} {suite} main"]
    if suite not in ROLLING:
        lines.append(f"deb {options} {mirrors.main} {suite}-updates main")
        if mirrors.security:
            lines.append(f"deb {options} {mirrors.security} {suite}-security main")
    return "\n".join(lines) + "\n"
