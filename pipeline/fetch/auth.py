"""Who we are to a registry: challenges, and credentials from docker's config.json.

Source:  RFC 9110, 11; docker's config.json ("auths", "credHelpers", "credsStore").
No secret of these leaves this module except inside a header value or a form sent to a token server.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.fetch import helper
from pipeline.fetch.errors import RegistryError
from pipeline.fetch.reference import HUB, HUB_ALIASES

TOKEN_USER = "<token>"  # a program's user name that says: the secret is an identity token
HUB_CONFIG_KEY = "https://index.docker.io/v1/"
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"\s*,?\s*({_TOKEN})(?=\s|$|,)")
_TOKEN68 = re.compile(r" +[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$))")
_PARAMETER = re.compile(rf"\s*,?\s*({_TOKEN})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+))")


@dataclass(frozen=True)
class Challenge:
    """One challenge of a WWW-Authenticate header; scheme and parameter names in lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def challenges(header: str) -> list[Challenge]:
    """All challenges of a WWW-Authenticate header; what cannot be parsed ends the list."""
    found: list[Challenge] = []
    at = 0
    while at < len(header):
        parameter = _PARAMETER.match(header, at)
        if parameter and found:
            value = parameter[2] if parameter[2] is not None else parameter[3]
            found[-1].parameters[parameter[1].lower()] = re.sub(r"\\(.)", r"\1", value)
            at = parameter.end()
            continue
        scheme = _SCHEME.match(header, at)
        if scheme is None:
            break
        found.append(Challenge(scheme[1].lower()))
        token68 = _TOKEN68.match(header, scheme.end())  # what some schemes have instead of parameters
        at = token68.end() if token68 else scheme.end()
    return found


@dataclass(frozen=True)
class Credentials:
    """A user and a password, an identity token to get tokens with, or such a token. Its repr shows none."""

    user: str = field(repr=False)
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def config_path() -> Path:
    """Docker's config.json: $DOCKER_CONFIG, else ~/.docker."""
    directory = os.environ.get("DOCKER_CONFIG")
    return (Path(directory) if directory else Path.home() / ".docker") / "config.json"


def credentials(host: str, path: Path | None = None, *, timeout_s: float = helper.TIMEOUT_S) -> Credentials | None:
    """What docker's config has for a registry host: inline, or kept by a credential program. None where it has nothing.

    timeout_s: how long a program may take.
    Raises:    RegistryError for a file that is not JSON, and for a program that does not do its work.
    """
    path = path or config_path()
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (ValueError, RecursionError):
        # Without `from`: the parse error quotes the file, which holds secrets.
        raise RegistryError(str(path), expected="JSON, as docker login writes it", got="something else") from None
    if not isinstance(document, dict):
        return None
    auths = document.get("auths")
    names = [HUB_CONFIG_KEY, *HUB_ALIASES] if host == HUB else [host, f"https://{host}", f"http://{host}"]
    for name in names:
        entry = auths.get(name) if isinstance(auths, dict) else None
        if isinstance(entry, dict) and (found := _inline(entry)) is not None:
            return found
    kept = helper.ask(document, [HUB_CONFIG_KEY, *HUB_ALIASES[:2]] if host == HUB else [host], timeout_s=timeout_s)
    if kept is None:
        return None
    user, secret = kept
    return Credentials("", "", secret) if user == TOKEN_USER else Credentials(user, secret)


def _inline(entry: dict[str, object]) -> Credentials | None:
    token = entry.get("identitytoken")
    user, password = entry.get("username"), entry.get("password")
    if isinstance(entry.get("auth"), str):
        try:
            text = base64.b64decode(str(entry["auth"]), validate=True).decode().rstrip("\0")
        except (binascii.Error, UnicodeDecodeError):
            return None
        user, colon, password = text.partition(":")
        if not colon:
            return None
    if isinstance(token, str) and token:
        return Credentials(str(user or ""), "", token)
    if isinstance(ready := entry.get("registrytoken"), str) and ready.isascii() and ready.isprintable() and ready:
        return Credentials("", "", "", ready)
    return Credentials(user, password) if isinstance(user, str) and user and isinstance(password, str) else None
