"""Headers of tar archives: ustar, pax where ustar has no room for something, and GNU's long names when reading.

Source:  POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format";
         SCHILY.xattr as star and GNU tar write it.
"""

BLOCK = 512
REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
PAX, PAX_GLOBAL, GNU_NAME, GNU_LINK = b"x", b"g", b"L", b"K"
KINDS = (REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO)
END = bytes(2 * BLOCK)
SEEK_SET = 0  # posix has names for the others alone
XATTR = "SCHILY.xattr."
MAX_XATTRS_BYTES = 1 << 16  # names and values of one member: Linux has no longer value
_MAX_OCTAL_8, _MAX_OCTAL_12 = 0o7777777, 0o77777777777


class BadArchive(ValueError):
    """Bytes that are no tar archive this reader takes; the message says which and why."""


class Entry:
    """One member. `size` is that of the data behind the header; only REGULAR has any.

    xattrs:  name -> value, bytes that are no UTF-8 as surrogates.
    more:    further records of its pax header, to be written.
    """

    def __init__(
        self,
        name: str,
        kind: bytes,
        *,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime: int = 0,
        link: str = "",
        device: tuple[int, int] = (0, 0),
        xattrs: "dict[str, str] | None" = None,
    ) -> None:
        self.xattrs = xattrs or {}
        self.more: dict[str, str] = {}
        self.name, self.kind, self.mode, self.uid, self.gid = name, kind, mode, uid, gid
        self.size, self.mtime, self.link, self.device = size, mtime, link, device


def is_copied(attribute: str) -> bool:
    """Is an extended attribute one that means the same on another machine?

    Labels and access lists name users and policies of their own; what overlay and others keep is not the file's. A name
    with = has no form in a pax header.
    """
    return (attribute.startswith("user.") or attribute == "security.capability") and "=" not in attribute


def padding(size: int) -> int:
    """How many bytes follow data of this size up to the next block."""
    return -size % BLOCK


def encode(entry: Entry) -> bytes:
    """The header of an entry, with a pax header before it where it needs one."""
    name = _bytes(entry.name) + (b"/" if entry.kind == DIRECTORY and not entry.name.endswith("/") else b"")
    link = _bytes(entry.link)
    # First: a reader that takes the size of a sparse file for that of what is stored of it has the latter last.
    records = b"".join([_record(_bytes(key), _bytes(value)) for key, value in entry.more.items()])
    for key, value, fits in (
        (b"path", name, len(name) <= 100 and name.isascii()),
        (b"linkpath", link, len(link) <= 100 and link.isascii()),
        (b"uid", b"%d" % entry.uid, entry.uid <= _MAX_OCTAL_8),
        (b"gid", b"%d" % entry.gid, entry.gid <= _MAX_OCTAL_8),
        (b"size", b"%d" % entry.size, entry.size <= _MAX_OCTAL_12),
        (b"mtime", b"%d" % entry.mtime, 0 <= entry.mtime <= _MAX_OCTAL_12),
    ):
        if not fits:
            records += _record(key, value)
    for attribute in sorted(entry.xattrs):
        records += _record(_bytes(XATTR + attribute), _bytes(entry.xattrs[attribute]))
    before = b""
    if records:
        extra = Entry("pax", PAX, size=len(records))
        before = _block(extra, b"pax", b"") + records + bytes(padding(len(records)))
    return before + _block(entry, name[:100], link[:100])


def _block(entry: Entry, name: bytes, link: bytes) -> bytes:
    parts = [
        name.ljust(100, b"\0"),
        b"%07o\0" % (entry.mode & 0o7777),
        b"%07o\0" % (entry.uid if entry.uid <= _MAX_OCTAL_8 else 0),
        b"%07o\0" % (entry.gid if entry.gid <= _MAX_OCTAL_8 else 0),
        b"%011o\0" % (entry.size if entry.size <= _MAX_OCTAL_12 else 0),
        b"%011o\0" % (entry.mtime if 0 <= entry.mtime <= _MAX_OCTAL_12 else 0),
        b" " * 8,
        entry.kind,
        link.ljust(100, b"\0"),
        b"ustar\x0000",
        bytes(64),
        b"%07o\0%07o\0" % entry.device,
    ]
    block = b"".join(parts).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH key=value\\n`, where LENGTH counts itself."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def decode(block: bytes) -> Entry:
    """The entry of one header block, pax and GNU kinds included. Raises BadArchive."""
    if block[257:262] != b"ustar":
        raise BadArchive(f"header: expected the magic ustar, got {block[257:262]!r}")
    want = _number(block[148:156], "checksum")
    got = sum(block[:148]) + sum(block[156:]) + 8 * 32
    if want != got:
        raise BadArchive(f"header: expected the checksum {got}, got {want}")
    name, link, kind = _text(block[:100]), _text(block[157:257]), block[156:157]
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    kind = REGULAR if kind in (b"\0", b"7") else kind
    return Entry(
        name,
        kind,
        mode=_number(block[100:108], "mode") & 0o7777,
        uid=_number(block[108:116], "uid"),
        gid=_number(block[116:124], "gid"),
        size=_number(block[124:136], "size"),
        mtime=_number(block[136:148], "mtime"),
        link=link,
        device=(_number(block[329:337], "devmajor"), _number(block[337:345], "devminor")),
    )


def records(data: bytes) -> dict[str, str]:
    """The records of a pax header. Raises BadArchive."""
    found = {}
    while data:
        digits, blank, _ = data.partition(b" ")
        if not digits.isdigit() or not blank or not len(digits) + 3 <= int(digits) <= len(data):
            raise BadArchive(f"pax header: expected a record's length, got {data[:20]!r}")
        record, data = data[len(digits) + 1 : int(digits)], data[int(digits) :]
        key, equals, value = record.partition(b"=")
        if not equals or record[-1:] != b"\n":
            raise BadArchive(f"pax header: expected key=value, got {record[:40]!r}")
        found[_text(key)] = value[:-1].decode("utf-8", "surrogateescape")
    return found


def _number(field: bytes, what: str) -> int:
    if field[0] & 0x80:  # GNU's base 256, for what octal has no room for
        value = int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40 and what == "mtime":
            return int.from_bytes(field, "big", signed=True)
        if field[0] & 0x40:
            raise BadArchive(f"header: expected a {what} that is not negative, got {field!r}")
        return value
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if any(digit not in b"01234567" for digit in digits):
        raise BadArchive(f"header: expected octal digits as {what}, got {field!r}")
    return int(digits, 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
