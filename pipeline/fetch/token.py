"""Bearer tokens: asked of the token server a registry names, with credentials only where they belong.

Source:  distribution, "Token Authentication Specification" and "Oauth2 Token Authentication"; RFC 6750, 3.
"""

from __future__ import annotations

import ipaddress
import json
from urllib.parse import urlencode, urlsplit

from pipeline.fetch.auth import Challenge, Credentials
from pipeline.fetch.endpoint import Endpoint
from pipeline.fetch.errors import RegistryError
from pipeline.fetch.http import Client, body, origin, redacted, said
from pipeline.fetch.reference import is_loopback

ANSWER_BYTES_MAX = 1 << 20
CLIENT_ID = "zonewright"


def bearer_token(
    challenge: Challenge, known: Credentials | None, endpoint: Endpoint, client: Client, *, subject: str
) -> str:
    """The token a challenge asks for.

    Raises:  RegistryError for a token server that may not be asked, refuses, or gives none.
    """
    realm = challenge.parameters.get("realm", "")
    check_realm(realm, endpoint, subject)
    scope = challenge.parameters.get("scope") or f"repository:{endpoint.repository}:pull"
    query = {"service": challenge.parameters.get("service", ""), "scope": scope}
    trusted = may_see_credentials(realm, endpoint)
    if known is not None and known.identity_token and trusted:
        form = {"grant_type": "refresh_token", "client_id": CLIENT_ID, "refresh_token": known.identity_token} | query
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = client.post(realm, headers, urlencode(form).encode(), subject=subject)
    else:
        headers = {"Authorization": known.basic()} if known is not None and known.user and trusted else {}
        separator = "&" if urlsplit(realm).query else "?"
        response = client.get(f"{realm}{separator}{urlencode(query)}", headers, subject=subject)
    if response.status != 200:
        withheld = known is not None and not trusted
        host = origin(realm)[1]
        hint = f"docker login {endpoint.host}, or skopeo login {endpoint.host}"
        if withheld:
            hint = f'to let {host} see the credentials: registries."{endpoint.host}".token_hosts in the config file'
        raise RegistryError(subject, expected="access", got=f"{said(response)} from {redacted(realm)}", hint=hint)
    try:
        document = json.loads(body(response, ANSWER_BYTES_MAX))
    except client.transport_errors() as error:
        raise RegistryError(
            subject, expected=f"a token from {redacted(realm)}", got="a broken connection", temporary=True
        ) from error
    except (ValueError, RecursionError):
        document = None
    token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise RegistryError(subject, expected=f"a token from {redacted(realm)}", got="none")
    return token


def may_see_credentials(realm: str, endpoint: Endpoint) -> bool:
    """Credentials go to the registry's own host, and where the settings (or Docker Hub's design) say so."""
    host = origin(realm)[1]
    return host == origin(endpoint.base)[1] or host in endpoint.token_hosts


def check_realm(realm: str, endpoint: Endpoint, subject: str) -> None:
    """Refuse a token server without TLS, and one inside a network the registry is not part of.

    A registry names its token server, and we would ask it from here: without this rule any registry could have this
    machine's neighbours asked. Plain HTTP is for a registry that is itself asked over plain HTTP, on this machine or
    on the same host.
    """
    try:
        scheme, host, _ = origin(realm)
    except ValueError:
        scheme, host = "", ""
    home_scheme, home, _ = origin(endpoint.base)
    near = host == home or (is_loopback(host) and is_loopback(home))
    allowed = near or (scheme == "https" and not is_inside(host))
    if not host or not allowed or scheme not in ("http", "https") or (scheme == "http" and home_scheme != "http"):
        raise RegistryError(subject, expected="a token server on https", got=redacted(realm)[:100] or "none")


def is_inside(host: str) -> bool:
    """Is a host an address of this machine, its link or a private network? No name is looked up."""
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return is_loopback(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return not address.is_global
