"""os/xen/zoned.service on real Xen: systemd starts zoned, sees it ready, starts it again, and leaves zones alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import systemdhost
from support.dom0disk import store_in_dom0
from support.labzones import wait_for
from support.systemdhost import SystemdHost

from pipeline.progress import PlainProgress
from pipeline.store import Store
from runtime.host.lab.lab import Lab

pytestmark = [pytest.mark.xen, pytest.mark.slow, pytest.mark.network, pytest.mark.soak]

PAGE = 'python3 -c "import urllib.request as r; print(r.urlopen(\\"http://127.0.0.1:8080/\\").read())"'


@pytest.fixture
def dom0(own: Lab, store: Store, tmp_path: Path) -> Iterator[SystemdHost]:
    own.up(PlainProgress())
    file = systemdhost.built(store, tmp_path)
    with store_in_dom0(own, store, tmp_path) as path:
        yield systemdhost.start(own, store, file, path)


def zones(dom0: SystemdHost) -> list[dict[str, Any]]:
    return list(json.loads(dom0("zone ps --format json")))


def engines(dom0: SystemdHost) -> str:
    return dom0("pgrep -f [r]untime.net.engine.main || true")


def assert_zone_is_as_it_was(dom0: SystemdHost, before: list[dict[str, Any]], its_engine: str) -> None:
    assert "Served by nginx in zone nginx" in dom0(PAGE)
    assert [(zone["domid"], zone["state"]) for zone in zones(dom0)] == [(before[0]["domid"], "ready")]
    assert engines(dom0) == its_engine
    assert dom0("zone exec nginx echo well") == "well\n"
    assert json.loads(dom0("zone system check --format json"))["findings"] == []


def test_unit_starts_zoned_starts_it_again_and_zones_run_on(dom0: SystemdHost) -> None:
    assert dom0("systemd-analyze verify zoned.service") == ""
    assert dom0("systemctl is-active zoned", code=3) == "inactive\n"
    assert zones(dom0) == []  # the first command has systemd start it
    assert dom0("systemctl is-active zoned") == "active\n"
    first = dom0.show("MainPID")
    assert "zone nginx is up: http://127.0.0.1:8080/" in dom0("zone boot nginx")
    before, its_engine = zones(dom0), engines(dom0)

    dom0(f"kill -9 {first}")
    wait_for(
        lambda: dom0.show("MainPID") not in ("0", first) and dom0.show("ActiveState") == "active", "another zoned", 120
    )
    assert dom0.show("NRestarts") == "1"
    assert_zone_is_as_it_was(dom0, before, its_engine)

    second = dom0.show("MainPID")
    dom0("systemctl reload zoned")
    assert dom0.show("MainPID") == second
    dom0("systemctl restart zoned")
    assert dom0.show("MainPID") not in ("0", second)
    assert_zone_is_as_it_was(dom0, before, its_engine)

    dom0("systemctl stop zoned")
    assert dom0("systemctl is-active zoned", code=3) == "inactive\n"
    assert "Served by nginx in zone nginx" in dom0(PAGE)
    assert_zone_is_as_it_was(dom0, before, its_engine)  # which starts it

    assert "zone nginx is stopped: exit code 0" in dom0("zone stop nginx")
    dom0("zone rm nginx")
    assert json.loads(dom0("zone system check --format json"))["findings"] == []
    dom0("systemctl stop zoned")
    left = "ls /run/netns; cat /sys/fs/cgroup/host/system.slice/zoned.service/cgroup.procs"
    assert dom0(f"({left}) 2>/dev/null || true") == ""
