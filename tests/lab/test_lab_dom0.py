"""The same code in a dom0 by itself: what a real Xen host runs needs nothing of the lab."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import dom0_boot
from support.dom0disk import STORE, disk_in_dom0, store_in_dom0

from pipeline.store import Store
from runtime.host.lab.lab import Lab

pytestmark = pytest.mark.xen


@pytest.fixture
def dom0_store(host: Any, lab: Lab, store: Store, tmp_path: Path) -> Iterator[str]:
    """A store with the nginx bundle in it, inside dom0: the path there."""
    with store_in_dom0(lab, store, tmp_path) as path:
        yield path


def zone(lab: Lab, words: str) -> str:
    code, said = lab.shell(f"ZONEWRIGHT_STORE={STORE} zone {words}", timeout_s=300)
    assert code == 0, said
    return said


def test_zone_boot_typed_in_dom0_boots_from_its_own_store(lab, dom0_store):
    said = zone(lab, "boot nginx")
    assert "zone nginx is up: http://127.0.0.1:8080/" in said
    code, page = lab.shell(
        "python3 -c 'import urllib.request as r; print(r.urlopen(\"http://127.0.0.1:8080/\").read())'"
    )
    assert code == 0 and "Served by nginx in zone nginx" in page
    (listed,) = json.loads(zone(lab, "ps --format json"))
    assert listed["name"] == "nginx" and listed["state"] == "ready"
    assert "zone nginx is stopped: exit code 0" in zone(lab, "stop nginx")
    assert lab.shell("losetup -a; ls /run/netns")[1] == "", "its loop device and its namespace are gone"


@pytest.mark.parametrize(
    "case", ["sizes", *(pytest.param(case, marks=pytest.mark.soak) for case in ("killed", "three", "single_pages"))]
)
def test_domains_are_built_and_taken_down(host, lab, nginx, case):
    """Sizes and vCPUs, three at once, memory in single pages, the builder killed at twelve moments."""
    paths = []
    for blob in (nginx.kernel, nginx.initrd[0]):
        paths += [disk_in_dom0(lab, blob), str(blob.size_bytes)]
    program = Path(dom0_boot.__file__).read_text()
    try:
        lab.shell("cat >/tmp/dom0_boot.py", input=program)
        code, said = lab.shell(f"cd /tmp && python3 dom0_boot.py {' '.join(paths)} {case}", timeout_s=600)
        assert code == 0, said
        last = json.loads(said.strip().splitlines()[-1])
        assert last["left"] == last["before"]
        assert "faults" not in said or '"faults": []' in said
        if case == "sizes":
            assert "smp: Brought up 1 node, 4 CPUs" in said
    finally:
        for blob in (nginx.kernel, nginx.initrd[0]):
            lab.detach(str(blob.digest))
