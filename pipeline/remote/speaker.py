"""oras, as pushes need it: it speaks to the registry; what it says, to whom and how often is decided here.

Of oras: the URLs, the session, the answer to a 401 (`do_request`), the place of an upload. Not of oras, for its traps:

    retries            its own sleep 131 seconds without a word, for errors that stay, too
    tokens             it asks any realm, with the credentials; pipeline.fetch knows whom to trust
    upload of a blob   it reads the whole into memory, hashes nothing and cannot resume
    manifests          it encodes the JSON anew, and other bytes have another digest

Source:  OCI distribution specification; distribution "Token Authentication Specification".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from pipeline.fetch.connections import Tls
from pipeline.fetch.errors import RegistryError
from pipeline.fetch.http import Deadline, origin, redacted, said
from pipeline.fetch.reference import RegistryReference, is_loopback
from pipeline.fetch.registry import RegistrySource

REDIRECTS_MAX = 5


def speaker(
    reference: RegistryReference,
    source: RegistrySource,
    deadline: Deadline,
    tls: Tls,
    denied: Callable[[str], RegistryError],
) -> tuple[Any, Any]:
    """oras for one registry, and its name of the repository: with timeouts, and with our answers to challenges."""
    import requests.adapters
    import requests.utils
    from oras.auth import TokenAuth
    from oras.container import Container
    from oras.provider import Registry

    home = origin(source.base)

    class Adapter(requests.adapters.HTTPAdapter):
        """Where each request ends: a Location or a redirect to another host gets no Authorization of ours."""

        def send(self, *arguments: Any, **options: Any) -> Any:
            request = arguments[0]
            left = deadline.left_s(str(reference))
            options["timeout"] = (min(deadline.patience.connect_s, left), min(deadline.patience.read_s, left))
            if origin(request.url) != home:
                request.headers.pop("Authorization", None)
                if home[0] == "https" and origin(request.url)[0] == "http":
                    raise RegistryError(
                        str(reference), expected="a redirect to https", got=f"one to {redacted(request.url)}"
                    )
            return super().send(*arguments, **options)

    class Auth(TokenAuth):  # type: ignore[misc, unused-ignore]
        """`token` is a whole header here, for Basic as well; see `Registry.do_request` for who calls what."""

        def get_auth_header(self) -> dict[str, str]:
            return {"Authorization": self.token} if self.token else {}

        def authenticate_request(self, original: Any, headers: Any, refresh: bool = False) -> Any:
            refusal, challenge = said(original.raw), original.headers.get("WWW-Authenticate", "")
            if original.status_code != 401 or origin(original.url) != home:
                raise denied(refusal)
            fresh = source.authorize(challenge, str(reference))
            if not fresh or (fresh == headers.get("Authorization") and fresh.startswith("Basic ")):
                raise denied(refusal)
            self.token = fresh
            return headers | self.get_auth_header(), True

    host = urlsplit(source.base).netloc
    oras = Registry(hostname=host, insecure=home[0] == "http", tls_verify=tls.ca or True)
    oras.auth = Auth()
    session = oras.session
    session.cert = (tls.certificate, tls.key or tls.certificate) if tls.certificate else None
    session.trust_env = False  # .netrc knows nothing of registries; proxies are asked for here
    session.proxies = {} if is_loopback(reference.host) else requests.utils.get_environ_proxies(source.base)
    session.max_redirects = REDIRECTS_MAX
    for scheme in ("http://", "https://"):
        session.mount(scheme, Adapter(pool_maxsize=8))
    container = Container("repository", registry=host)
    container.repository = reference.repository  # parsed by it, `my.org/app` would be a registry's
    return oras, container
