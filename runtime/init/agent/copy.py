"""The `stat`, `copy_in` and `copy_out` methods: files of a container, to and from the host, as tar."""

import posix

from runtime.init.agent import archive
from runtime.init.agent.archive import Archive
from runtime.init.agent.errors import Refused
from runtime.init.agent.extract import Extractor
from runtime.init.agent.stream import Handler, Stream
from runtime.init.agent.tarread import Reader


def stat(root_fd: int, path: str) -> dict[str, object]:
    """What a path is: kind, mode, owner, size, mtime; of a symlink also where it leads, and to what kind."""
    try:
        parent_fd, name = archive.locate(root_fd, path)
        try:
            status = posix.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            found: dict[str, object] = {
                "kind": archive.kind_name(status),
                "mode": status.st_mode & 0o7777,
                "uid": status.st_uid,
                "gid": status.st_gid,
                "size": status.st_size,
                "mtime": int(status.st_mtime),
            }
            if found["kind"] == "symlink":
                found["link"] = posix.readlink(name, dir_fd=parent_fd)
                found["target"] = _target(root_fd, path)
        finally:
            posix.close(parent_fd)
    finally:
        posix.close(root_fd)
    return found


def _target(root_fd: int, path: str) -> str:
    from runtime.init import abi, kernel

    try:
        fd = kernel.open_in(root_fd, path, abi.O_PATH)
    except OSError:
        return "missing"
    try:
        return archive.kind_name(posix.fstat(fd))
    finally:
        posix.close(fd)


class _CopyIn(Handler):
    def __init__(self, stream: Stream, root_fd: int, path: str) -> None:
        self._stream = stream
        self._extractor = Extractor(root_fd, path)
        self._reader = Reader(self._extractor.begin, self._extractor.data, self._extractor.end, self._extractor.seek)

    def data(self, fd: int, payload: bytes) -> None:
        if fd != 0:
            raise Refused("protocol", f"copy_in: expected bytes of descriptor 0, got some of {fd}")
        self._reader.feed(payload)
        self._stream.consumed(0, len(payload))

    def eof(self, fd: int) -> None:
        if fd == 0:
            self._reader.finish()
            self._extractor.finish()
            done = self._extractor
            result: dict[str, object] = {"entries": done.entries, "bytes": done.bytes}
            if done.xattrs_left_out:
                result["xattrs_left_out"] = done.xattrs_left_out
            self._stream.succeed(result)

    def closed(self) -> None:
        self._extractor.close()


class _CopyOut(Handler):
    def __init__(self, stream: Stream, root_fd: int, path: str) -> None:
        self._archive = Archive(root_fd, path)
        outlet = stream.outlet(1, self._archive.take)
        outlet.done = lambda: stream.succeed({"entries": self._archive.entries})

    def closed(self) -> None:
        self._archive.close()


def receive(stream: Stream, root_fd: int, path: str) -> None:
    """Unpack what comes on descriptor 0 in the directory `path`; ends with the archive."""
    try:
        stream.handler = _CopyIn(stream, root_fd, path)
    except BaseException:
        posix.close(root_fd)
        raise


def send(stream: Stream, root_fd: int, path: str) -> None:
    """Send `path` on descriptor 1."""
    stream.handler = _CopyOut(stream, root_fd, path)
