"""On a dom0, the first command of root's starts zoned, whichever it is; nobody else's does, and no other host's."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fakeprocesses import Run
from support.fakezoned import FakeZoned

from runtime.host import hosts
from runtime.host.client import connect, endpoint, ondemand
from runtime.host.client.endpoint import Endpoint


class Dom0:
    """A control domain whose zoned begins to answer when it is started; starts counts how often it was."""

    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        self.path, self._stack, self.starts = path, stack, 0

    def start(self, *_: object) -> None:
        self.starts += 1
        zoned = self._stack.enter_context(FakeZoned(self.path))
        zoned.add("web", ports=((8080, 80),))

        async def true(run: Run) -> int:
            return 0

        zoned.programs["true"] = true


@pytest.fixture
def dom0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dom0]:
    path = tmp_path / "run" / "own.sock"
    path.parent.mkdir()
    with contextlib.ExitStack() as stack:
        made = Dom0(path, stack)
        monkeypatch.setenv("ZONE_HOST", "xen")
        monkeypatch.setattr(ondemand, "is_control_domain", lambda: True)
        monkeypatch.setattr(ondemand.os, "geteuid", lambda: 0)
        monkeypatch.setattr(endpoint, "endpoint_of", lambda address: Endpoint(endpoint.OWN, "unix", path=path))
        monkeypatch.setattr(hosts, "_start_by_systemd", lambda: False)
        monkeypatch.setattr(hosts, "_start", made.start)
        monkeypatch.setitem(hosts.XenHost.__init__.__kwdefaults__, "path", path)
        yield made


@pytest.mark.parametrize(
    "words",
    [
        ("ps",),
        ("logs", "web"),
        ("inspect", "web"),
        ("exec", "web", "true"),
        ("stop", "web"),
        ("update", "--restart", "always", "web"),
        ("top", "--once"),
        ("system", "check"),
        ("events", "--since", "start"),
    ],
    ids=lambda words: words[0],
)
def test_first_command_starts_zoned_and_the_next_does_not(zone, dom0: Dom0, words: tuple[str, ...]) -> None:
    zone(*words)
    assert dom0.starts == 1
    zone("ps")
    assert dom0.starts == 1


def test_socket_that_nobody_listens_on_any_more_counts_for_none(zone, dom0: Dom0) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(dom0.path))
    with pytest.raises(ConnectionRefusedError):
        ondemand.connect_unix(dom0.path, timeout_s=1)
    assert zone("ps", "-q") == "web\n" and dom0.starts == 1


def test_only_root_starts_it(zone, dom0: Dom0, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ondemand.os, "geteuid", lambda: 1000)
    assert "host xen: expected zoned to listen on" in zone.sentence("ps")
    assert dom0.starts == 0


def test_completion_starts_nothing(dom0: Dom0) -> None:
    with connect("xen", start=False):
        assert dom0.starts == 0
    from runtime.host.cli import candidates

    with pytest.raises(Exception, match="zoned to listen"):
        candidates._list_zones("xen")
    assert dom0.starts == 0


def test_status_of_a_host_whose_zoned_does_not_run_is_down_and_starts_nothing(zone, dom0: Dom0) -> None:
    assert zone("host", "status").split() == ["host:", "xen", "up:", "no"]
    assert dom0.starts == 0
