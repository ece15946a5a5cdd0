"""CPUs that the agent brings online: one that Xen has only just made available is tried again."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from runtime.init.agent import system
from runtime.init.agent.errors import Refused


class FakeStream:
    """Time passes at once."""

    def __init__(self) -> None:
        self.result: Any = None

    def succeed(self, result: dict[str, object]) -> None:
        self.result = result

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        action()


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The errnos of the next tries to bring cpu 1 online; then it comes."""
    errnos: list[int] = []
    online = "0"

    def write(path: str, text: str) -> None:
        nonlocal online
        assert path.endswith("/cpu1/online") and text == "1"
        if errnos:
            raise OSError(errnos.pop(0), "refused")
        online = "0-1"

    monkeypatch.setattr(system, "read", lambda path: "0" if "/cpu1/" in path else online)
    monkeypatch.setattr(system, "write", write)
    monkeypatch.setattr(system.devices, "exists", lambda path: "/cpu1/" in path)
    return errnos


def test_a_cpu_that_is_about_to_be_there_is_tried_again(refusals: list[int]) -> None:
    refusals += [errno.ENOENT, errno.EINVAL, errno.EINVAL, errno.ENODEV, errno.EBUSY]
    stream = FakeStream()
    system.set_cpus(None, stream, 2)  # type: ignore[arg-type]
    assert stream.result == {"online": 2}


def test_a_refusal_of_the_kernels_is_told(refusals: list[int]) -> None:
    refusals.append(errno.EPERM)
    with pytest.raises(Refused, match="cpu 1"):
        system.set_cpus(None, FakeStream(), 2)  # type: ignore[arg-type]
