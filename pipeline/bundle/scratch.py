"""The scratch disk as `--scratch` and a spec write it: what takes what a zone writes over its image."""

from __future__ import annotations

import posixpath
import re

from pipeline.bundle.errors import BadSpec

FORMS = "a size such as 512m, or a block device of the zone's host, such as /dev/vg/web"
# Below the first an ext4 has no room for a journal, beyond the second none for its blocks of 4 KiB.
LEAST_MIB, MOST_MIB = 16, 16 << 20
_SIZE = re.compile(r"([1-9][0-9]{0,7})([mg]?)")
_DEVICE = re.compile(r"/dev/[A-Za-z0-9_.+:/-]{1,200}")


def parse_scratch(text: str, *, subject: str) -> tuple[str, int]:
    """(device, 0), or ("", size in MiB) of a disk that the zone's host makes. Raises BadSpec."""
    if size := _SIZE.fullmatch(text):
        size_mib = int(size[1]) << (10 if size[2] == "g" else 0)
        if not LEAST_MIB <= size_mib <= MOST_MIB:
            raise BadSpec(subject, expected=f"{LEAST_MIB} MiB to {MOST_MIB >> 20} TiB", got=repr(text))
        return "", size_mib
    if not _DEVICE.fullmatch(text) or posixpath.normpath(text) != text:
        raise BadSpec(subject, expected=FORMS, got=repr(text)[:120])
    return text, 0
