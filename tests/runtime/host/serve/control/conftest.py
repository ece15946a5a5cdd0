"""The service over a manager without Xen, and a grpcio client of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.controlserver import ControlServer


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlServer]:
    with contextlib.closing(ControlServer(tmp_path)) as server:
        yield server
