"""Volumes as `-v` and a spec write them: what is mounted in a zone besides its image."""

from __future__ import annotations

import posixpath
import re
import stat
from pathlib import Path

from pipeline.bundle.errors import BadSpec
from pipeline.bundle.model import Volume

FORMS = "tmpfs:TARGET[:size=N[m|g]][:ro], or SOURCE:TARGET[:ro] with a squashfs file or a block device"
UNITS_MIB = {"m": 1, "g": 1 << 10}
# The zone's own file systems: over these nothing of the user's may be laid.
RESERVED = ("/", "/dev", "/proc", "/sys")


def parse_volume(text: str, *, subject: str) -> Volume:
    """Read a volume. Raises BadSpec; for a directory of the host, too, which would need 9p in the zone's kernel."""
    source, *rest = text.split(":")
    if not source or not rest:
        raise BadSpec(subject, expected=FORMS, got=repr(text))
    target, *options = rest
    volume = Volume(_target(target, subject), *_kind(source, subject), readonly="ro" in options)
    for option in options:
        if size := re.fullmatch(r"size=([1-9][0-9]{0,5})([mg])?", option):
            if volume.kind != "tmpfs":
                raise BadSpec(subject, expected="a size for tmpfs alone", got=repr(text))
            volume = Volume(volume.target, "tmpfs", "", volume.readonly, int(size[1]) * UNITS_MIB[size[2] or "m"])
        elif option not in ("ro", "rw"):
            raise BadSpec(subject, expected="ro, rw or size=N[m|g] as an option", got=repr(option))
    return volume


def _target(text: str, subject: str) -> str:
    path = posixpath.normpath(text)
    inside = any(path == place or path.startswith(f"{place}/") for place in RESERVED[1:])
    if not text.startswith("/") or "\0" in text or path.lstrip("/") == "" or inside:
        raise BadSpec(subject, expected=f"an absolute target outside {', '.join(RESERVED)}", got=repr(text))
    return "/" + path.lstrip("/")


def _kind(source: str, subject: str) -> tuple[str, str]:
    """(kind, source) of what is mounted."""
    if source == "tmpfs":
        return "tmpfs", ""
    if "/" not in source:
        hint = "volumes with names are not kept here; tmpfs:TARGET is memory"
        raise BadSpec(subject, expected=FORMS, got=f"{source!r}", hint=hint)
    path = Path(source).absolute()
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise BadSpec(subject, expected="a source that is there", got=f"{source}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise BadSpec(
            f"{subject}: {source}",
            got="a directory of the host cannot be mounted: the zone's kernel would need CONFIG_NET_9P_XEN, which "
            "Debian's cloud kernel lacks",
            hint=f"pack it and mount the file: zone image pack … -o dir.squashfs; or zone cp {source} ZONE:TARGET",
        )
    if stat.S_ISBLK(mode):
        return "block", str(path)
    if stat.S_ISREG(mode) and _magic(path) == b"hsqs":
        return "squashfs", str(path)
    raise BadSpec(f"{subject}: {source}", expected="a squashfs file or a block device", got="another kind of file")


def _magic(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(4)
