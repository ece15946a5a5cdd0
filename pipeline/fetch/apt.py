"""A private apt: its own directories and sources, nothing installed as far as it knows, any user may run it."""

from __future__ import annotations

import email.utils
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from pipeline import tool
from pipeline.debian import LockedPackage, fields_of, locked, paragraphs
from pipeline.errors import PipelineError

UPDATE_TIMEOUT_S = 600.0
QUERY_TIMEOUT_S = 120.0

_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# What of the system's apt configuration is about reaching the mirror, rather than about this system's packages.
_KEPT = re.compile(r"Acquire::(?:https?::|Check-Date|Check-Valid-Until|ForceIPv[46])")


class MirrorUnreachable(PipelineError):
    """The package lists could not be had, or were not signed as they must be."""


class NoSuchPackage(PipelineError):
    """A package of a request that the suite does not have, or whose dependencies it cannot satisfy."""


def system_settings() -> list[str]:
    """The lines of the system's apt configuration about proxies, TLS and dates."""
    dump = tool.run([tool.find("apt-config", package="apt"), "dump", "--format", '%F "%v";%n'], timeout_s=30)
    return [line for line in dump.decode(errors="replace").splitlines() if _KEPT.match(line)]


def first_complaint(said: str) -> str:
    """Of the lines apt ended with, the first error: those after it say the same of other files."""
    lines = [line for line in said.split(" | ") if "E: " in line]
    return " ".join(lines[0].rpartition("E: ")[2].split()) if lines else said


@cache
def proxies() -> dict[str, str]:
    """`http`/`https` -> proxy of the system's apt configuration; asked once per process."""
    found = (re.match(r'Acquire::(https?)::Proxy "(.+)";', line) for line in system_settings())
    return {match[1]: match[2] for match in found if match and match[2] != "DIRECT"}


@dataclass(frozen=True)
class PrivateApt:
    """apt with everything it reads and writes below `root`."""

    root: Path
    architecture: str = "amd64"

    def configure(self, sources: str, settings: Sequence[str] = ()) -> None:
        """Write its configuration; kept package lists stay usable."""
        for name in ("lists/partial", "cache/archives/partial", "state", "etc"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "status").write_text("")
        (self.root / "sources.list").write_text(sources)
        options = {
            "Dir::Etc": self.root / "etc",
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::Parts": "/dev/null",
            "Dir::Etc::SourceList": self.root / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": self.root / "state",
            "Dir::State::Lists": self.root / "lists",
            "Dir::State::status": self.root / "status",
            "Dir::Cache": self.root / "cache",
            "APT::Architecture": self.architecture,
            "APT::Sandbox::User": "root",
            "APT::Install-Recommends": "false",
            "APT::Install-Suggests": "false",
            # Else a list that could not be had is a warning, and the old one is used.
            "APT::Update::Error-Mode": "any",
            "Debug::NoLocking": "1",
            # apt counts itself among `?essential` unless this list is another one; a zone needs no apt.
            "pkgCacheGen::ForceEssential": ",",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "20",
            "Acquire::https::Timeout": "20",
        }
        lines = [f'{key} "{value}";' for key, value in options.items()]
        lines.append(f'APT::Architectures {{ "{self.architecture}"; }};')
        (self.root / "apt.conf").write_text("\n".join([*lines, *settings]) + "\n")

    def update(self, subject: str) -> None:
        """Fetch the package lists; apt checks signatures and hashes. Raises MirrorUnreachable."""
        try:
            self._run("apt-get", "-qq", "update", timeout_s=UPDATE_TIMEOUT_S)
        except tool.ToolFailed as error:
            raise MirrorUnreachable(
                subject,
                expected="signed package lists from the mirror",
                got=first_complaint(error.got),
                hint="check the network, the proxy and /etc/apt/sources.list*, and run again; "
                "what is locked in build/lock and kept in the store needs no mirror",
                temporary=True,
            ) from error

    def epoch(self) -> int:
        """The newest Date of the Release files now in use, in seconds since 1970."""
        dates = [
            email.utils.parsedate_to_datetime(line.partition(":")[2].strip())
            for path in sorted((self.root / "lists").glob("*_InRelease"))
            for line in path.read_text(errors="replace").splitlines()
            if line.startswith("Date:")
        ]
        return int(max(date.timestamp() for date in dates))

    def closure(self, include: Sequence[str], *, essential: bool, subject: str) -> list[LockedPackage]:
        """Every package that installing `include` on an empty system would bring, sorted by name.

        Raises:  NoSuchPackage.
        """
        wanted = [*include, *(["?essential"] if essential else [])]
        try:
            out = self._run("apt-get", "-qq", "-y", "--print-uris", "install", "--", *wanted)
        except tool.ToolFailed as error:
            raise NoSuchPackage(
                subject, expected=f"{', '.join(include)} and what they depend on", got=error.got
            ) from error
        # 'URI' name_version_architecture.deb size hash, the version with its colon as %3a
        uris: dict[tuple[str, str], str] = {}
        for line in out.decode().splitlines():
            if match := re.match(r"'(?P<uri>[^']+)' (?P<name>[^_ ]+)_(?P<version>[^_ ]+)_[a-z0-9]+\.deb ", line):
                uris[match["name"], unquote(match["version"])] = match["uri"]
        if not uris:
            raise NoSuchPackage(subject, expected="packages to install", got="none")
        shown = self._run("apt-cache", "show", "--", *(f"{name}={version}" for name, version in uris))
        packages: dict[tuple[str, str], LockedPackage] = {}
        for stanza in paragraphs(shown.decode()):
            fields = fields_of(stanza)
            key = (fields.get("Package", ""), fields.get("Version", ""))
            # One version may come from two suites; the one apt would take is the one whose file it named.
            if key in uris and unquote(uris[key]).endswith("/" + fields.get("Filename", "?").removeprefix("./")):
                packages.setdefault(key, locked(stanza, uris[key]))
        if missing := sorted(set(uris) - set(packages)):
            raise NoSuchPackage(subject, expected="a Packages entry for each package", got=f"none for {missing[0][0]}")
        return sorted(packages.values(), key=lambda package: (package.name, package.architecture))

    def _run(self, program: str, *arguments: str, timeout_s: float = QUERY_TIMEOUT_S) -> bytes:
        proxies = {name: os.environ[name] for name in _PROXIES if name in os.environ}
        environment = {"APT_CONFIG": str(self.root / "apt.conf"), **proxies}
        return tool.run([tool.find(program, package="apt"), *arguments], timeout_s=timeout_s, env=environment)
