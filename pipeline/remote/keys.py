"""The keys of the remote cache: Ed25519, private ones in PEM files nobody else may read, public ones as one word.

Public:   `ed25519:` and the base64 of its 32 bytes, as `[cache] keys` in the config has it.
Private:  PKCS #8 in PEM, as `openssl genpkey -algorithm ed25519` makes it, too.
Source:   RFC 8032, RFC 8410.
"""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

PREFIX = "ed25519:"
PUBLIC_BYTES = 32


class BadKey(PipelineError):
    """A key that is none, or that others can read."""


def generate(path: Path) -> str:
    """Make a key pair: the private key in a new file of mode 0600; returns the public key.

    Raises:  BadKey where the file exists or cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise BadKey(str(path), expected="a file that is not there yet", got="one that is") from None
    except OSError as error:
        raise BadKey(str(path), expected="a file to write", got=str(error.strerror)) from error
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return public_text(key)


def load_private(path: Path) -> Any:
    """The private key of a file. Raises BadKey, also where others than its owner may read the file."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    subject = f"signing key {path}"
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(1 << 16)
    except OSError as error:
        raise BadKey(subject, expected="a file to read", got=str(error.strerror)) from error
    if mode & 0o077:
        raise BadKey(subject, expected="mode 0600", got=f"{mode:04o}", hint=f"chmod 600 {path}")
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError):  # without `from`: a message about a private key stays here
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(subject, expected="an Ed25519 private key in PEM", got="something else", hint="zone cache keygen")
    return key


def public_text(private: Any) -> str:
    """The public half of a private key, as the config has it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return PREFIX + base64.b64encode(raw).decode()


def parse_public(text: str) -> bytes:
    """The 32 bytes of a public key. Raises BadKey."""
    try:
        raw = base64.b64decode(text.removeprefix(PREFIX), validate=True) if text.startswith(PREFIX) else b""
    except ValueError:  # binascii.Error, or a character beyond ASCII
        raw = b""
    if len(raw) != PUBLIC_BYTES:
        raise BadKey(
            f"key {text[:60]!r} of [cache] keys",
            expected=f"{PREFIX} and the base64 of {PUBLIC_BYTES} bytes",
            got="something else",
            hint="zone cache keygen prints one",
        )
    return raw


def verifies(public: bytes, signature: bytes, message: bytes) -> bool:
    """Did the owner of this public key sign the message?"""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True
