"""Work in another thread that stops at a known place until the test lets it go on."""

from __future__ import annotations

import threading
from typing import Any

import pytest


def held(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> tuple[threading.Event, threading.Event]:
    """A function reaches the first event before it begins, and goes on after the second."""
    reached, go_on = threading.Event(), threading.Event()
    function = getattr(owner, name)

    def wait(*arguments: Any) -> Any:
        reached.set()
        assert go_on.wait(120)
        return function(*arguments)

    monkeypatch.setattr(owner, name, wait)
    return reached, go_on
