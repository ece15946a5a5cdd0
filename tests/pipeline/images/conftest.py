from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.env import Env
from pipeline.store import Store


@pytest.fixture
def env(tmp_path: Path) -> Env:
    return Env(Store(tmp_path / "store"))
