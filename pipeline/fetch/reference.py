"""Image references, in skopeo's transport names.

    docker://HOST[:PORT]/REPO[:TAG][@DIGEST]     also without "docker://"; Docker Hub's short names (nginx, user/app)
    oci:DIR[:TAG]  oci:DIR@DIGEST                an OCI image layout
    oci-archive:FILE[:TAG]                       the same as a tar; FILE@DIGEST too
    docker-archive:FILE[:NAME[:TAG]]             what `docker save` writes
    recipe:NAME                                  built here, under the name recipe/NAME of the store

Source:  distribution reference grammar (reference.go); containers-transports(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.fetch.errors import BadReference
from pipeline.oci import BadDigest, Digest

HUB = "docker.io"
HUB_API_HOST = "registry-1.docker.io"
HUB_ALIASES = ("docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_HOST = re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_RECIPE = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class RegistryReference:
    """An image in a registry. At least one of tag and digest is given; the digest decides where both are."""

    host: str  # with the port, where one was given
    repository: str
    tag: str = ""
    digest: Digest | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"docker://{self.host}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def api_host(self) -> str:
        """The host that answers: Docker Hub's has another name than its images."""
        return HUB_API_HOST if self.host == HUB else self.host

    @property
    def loopback(self) -> bool:
        """Does the host name this machine? Only then plain HTTP is spoken."""
        return is_loopback(self.host)


@dataclass(frozen=True)
class LayoutReference:
    """An image in an OCI layout directory; without a tag or digest the only one there."""

    directory: str
    tag: str = ""
    digest: Digest | None = None

    def __str__(self) -> str:
        return (
            f"oci:{self.directory}" + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")
        )


@dataclass(frozen=True)
class RecipeReference:
    """An image or kernel built here; its name in the store is recipe/NAME or kernel/NAME."""

    name: str

    def __str__(self) -> str:
        return f"recipe:{self.name}"


@dataclass(frozen=True)
class ArchiveReference:
    """An image in a tar file: an OCI layout (`oci-archive`), or what `docker save` writes (`docker-archive`).

    name:  the tag in an OCI archive, NAME[:TAG] in a Docker one; without it the only image there.
    """

    transport: str
    file: str
    name: str = ""
    digest: Digest | None = None

    def __str__(self) -> str:
        name = f":{self.name}" if self.name else ""
        return f"{self.transport}:{self.file}{name}" + (f"@{self.digest}" if self.digest else "")


Reference = RegistryReference | LayoutReference | ArchiveReference | RecipeReference
ARCHIVES = ("oci-archive", "docker-archive")
TRANSPORTS = "docker://…, oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE or recipe:NAME"


def is_loopback(host: str) -> bool:
    """Is `host` (with or without a port) localhost or a loopback address? No name is looked up."""
    match = _HOST.fullmatch(host)
    name = (match["name"] if match else host).strip("[]")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    import ipaddress  # not where a reference is only parsed

    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def parse(text: str) -> Reference:
    """Parse a reference. Raises BadReference."""
    transport, colon, rest = text.partition(":")
    if colon and transport == "oci":
        return _layout(text, rest)
    if colon and transport in ARCHIVES:
        return _archive(text, transport, rest)
    if colon and transport == "recipe":
        if not _RECIPE.fullmatch(rest):
            raise _bad(text, "recipe:NAME")
        return RecipeReference(rest)
    if colon and transport == "docker":
        if not rest.startswith("//"):
            raise _bad(text, "docker://HOST/REPO[:TAG][@DIGEST]")
        return _registry(text, rest[2:])
    if "://" in text or (colon and transport in ("docker-daemon", "dir", "containers-storage", "sif", "ostree")):
        raise _bad(text, TRANSPORTS)
    return _registry(text, text)


def _registry(text: str, rest: str) -> RegistryReference:
    name, digest = _split_digest(text, rest)
    first, slash, others = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, path = first, others
    else:
        host, path = HUB, name
    repository, colon, tag = path.partition(":")
    host_match = _HOST.fullmatch(host)
    if host_match is None or int(host_match["port"] or 1) not in range(1, 65536):
        raise _bad(text, "a host name or address, with or without a port")
    if host in HUB_ALIASES:
        host = HUB
        repository = repository if "/" in repository else f"library/{repository}"
    if not _REPOSITORY.fullmatch(repository) or len(repository) > 255:
        raise _bad(text, "a repository of lower-case names joined by slashes")
    if colon and not _TAG.fullmatch(tag):
        raise _bad(text, "a tag of letters, digits, '_', '.' and '-', at most 128")
    return RegistryReference(host, repository, tag or ("" if digest else "latest"), digest)


def _layout(text: str, rest: str) -> LayoutReference:
    name, digest = _split_digest(text, rest)
    directory, _, tag = name.partition(":")
    if not directory:
        raise _bad(text, "oci:DIR[:TAG]")
    return LayoutReference(directory, tag, digest)


def _archive(text: str, transport: str, rest: str) -> ArchiveReference:
    rest, digest = _split_digest(text, rest)
    file, _, name = rest.partition(":")
    if not file:
        raise _bad(text, "oci-archive:FILE[:TAG] or docker-archive:FILE[:NAME[:TAG]]")
    if transport == "docker-archive" and name:
        _registry(text, name)  # has to be a name that `docker save` could have written
    return ArchiveReference(transport, file, name, digest)


def _split_digest(text: str, rest: str) -> tuple[str, Digest | None]:
    name, at, digest = rest.partition("@")
    if not at:
        return name, None
    try:
        return name, Digest.parse(digest)
    except BadDigest as error:
        raise _bad(text, error.expected) from error


def _bad(text: str, expected: str) -> BadReference:
    return BadReference(f"image reference {text!r}", expected=expected, got="something else")
