"""Debian packages as inputs: the words every stage shares. A lock names each .deb by its sha256."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.errors import PipelineError
from pipeline.oci import Descriptor, Digest

DEB = "application/vnd.debian.binary-package"


@dataclass(frozen=True)
class LockedPackage:
    """One .deb: what it is called, where it was, and the hash that says which bytes it has.

    stanza: its paragraph of the archive's Packages file, as signed; a flat repository is rebuilt from these.
    """

    name: str
    version: str
    architecture: str
    filename: str
    sha256: str
    size_bytes: int
    uri: str
    stanza: str

    @property
    def descriptor(self) -> Descriptor:
        """The .deb as a blob of the store."""
        return Descriptor(DEB, Digest("sha256", self.sha256), self.size_bytes)


@dataclass(frozen=True)
class PackageLock:
    """The packages a request came to, at one moment.

    suite, include, essential: the request. packages: its closure, sorted by name.
    epoch: newest Date of the Release files it was made from; SOURCE_DATE_EPOCH of everything built from it.
    """

    suite: str
    include: tuple[str, ...]
    essential: bool
    architecture: str
    epoch: int
    packages: tuple[LockedPackage, ...]

    def package(self, name: str) -> LockedPackage:
        """The package called `name`; raises NotLocked."""
        for package in self.packages:
            if package.name == name:
                return package
        raise NotLocked(f"package {name}", expected=f"it among the locked packages of {self.suite}", got="not there")

    def digests(self) -> dict[str, str]:
        """`name_version_architecture` -> sha256: what an action key says about a lock."""
        return {f"{item.name}_{item.version}_{item.architecture}": item.sha256 for item in self.packages}


class NotLocked(PipelineError):
    """A package a lock should have and has not."""


class BadStanza(PipelineError):
    """A paragraph of a Packages file without a field it must have."""


def fields_of(stanza: str) -> dict[str, str]:
    """The fields of one paragraph, continuation lines joined by newlines.

    Source:  deb-control(5); Debian policy, 5.1 "Syntax of control files".
    """
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1] in (" ", "\t") and name:
            fields[name] += "\n" + line[1:]
        elif ":" in line and not line.startswith("#"):
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def paragraphs(text: str) -> Iterable[str]:
    """The paragraphs of a control file, which blank lines part."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.strip():
            lines.append(line)
        elif lines:
            yield "\n".join(lines) + "\n"
            lines = []
    if lines:
        yield "\n".join(lines) + "\n"


def locked(stanza: str, uri: str) -> LockedPackage:
    """A locked package from its paragraph and the URI apt would fetch it from; raises BadStanza."""
    fields = fields_of(stanza)
    missing = [key for key in ("Package", "Version", "Architecture", "Filename", "Size", "SHA256") if key not in fields]
    if missing or not fields["Size"].isdigit():
        raise BadStanza(
            f"package {fields.get('Package', '?')}", expected=f"the fields {', '.join(missing) or 'Size'}", got="none"
        )
    return LockedPackage(
        name=fields["Package"],
        version=fields["Version"],
        architecture=fields["Architecture"],
        filename=fields["Filename"],
        sha256=Digest.parse(f"sha256:{fields['SHA256']}").hex,
        size_bytes=int(fields["Size"]),
        uri=uri,
        stanza=stanza,
    )
