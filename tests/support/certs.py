"""A certificate authority of the test's own."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any


class Authority:
    """`ca`: the file with its certificate. Files are written below `directory`."""

    def __init__(self, directory: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("tests' authority")
        certificate = self._certificate(self._name, self._key.public_key(), [], is_ca=True)
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(_pem(certificate))

    def issue(self, *hosts: str, client: bool = False) -> tuple[Path, Path]:
        """Files of a certificate for these hosts, and of its key."""
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        names: list[Any] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        certificate = self._certificate(_name(hosts[0]), key.public_key(), names, is_ca=False, client=client)
        stem = f"{'client' if client else 'server'}-{len(list(self._directory.iterdir()))}"
        files = self._directory / f"{stem}.pem", self._directory / f"{stem}.key"
        files[0].write_bytes(_pem(certificate))
        form = serialization.PrivateFormat.PKCS8
        files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return files

    def _certificate(self, subject: Any, public: Any, names: list[Any], *, is_ca: bool, client: bool = False) -> Any:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if not is_ca:
            usage = Usage.CLIENT_AUTH if client else Usage.SERVER_AUTH
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _name(text: str) -> Any:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return bytes(certificate.public_bytes(serialization.Encoding.PEM))
