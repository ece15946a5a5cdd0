"""Where a repository is asked for: the mirrors of its registry, then the registry itself. Pure, from settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config import RegistryConfig
from pipeline.fetch.connections import Tls
from pipeline.fetch.errors import BadReference, RegistryError
from pipeline.fetch.reference import HUB, HUB_ALIASES, RegistryReference, is_loopback, parse

# Registries whose token server, by design, is another host.
TOKEN_HOSTS = {HUB: ("auth.docker.io",), "registry.gitlab.com": ("gitlab.com",)}
_MIRROR = re.compile(r"(?P<host>[^/\s@]+)(?:/(?P<prefix>[^\s@]*?))?/?")


@dataclass(frozen=True)
class Endpoint:
    """One repository at one host.

    host:        as settings and credentials name it, with its port.
    base:        the URL everything of the repository is below.
    token_hosts: who, besides the host itself, may see its credentials.
    """

    host: str
    repository: str
    base: str
    mirror: bool = False
    token_hosts: tuple[str, ...] = ()


def endpoints(reference: RegistryReference, registries: Mapping[str, RegistryConfig]) -> tuple[Endpoint, ...]:
    """Whom to ask, in order; the registry itself comes last. Raises RegistryError for a mirror that is no host."""
    own = _settings(reference.host, registries)
    found = [_mirror(text, reference, registries) for text in own.mirrors]
    home = f"{_scheme(reference.host, own)}://{reference.api_host}/v2/{reference.repository}"
    trusted = (*TOKEN_HOSTS.get(reference.host, ()), *own.token_hosts)
    return (*found, Endpoint(reference.host, reference.repository, home, False, trusted))


def tls_by_host(registries: Mapping[str, RegistryConfig]) -> dict[str, Tls]:
    """What TLS takes from the settings, by the host that is connected to."""
    found: dict[str, Tls] = {}
    for host, settings in registries.items():
        if settings.ca or settings.certificate:
            for name in HUB_ALIASES if host in HUB_ALIASES else (host,):
                found[name] = Tls(settings.ca, settings.certificate, settings.key)
    return found


def _mirror(text: str, reference: RegistryReference, registries: Mapping[str, RegistryConfig]) -> Endpoint:
    match = _MIRROR.fullmatch(text)
    prefix = f"{match['prefix']}/" if match and match["prefix"] else ""
    repository = prefix + reference.repository
    try:
        named = parse(f"docker://{match['host'] if match else ''}/{repository}")
        assert isinstance(named, RegistryReference)
    except BadReference:
        named = None
    if match is None or named is None or named.host not in (match["host"], HUB):
        where = f'registries."{reference.host}".mirrors of the config file'
        raise RegistryError(where, expected="host[:port][/prefix]", got=repr(text)[:120])
    own = _settings(named.host, registries)
    base = f"{_scheme(named.host, own)}://{named.api_host}/v2/{named.repository}"
    return Endpoint(named.host, named.repository, base, True, (*TOKEN_HOSTS.get(named.host, ()), *own.token_hosts))


def _settings(host: str, registries: Mapping[str, RegistryConfig]) -> RegistryConfig:
    names = HUB_ALIASES if host == HUB else (host,)
    return next((registries[name] for name in names if name in registries), RegistryConfig())


def _scheme(host: str, settings: RegistryConfig) -> str:
    """Plain HTTP where the settings say so, and on this machine unless they name certificates."""
    if settings.insecure or (is_loopback(host) and not settings.ca):
        return "http"
    return "https"
