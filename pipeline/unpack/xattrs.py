"""Extended attributes in PAX records: which of them an image keeps.

SCHILY.xattr is the one form every reader takes. LIBARCHIVE.xattr, which bsdtar writes beside it, is never read: readers
that know it and readers that do not would see different files.

Source:  GNU tar manual, "Extended attributes"; attr(5); what squashfs can hold: Documentation/filesystems/squashfs.rst.
"""

from __future__ import annotations

from collections import Counter
from urllib.parse import unquote_to_bytes

from pipeline.tree import printable
from pipeline.unpack.numbers import Malformed

NAME_MAX_BYTES = 255
TOTAL_MAX_BYTES = 64 << 10  # of one entry: tar2sqfs takes no longer PAX header, and Linux no longer value
NAMED_MAX = 100  # warnings that name what they are about
RECORD_BYTES = len("65536 SCHILY.xattr.=\n")

_SCHILY = b"SCHILY.xattr."
_LIBARCHIVE = b"LIBARCHIVE.xattr."
# Kept: what squashfs can hold and a zone may need. The rest belongs to the host that made the layer.
_SPACES = (b"user.", b"trusted.", b"security.")
_DROPPED = (b"security.selinux", b"security.ima", b"security.evm", b"trusted.overlay.")


def is_xattr(key: bytes) -> bool:
    """Is a PAX key one of an extended attribute?"""
    return key.startswith((_SCHILY, _LIBARCHIVE))


def _warn(warnings: Counter[str], what: str, name: bytes) -> None:
    """Count by name while there are few: a layer may have a million names, and no limit counts a warning."""
    text = f"{what}: {printable(name)[:60]}"
    warnings[text if text in warnings or len(warnings) < NAMED_MAX else f"{what}: of other names"] += 1


def kept_xattrs(pax: dict[bytes, bytes], warnings: Counter[str]) -> dict[bytes, bytes]:
    """The attributes of an entry with these PAX records; what is dropped is counted in `warnings`.

    Raises:  Malformed for names and values Linux cannot hold.
    """
    kept, total = {}, 0
    for key, value in pax.items():
        if key.startswith(_LIBARCHIVE):
            name = unquote_to_bytes(key[len(_LIBARCHIVE) :])
            if _SCHILY + name not in pax:
                _warn(warnings, "xattr in libarchive's form alone dropped", name)
        if not key.startswith(_SCHILY):
            continue
        name = key[len(_SCHILY) :]
        if not name.startswith(_SPACES) or name.startswith(_DROPPED):
            _warn(warnings, "xattr dropped", name)
            continue
        if len(name) > NAME_MAX_BYTES or name in _SPACES:
            raise Malformed(f"an xattr name of at most {NAME_MAX_BYTES} bytes")
        total += RECORD_BYTES + len(name) + len(value)
        if total > TOTAL_MAX_BYTES:
            raise Malformed(f"xattrs of at most {TOTAL_MAX_BYTES} bytes together")
        kept[name] = value
    return kept
