"""The fixture that gives a test its own little world of network namespaces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.networld import World, make_world


@pytest.fixture
def world() -> Iterator[World]:
    with make_world() as made:
        yield made
