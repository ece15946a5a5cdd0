"""Addresses of hosts, read: where a zoned is and by which way it is reached."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.errors import RuntimeFault

SOCKET = Path("/run/zonewright/zoned.sock")
OWN = "host xen"
TLS_PORT = 4354
CONTROL_DOMAIN_FLAG = Path("/proc/xen/capabilities")
FORMS = "xen, lab[:NAME], unix:PATH, ssh://[USER@]HOST[:PORT] or tls://HOST[:PORT]"
LAB = re.compile(r"lab(?::(?P<name>[A-Za-z0-9][\w.-]{0,99}))?")
# A host's name must not begin with a dash: ssh would read an option in it.
REMOTE = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][\w.-]*)@)?(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>[A-Za-z0-9][\w.-]*))"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)
# Of a client's directory of credentials.
CA, CERTIFICATE, KEY = "ca.pem", "client.pem", "client.key"


class BadHostAddress(RuntimeFault):
    """An address of a host that no way leads to."""


@dataclass(frozen=True)
class Credentials:
    """What a TLS client shows, and whom it believes: files of `directory`."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.directory / CA

    @property
    def certificate(self) -> Path:
        return self.directory / CERTIFICATE

    @property
    def key(self) -> Path:
        return self.directory / KEY


@dataclass(frozen=True)
class Endpoint:
    """One way to one zoned.

    name:        as the user named it; errors begin with it.
    path:        of a unix socket. host, port: of tls and ssh (0: ssh's own default). user: of ssh; may be empty.
    credentials: of tls.
    """

    name: str
    scheme: Literal["unix", "ssh", "tls"]
    path: Path = SOCKET
    host: str = ""
    port: int = 0
    user: str = ""
    credentials: Credentials | None = None

    @property
    def is_own(self) -> bool:
        """Is it this machine's own zoned?"""
        return self.scheme == "unix" and self.name == OWN


def host_name(name: str | None = None) -> str:
    """`name`, else $ZONE_HOST, else xen on a control domain, else lab."""
    return name or os.environ.get("ZONE_HOST") or ("xen" if is_control_domain() else "lab")


def lab_name(address: str) -> str | None:
    """Which lab an address means: its name, "" for the one its flavour names; None where it means no lab."""
    match = LAB.fullmatch(address)
    return None if match is None else match["name"] or ""


def is_control_domain() -> bool:
    """Is this machine a control domain of Xen?"""
    try:
        return "control_d" in CONTROL_DOMAIN_FLAG.read_text()
    except OSError:
        return False


def endpoint_of(address: str | None = None) -> Endpoint:
    """The endpoint of an address; see `host_name` for the default. Raises BadHostAddress; LabDown."""
    name = host_name(address)
    if name == "xen":
        return Endpoint(OWN, "unix")
    if (lab := lab_name(name)) is not None:
        from runtime.host.lab.reach import lab_endpoint, state_directory

        return lab_endpoint(state_directory(lab) if lab else None)
    scheme, colon, rest = name.partition(":")
    if colon and scheme == "unix" and rest:
        return Endpoint(name, "unix", path=Path(rest))
    if colon and scheme in ("ssh", "tls") and rest.startswith("//"):
        return _remote(name, scheme, rest[2:])
    raise BadHostAddress(f"host {name!r}", expected=FORMS, got="another address")


def _remote(name: str, scheme: str, rest: str) -> Endpoint:
    match = REMOTE.fullmatch(rest)
    if match is None or int(match["port"] or 0) > 65535 or match["port"] == "0":
        raise BadHostAddress(f"host {name!r}", expected=FORMS, got="no host and port that can be read")
    host, port, user = match["six"] or match["host"], int(match["port"] or 0), match["user"] or ""
    if scheme == "ssh":
        return Endpoint(name, "ssh", host=host, port=port, user=user)
    if user:
        raise BadHostAddress(f"host {name!r}", expected="no user: the certificate says who asks", got=f"user {user}")
    try:
        host.encode("idna")  # as asyncio and TLS do, which would fail by this without a word of the address
    except UnicodeError as error:
        raise BadHostAddress(f"host {name!r}", expected=FORMS, got=f"no name a host can have: {error}") from error
    port = port or TLS_PORT
    return Endpoint(name, "tls", host=host, port=port, credentials=Credentials(credentials_directory(host, port)))


def config_directory() -> Path:
    """$XDG_CONFIG_HOME/zonewright, else ~/.config/zonewright."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "zonewright"


def credentials_directory(host: str, port: int) -> Path:
    """Where the credentials for a host lie: tls/HOST:PORT or tls/HOST of the config directory, else tls itself."""
    base = config_directory() / "tls"
    for name in (f"{host}:{port}", host):
        if (base / name).is_dir():
            return base / name
    return base
