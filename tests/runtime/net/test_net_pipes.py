"""The pool of pipes: what it does where the kernel gives no more."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.net.engine import pipes
from runtime.net.engine.model import Limits
from runtime.net.engine.pipes import PipePool


def test_pool_without_descriptors_gives_none_and_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = PipePool(2)
    with monkeypatch.context() as patched:
        patched.setattr(pipes.os, "pipe2", _refuse(errno.EMFILE))
        assert pool.take() is None
    pipe = pool.take()
    assert pipe is not None
    pool.give(pipe)
    assert (pool.take(), pool.made) == (pipe, 1)
    pool.drop(pipe)
    assert pool.made == 0


def _refuse(code: int) -> Callable[..., object]:
    def refuse(*_: object) -> object:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.root
def test_user_whose_pages_are_spent_has_pipes_of_full_size_only() -> None:
    """As the engine is: an unprivileged user. pipe-user-pages-soft is what the kernel has by default."""
    soft = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text())
    if soft != 16384 or os.geteuid() != 0:
        pytest.skip("needs root, and a pipe-user-pages-soft of 16384")
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresuid(64999, 64999, 64999)
            pool = PipePool(100)
            taken = [pool.take() for _ in range(100)]
            sizes = {pipes.fcntl.fcntl(pipe.write_fd, pipes.fcntl.F_GETPIPE_SZ) for pipe in taken if pipe}
            os.write(write_fd, struct.pack("iiq", sum(pipe is not None for pipe in taken), pool.made, min(sizes)))
        finally:
            os._exit(0)
    os.close(write_fd)
    with open(read_fd, "rb") as answer:
        count, made, smallest = struct.unpack("iiq", answer.read())
    os.waitpid(child, 0)
    assert count == made
    assert Limits().pipes <= count <= 64
    assert smallest >= pipes.SMALLEST_BYTES
