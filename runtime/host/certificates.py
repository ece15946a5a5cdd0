"""Certificates for the way to zoned: one authority per host, a server certificate, any number of clients'.

    <directory>/ca.pem ca.key server.pem server.key [listen]      of the host: /etc/zonewright/tls
    <directory>/clients/NAME/ca.pem client.pem client.key         for a user: to ~/.config/zonewright/tls/HOST there

There is no list of revoked certificates: a new authority (`renew_authority`) shuts out every client made before.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.store import write_atomic
from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

DAYS = 825
AUTHORITY_DAYS = 3650
# A client whose clock is a little behind must not find a fresh certificate not yet valid.
BACKDATE = datetime.timedelta(hours=1)
CLIENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
CLIENTS = "clients"


class CertificateProblem(RuntimeFault):
    """Certificates that cannot be made, or made use of."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Made:
    """A file that was written, and what it is for."""

    path: Path
    what: str


def new_authority(name: str, *, days: int = AUTHORITY_DAYS) -> Pair:
    """A certificate authority of its own."""
    return _sign(f"zonewright authority of {name}", None, days=days)


def new_server(authority: Pair, names: Sequence[str], *, days: int = DAYS) -> Pair:
    """A server certificate for DNS names and IP addresses. Raises CertificateProblem."""
    if not all(names) or not names:
        raise CertificateProblem("server certificate", expected="a name or address of the host", got="none")
    return _sign(names[0], authority, names=names, days=days, usage="server")


def new_client(authority: Pair, name: str, *, days: int = DAYS) -> Pair:
    """A client certificate. Raises CertificateProblem."""
    if not CLIENT_NAME.fullmatch(name):
        raise CertificateProblem(
            f"client {name!r}", expected="letters, digits and ._@-, 63 at most", got="another name"
        )
    return _sign(name, authority, days=days, usage="client")


def make_server(directory: Path, names: Sequence[str], *, days: int = DAYS) -> list[Made]:
    """Write a server certificate, and an authority before it where there is none; clients stay valid.

    Effects: zoned reads them at its next reload (SIGHUP).
    """
    is_new = not (directory / "ca.key").exists()
    authority = new_authority(names[0] if names else "host") if is_new else _authority(directory)
    pair = new_server(authority, names, days=days)
    made = _write_authority(directory, authority) if is_new else []
    return [*made, *_write_server(directory, pair, names, days)]


def make_client(directory: Path, name: str, *, days: int = DAYS, into: Path | None = None) -> list[Made]:
    """Write a client's three files. into: the directory for them; `clients/NAME` by default.

    Raises:  CertificateProblem where `directory` has no authority.
    """
    authority = _authority(directory)
    pair = new_client(authority, name, days=days)
    into = into or directory / CLIENTS / name
    made = [_write(into / "ca.pem", authority.certificate, "whom the client believes")]
    return [*made, *_write_pair(into, "client", pair, f"certificate of client {name}, {days} days")]


def renew_authority(directory: Path, names: Sequence[str], *, days: int = DAYS) -> list[Made]:
    """A new authority and a server certificate by it: every client certificate made before is refused from then on."""
    if not names:
        raise CertificateProblem("server certificate", expected="a name or address of the host", got="none")
    authority = new_authority(names[0])
    pair = new_server(authority, names, days=days)  # what cannot be made shuts nobody out
    made = _write_authority(directory, authority)
    shutil.rmtree(directory / CLIENTS, ignore_errors=True)
    return [*made, *_write_server(directory, pair, names, days)]


def _write_authority(directory: Path, pair: Pair) -> list[Made]:
    return _write_pair(directory, "ca", pair, "authority that signs this host's certificates")


def _write_server(directory: Path, pair: Pair, names: Sequence[str], days: int) -> list[Made]:
    return _write_pair(directory, "server", pair, f"server certificate for {', '.join(names)}, {days} days")


def _authority(directory: Path) -> Pair:
    try:
        return Pair((directory / "ca.pem").read_bytes(), (directory / "ca.key").read_bytes())
    except OSError as error:
        raise CertificateProblem(
            str(directory),
            expected="an authority (ca.pem and ca.key)",
            got=(error.strerror or str(error)).lower(),
            hint="`zone host cert server NAME...` makes one",
        ) from error


def _write_pair(directory: Path, stem: str, pair: Pair, what: str) -> list[Made]:
    key = _write(directory / f"{stem}.key", pair.key, f"its private key: {what}")
    return [_write(directory / f"{stem}.pem", pair.certificate, what), key]


def _write(path: Path, data: bytes, what: str) -> Made:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(path, data, mode=0o600)
    except OSError as error:
        raise CertificateProblem(str(path), expected="a file there", got=error.strerror or str(error)) from error
    return Made(path, what)


def _sign(common_name: str, authority: Pair | None, *, days: int, names: Iterable[str] = (), usage: str = "") -> Pair:
    """Make a key (ECDSA P-256) and a certificate for it, signed by `authority` or, as one, by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    issuer, signer = (subject, key) if authority is None else _open(authority)
    begin = datetime.datetime.now(datetime.UTC) - BACKDATE
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=0 if authority is None else None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
        .add_extension(_key_usage(is_authority=authority is None), True)
    )
    if usage:
        oid = ExtendedKeyUsageOID.SERVER_AUTH if usage == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([oid]), False)
    if alternatives := [_general_name(name) for name in names]:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
    certificate = builder.sign(signer, hashes.SHA256())
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(certificate.public_bytes(pem), plain)


def _open(authority: Pair) -> tuple[x509.Name, EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        certificate = x509.load_pem_x509_certificate(authority.certificate)
        key = serialization.load_pem_private_key(authority.key, None)
    except ValueError as error:
        raise CertificateProblem("the authority", expected="ca.pem and ca.key, both PEM", got=str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise CertificateProblem("the authority", expected="ca.key to belong to ca.pem", got="another key")
    return certificate.subject, key


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError:
        raise CertificateProblem(f"name {name!r}", expected="a DNS name or an IP address", got="another") from None
