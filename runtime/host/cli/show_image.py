"""How `zone image` shows what it found: tables for people, JSON or YAML for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runtime.host.cli.terminal import escaped, pairs, plain_table, show, size_text, table, write

if TYPE_CHECKING:
    from pipeline.fetch.model import FetchResult
    from pipeline.images.diff import Change, Difference
    from pipeline.images.inspect import ImageFacts, SquashfsFacts
    from pipeline.images.listing import Listed
    from pipeline.images.verify import Verified
    from pipeline.tree import Entry

MARKS = {"added": "+", "removed": "-", "changed": "~"}
LETTERS = {"FILE": "-", "DIRECTORY": "d", "SYMLINK": "l", "CHAR": "c", "BLOCK": "b", "FIFO": "p", "HARDLINK": "-"}


def age(when: str) -> str:
    """How long ago an RFC 3339 time was: `3 h ago`; the date where it is more than a month; "" for none."""
    from calendar import timegm

    try:
        moment = timegm(time.strptime(when[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return ""
    seconds = time.time() - moment
    if seconds > 31 * 86400 or seconds < -60:
        return when[:10]
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "now"


def show_listing(found: Sequence[Listed], *, format: str, quiet: bool) -> None:
    """`zone image ls`."""
    from pipeline.jsonmodel import to_json

    if quiet:
        write("".join(f"{escaped(item.name)}\n" for item in found))
    elif not show(to_json(found), format):
        head = ["NAME", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "CREATED", "PULLED"]
        table(head, [_listing_row(item) for item in found])


def _listing_row(item: Listed) -> list[Any]:
    from pipeline.images.names import cut_name

    named = [cut_name(item.name), item.digest.short]
    if item.damaged:
        return [*named, "damaged", "", "", "", ""]
    size = size_text(item.size_bytes)
    return [*named, item.platform, item.layers, size, age(item.created), age(item.pulled)]


def show_image(found: ImageFacts, *, format: str) -> None:
    """`zone image inspect`."""
    from pipeline.jsonmodel import to_json

    if show(to_json(found), format):
        return
    run = found.config
    pairs(
        [
            ("image", found.reference),
            ("digest", found.digest),
            ("media type", found.media_type),
            ("artifact type", found.artifact_type),
            ("index", found.index),
            ("platforms", ", ".join(offer.platform for offer in found.platforms)),
            ("platform", found.platform),
            ("created", found.created),
            ("size", size_text(found.size_bytes)),
            ("config", f"{found.config_digest} ({found.config_media_type})"),
            *((key.lower(), _words(run[key])) for key in ("Entrypoint", "Cmd") if run.get(key)),
            ("user", run.get("User") or ""),
            ("workdir", run.get("WorkingDir") or ""),
            *(("env", item) for item in _list(run.get("Env"))),
            ("ports", ", ".join(_list(run.get("ExposedPorts")))),
            ("volumes", ", ".join(_list(run.get("Volumes")))),
            ("stop signal", run.get("StopSignal") or ""),
            *(("label", item) for item in _items(run.get("Labels"))),
            *(("annotation", item) for item in _items(found.annotations)),
        ]
    )
    write("\n")
    titled = any(layer.title for layer in found.layers)
    head = ["LAYER", "DIGEST", "SIZE", "TITLE" if titled else "DIFF_ID", "MEDIA TYPE"]
    rows = [
        [
            number,
            layer.digest.short,
            size_text(layer.size_bytes),
            layer.title if titled else layer.diff_id[: len(layer.digest.short)],
            layer.media_type.removeprefix("application/vnd."),
        ]
        for number, layer in enumerate(found.layers, 1)
    ]
    write(plain_table([head, *([escaped(cell) for cell in row] for row in rows)]))


def _words(value: Any) -> str:
    """A command, each word quoted where it needs it."""
    import shlex

    return shlex.join(map(str, value)) if isinstance(value, list) else str(value)


def _list(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, (list, dict)) else []


def _items(value: Any) -> list[str]:
    return [f"{key}={value[key]}" for key in sorted(value)] if isinstance(value, dict) else []


def show_squashfs(found: SquashfsFacts, *, format: str) -> None:
    """`zone image inspect FILE`."""
    from pipeline.jsonmodel import to_json

    if show(to_json(found), format):
        return
    pairs(
        [
            ("file", found.file),
            ("digest", found.digest),
            ("size", size_text(found.size_bytes)),
            ("format", f"squashfs, {found.compression} in blocks of {size_text(found.block_bytes)}"),
            ("made", found.made),
            ("inodes", found.inodes),
            ("fragments", found.fragments),
            ("owners", found.ids),
            ("xattrs", "yes" if found.xattrs else "no"),
        ]
    )


def show_files(entries: Sequence[Entry], *, format: str) -> None:
    """`zone image inspect --files`."""
    if format != "table":
        from pipeline.images.diff import entry_json, text_json

        show([{"path": text_json(entry.path), **entry_json(entry)} for entry in entries], format)
        return
    write("".join(f"{_entry_line(entry)}\n" for entry in entries))


def _entry_line(entry: Entry) -> str:
    arrow = {"SYMLINK": " -> ", "HARDLINK": " = /"}.get(entry.kind.name, "")
    size = f"{entry.major}:{entry.minor}" if entry.kind.name in ("CHAR", "BLOCK") else entry.size_bytes
    owner = f"{entry.uid}:{entry.gid}"
    link = f"{arrow}{escaped(entry.target)}" if arrow else ""
    return f"{_mode(entry)} {owner:>11} {size:>11} /{escaped(entry.path)}{link}"


def _mode(entry: Entry) -> str:
    """As ls -l has it: `-rwsr-xr-x`."""
    import stat

    return LETTERS[entry.kind.name] + stat.filemode(entry.mode)[1:]


def show_verified(found: Verified, *, format: str) -> None:
    """`zone image verify`."""
    from pipeline.jsonmodel import to_json

    if show(to_json(found), format):
        return
    rows = [
        [
            item.what,
            item.digest.short,
            size_text(item.size_bytes),
            item.fault or ("good, diff_id too" if item.diff_id else "good"),
        ]
        for item in found.objects
    ]
    write(plain_table([["OBJECT", "DIGEST", "SIZE", "STATE"], *([escaped(cell) for cell in row] for row in rows)]))


def show_difference(
    found: Difference, changes: Sequence[Change], images: Sequence[FetchResult], *, format: str, quiet: bool
) -> None:
    """`zone image diff`."""
    counts = {how: found.counts.get(how, 0) for how in MARKS}
    if format != "table":
        from pipeline.images.diff import change_json

        show(
            {
                "images": [{"reference": image.reference, "digest": str(image.manifest.digest)} for image in images],
                "equal": found.equal,
                **counts,
                "mtime_only": found.mtime_only,
                "config": {key: {"from": was, "to": now} for key, (was, now) in found.config.items()},
                "changes": [change_json(change) for change in changes],
            },
            format,
        )
        return
    if not quiet:
        lines = [f"~ config {key}: {_json(was)} -> {_json(now)}" for key, (was, now) in found.config.items()]
        lines += map(_change_line, changes)
        write("".join(f"{line}\n" for line in lines))
    summary = "no difference" if found.equal else ", ".join(f"{number} {how}" for how, number in counts.items())
    summary += f", config: {', '.join(found.config)}" if found.config else ""
    summary += f"; {found.mtime_only} differ in mtime only (--mtime shows them)" if found.mtime_only else ""
    write(f"{summary}\n")


def _json(value: Any) -> str:
    return "none" if value is None else json.dumps(value)  # ASCII: nothing in it moves a cursor


def _change_line(change: Change) -> str:
    path = f"{MARKS[change.how]} /{escaped(change.path)}"
    if change.entry is not None:
        return f"{path}  ({_described(change.entry)})"
    return f"{path}  {'; '.join(_differing(what, *sides) for what, sides in change.differs.items())}"


def _described(entry: Entry) -> str:
    kind = entry.kind.name.lower()
    if kind == "symlink":
        return f"symlink -> {escaped(entry.target)}"
    size = f", {size_text(entry.size_bytes)}" if kind == "file" else ""
    return f"{kind}, {entry.mode:04o}, {entry.uid}:{entry.gid}{size}"


def _differing(what: str, was: Any, now: Any) -> str:
    if what == "content":
        return "content"
    if what == "xattrs":
        names = (key for key in sorted(was.keys() | now.keys()) if was.get(key) != now.get(key))
        return f"xattrs {', '.join(map(escaped, names))}"
    if what == "mtime":
        was, now = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(value // 10**9)) for value in (was, now))
    return f"{what} {_side(was)} -> {_side(now)}"


def _side(value: Any) -> str:
    return "none" if value is None else escaped(value)
