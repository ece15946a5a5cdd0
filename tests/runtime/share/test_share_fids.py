"""The numbers a client has for files, and what the server holds for each."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from support.descriptors import descriptors
from support.sharing import client_of, refused

READ_WRITE = 2


def test_file_system_that_fails_at_the_end_of_a_file_keeps_no_descriptor(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS does for what it could not keep: close(2) has closed all the same."""
    close = os.close

    def closing(fd: int) -> None:
        written = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        close(fd)
        if written:
            raise OSError(errno.EDQUOT, "")

    def held() -> int:
        return sum(path.startswith(str(shared)) for _, path in descriptors())

    with client_of(shared) as client:
        opened = [client.open(b"file", flags=READ_WRITE) for _ in range(3)]
        before = held()
        monkeypatch.setattr(os, "close", closing)
        refused(errno.EDQUOT, client.ask, "clunk", opened[0])
        refused(errno.EBADF, client.ask, "clunk", opened[0])
        assert before - held() == 2
        client.start(uid=os.geteuid())  # which ends the session before, with all its files
        assert before - held() == 6
        client.open(b"file", flags=READ_WRITE)
