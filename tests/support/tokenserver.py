"""A token server that a real docker-registry trusts: JWTs for one user, with the scopes that are asked for."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


class TokenServer:
    """`scopes`: what was asked for. user: "name:password", without which (or `identity`) there is no token.

    stale_first: the next tokens, so many, have ended long before they are given out.
    certificate: files of a certificate and its key, to speak TLS.
    """

    def __init__(
        self,
        directory: Path,
        user: str,
        *,
        lifetime_s: int = 300,
        identity: str = "",
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        self.scopes: list[str] = []
        self.identity, self.stale_first = identity, 0
        self.user, self.lifetime_s = user, lifetime_s
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tokens")])
        now = datetime.datetime.now(datetime.UTC)
        signer = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .sign(self._key, hashes.SHA256())
        )
        self._certificate = base64.b64encode(signer.public_bytes(serialization.Encoding.DER)).decode()
        bundle = directory / "tokens.pem"
        bundle.write_bytes(signer.public_bytes(serialization.Encoding.PEM))
        owner = self

        class Handler(_Handler):
            tokens = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        realm = f"{'https' if certificate else 'http'}://{self.host}/token"
        self.registry_config = (
            f"auth: {{token: {{realm: '{realm}', service: test, issuer: tests, rootcertbundle: {bundle}}}}}\n"
        )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def token(self, service: str, scopes: list[str]) -> str:
        """A JWT. Source: distribution, "Token Authentication Implementation"."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        claims = {"iss": "tests", "sub": "", "aud": service, "nbf": now - 10, "iat": now, "jti": "1", "access": access}
        claims["exp"] = now + self.lifetime_s
        if self.stale_first:
            self.stale_first -= 1
            claims["exp"] = now - 3600
        parts = [{"typ": "JWT", "alg": "ES256", "x5c": [self._certificate]}, claims]
        text = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
        r, s = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class _Handler(BaseHTTPRequestHandler):
    tokens: TokenServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        wanted = "Basic " + base64.b64encode(self.tokens.user.encode()).decode()
        scopes = query.get("scope", [])
        self.tokens.scopes += scopes
        self._answer(self.headers.get("Authorization") == wanted, query, scopes)

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        scopes = form.get("scope", [])
        self.tokens.scopes += scopes
        known = form.get("grant_type") == ["refresh_token"] and form.get("refresh_token") == [self.tokens.identity]
        self._answer(known, form, scopes)

    def _answer(self, known: bool, query: dict[str, list[str]], scopes: list[str]) -> None:
        data = json.dumps({"token": self.tokens.token(query["service"][0], scopes)} if known else {}).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@contextlib.contextmanager
def token_server(directory: Path, user: str, **options: Any) -> Iterator[TokenServer]:
    """A TokenServer that is gone afterwards."""
    server = TokenServer(directory, user, **options)
    try:
        yield server
    finally:
        server.close()
