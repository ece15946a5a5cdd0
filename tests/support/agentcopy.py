"""Files into a zone's workload and out of it, as the host of its agent does it."""

from __future__ import annotations

import io
import tarfile
from typing import Any

from support.agenthost import AgentHost


def archive_of(**files: bytes | str) -> bytes:
    """Files of these contents, and symlinks that lead where a text says."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.mtime = 1234567890
            if isinstance(content, bytes):
                member.size, member.mode, member.uid, member.gid = len(content), 0o640, 33, 44
                tar.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
    return out.getvalue()


def copy_in(host: AgentHost, path: str, archive: bytes) -> dict[str, Any]:
    """Unpack an archive in the workload."""
    stream = host.open("copy_in", container="main", path=path)
    stream.write(archive)
    if stream.result is None:
        stream.eof()
    return stream.wait()


def copy_out(host: AgentHost, path: str) -> tarfile.TarFile:
    """What comes of a path of the workload."""
    stream = host.open("copy_out", container="main", path=path)
    stream.wait()
    return tarfile.open(fileobj=io.BytesIO(bytes(stream.data[1])))
