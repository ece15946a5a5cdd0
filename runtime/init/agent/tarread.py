"""Read a tar archive as it comes, in pieces of any size; memory stays bounded by one header."""

from runtime.init.agent import tarformat
from runtime.init.agent.tarformat import BLOCK, BadArchive, Entry

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

    from runtime.init.agent.tarsparse import Expander

_MAX_EXTRA_BYTES = 1 << 17
_EXTRA = (tarformat.PAX, tarformat.PAX_GLOBAL, tarformat.GNU_NAME, tarformat.GNU_LINK)
_NUMBERS = ("size", "uid", "gid", "mtime")
_KEYS = ("path", "linkpath", *_NUMBERS)
_SPARSE = "GNU.sparse."
_SPARSE_KEYS = [f"{_SPARSE}{name}" for name in ("major", "minor", "name", "realsize")]


class Reader:
    """Calls begin(entry) for each member, data(bytes) for its contents, end() behind them.

    seek(offset) says where in a sparse file what comes next belongs; the last one is its size.

    Raises:  BadArchive from feed and finish; what the three functions raise.
    """

    def __init__(
        self,
        begin: "Callable[[Entry], object]",
        data: "Callable[[bytes], object]",
        end: "Callable[[], object]",
        seek: "Callable[[int], object]" = lambda offset: None,
    ) -> None:
        self._begin, self._data, self._end, self._seek = begin, data, end, seek
        self._expander: Expander | None = None
        self._buffer = bytearray()
        self._left = self._padding = 0
        self._in_member = False
        self._extra: Entry | None = None
        self._keys: dict[str, str] = {}
        self._xattrs: dict[str, str] = {}
        self._over = False

    def feed(self, piece: bytes) -> None:
        """The next bytes."""
        if self._over:
            return  # zeros up to a full record, as tar writes them
        self._buffer += piece
        while not self._over and self._step():
            pass

    def finish(self) -> None:
        """There are no more."""
        if not self._over:
            raise BadArchive("archive: expected two blocks of zeros at its end, got none (was it cut off?)")

    def _step(self) -> bool:
        """One thing, if its bytes are there."""
        if self._in_member:
            return self._contents()
        if self._extra is not None:
            size = self._extra.size
            if len(self._buffer) < size + tarformat.padding(size):
                return False
            payload = bytes(self._buffer[:size])
            del self._buffer[: size + tarformat.padding(size)]
            self._remember(self._extra.kind, payload)
            self._extra = None
            return True
        if len(self._buffer) < BLOCK:
            return False
        block = bytes(self._buffer[:BLOCK])
        del self._buffer[:BLOCK]
        if not any(block):
            self._over = True
            self._buffer.clear()
            return False
        self._header(tarformat.decode(block))
        return True

    def _contents(self) -> bool:
        if self._left:
            if not self._buffer:
                return False
            piece = bytes(self._buffer[: self._left])
            del self._buffer[: len(piece)]
            self._left -= len(piece)
            (self._data if self._expander is None else self._expander.feed)(piece)
            return True
        if len(self._buffer) < self._padding:
            return False
        del self._buffer[: self._padding]
        self._in_member = False
        if self._expander is not None:
            self._expander.finish()
            self._expander = None
        self._end()
        return True

    def _header(self, entry: Entry) -> None:
        if entry.kind in _EXTRA:
            if entry.size > _MAX_EXTRA_BYTES:
                raise BadArchive(f"extended header: expected at most {_MAX_EXTRA_BYTES} bytes, got {entry.size}")
            self._extra = entry
            return
        if entry.kind not in tarformat.KINDS:
            raise BadArchive(f"member {entry.name!r:.80}: expected a known kind, got {entry.kind!r}")
        keys, self._keys = self._keys, {}
        entry.name, entry.link = keys.get("path", entry.name), keys.get("linkpath", entry.link)
        for key in _NUMBERS:
            if key in keys:
                setattr(entry, key, _whole(key, keys[key]))
        entry.xattrs, self._xattrs = self._xattrs, {}
        if entry.kind != tarformat.REGULAR:
            entry.size = 0
        self._left, self._padding = entry.size, tarformat.padding(entry.size)
        if any(key.startswith(_SPARSE) for key in keys):
            self._expect_holes(entry, keys)
        self._in_member = True
        self._begin(entry)

    def _expect_holes(self, entry: Entry, keys: dict[str, str]) -> None:
        from runtime.init.agent import tarsparse

        if entry.kind != tarformat.REGULAR:
            raise BadArchive(f"member {entry.name!r:.80}: expected a sparse file to be one, got {entry.kind!r}")
        entry.size, entry.name = tarsparse.real_size(keys), keys[tarsparse.PATH]
        self._expander = tarsparse.Expander(entry.size, self._data, self._seek)

    def _remember(self, kind: bytes, payload: bytes) -> None:
        if kind == tarformat.PAX:
            # No others: there may be any number of headers before a member.
            for key, value in tarformat.records(payload).items():
                if key in _KEYS or key in _SPARSE_KEYS:
                    self._keys[key] = value
                elif key.startswith(_SPARSE):  # of an older form, whose map may have any length
                    self._keys[_SPARSE] = ""
                elif key.startswith(tarformat.XATTR) and tarformat.is_copied(key.removeprefix(tarformat.XATTR)):
                    self._xattrs[key.removeprefix(tarformat.XATTR)] = value
            if sum([len(name) + len(value) for name, value in self._xattrs.items()]) > tarformat.MAX_XATTRS_BYTES:
                most = tarformat.MAX_XATTRS_BYTES
                raise BadArchive(f"pax header: expected attributes of at most {most} bytes, got more")
        elif kind in (tarformat.GNU_NAME, tarformat.GNU_LINK):
            key = "path" if kind == tarformat.GNU_NAME else "linkpath"
            self._keys[key] = payload.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _whole(key: str, text: str) -> int:
    number = text.partition(".")[0]
    digits = number.removeprefix("-") if key == "mtime" else number
    if not digits.isdigit():
        raise BadArchive(f"pax header: expected a number as {key}, got {text!r:.40}")
    return int(number)
