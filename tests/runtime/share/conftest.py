"""A directory to share, and a client that has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ninep import Client
from support.sharing import client_of


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    directory = tmp_path / "shared"
    directory.mkdir()
    (directory / "file").write_bytes(b"content")
    (directory / "dir" / "below").mkdir(parents=True)
    (directory / "dir" / "inner").write_bytes(b"inner content")
    (directory / "away").symlink_to("/etc")
    return directory


@pytest.fixture
def client(shared: Path) -> Iterator[Client]:
    with client_of(shared) as found:
        yield found
