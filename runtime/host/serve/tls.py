"""What zoned shows on TLS and whom it lets in: files of one directory, which it serves from or not at all."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import RuntimeFault
from runtime.host.client.endpoint import TLS_PORT

SYSTEM_DIRECTORY = Path("/etc/zonewright/tls")
CA, CERTIFICATE, KEY, LISTEN = "ca.pem", "server.pem", "server.key", "listen"


class TlsUnfit(RuntimeFault):
    """A TLS directory zoned cannot serve from; it stays closed then."""


@dataclass(frozen=True)
class ServerCredentials:
    """One directory: ca.pem, server.pem, server.key, and optionally listen, which holds ADDRESS:PORT.

    address:  None for every address of this host.
    """

    directory: Path
    address: str | None = None
    port: int = TLS_PORT

    def context(self) -> ssl.SSLContext:
        """TLS >= 1.2; a client must show a certificate this directory's authority has signed. Raises TlsUnfit."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["h2"])
        try:
            context.load_verify_locations(self.directory / CA)
            context.load_cert_chain(self.directory / CERTIFICATE, self.directory / KEY)
        except (ssl.SSLError, OSError) as error:
            raise TlsUnfit(
                str(self.directory),
                expected=f"{CA}, {CERTIFICATE} and {KEY} that belong together",
                got=str(error),
                hint="`zone host cert server` makes them again",
            ) from error
        return context


def find_credentials(*directories: Path) -> ServerCredentials | None:
    """The first directory with a server's certificate; None where TLS is not wanted. Raises TlsUnfit."""
    for directory in directories:
        if (directory / CERTIFICATE).exists():
            address, port = _listen(directory / LISTEN)
            return ServerCredentials(directory, address, port)
    return None


def _listen(path: Path) -> tuple[str | None, int]:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None, TLS_PORT
    address, _, port = text.rpartition(":")
    try:
        plain = address.removeprefix("[").removesuffix("]")
        return (str(ipaddress.ip_address(plain)) if plain else None), int(port)
    except ValueError:
        raise TlsUnfit(str(path), expected="ADDRESS:PORT, or :PORT for every address", got=text[:80]) from None
