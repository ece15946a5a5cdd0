"""Whoever boots a zone may be ended at any moment; the next boot works and nothing of the first is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from support.labzones import boot, get, live, wait_for
from support.ports import free_port

from pipeline.bundle.model import Port
from pipeline.recipe import PROJECT

pytestmark = pytest.mark.xen

BOOTER = """
import sys
from pathlib import Path
from pipeline import task
from pipeline.progress import Progress
from runtime.host import actions
from runtime.host.hosts import LabHost
from runtime.host.lab.config import load_config
from runtime.host.lab.lab import Lab
lab = Lab(load_config(Path("/nonexistent"), flavour=sys.argv[2]), task.env().store, directory=Path(sys.argv[1]))
print("begins", flush=True)
actions.boot(LabHost(task.env().store, lab), task.env().store, sys.argv[3], progress=Progress())
"""


def begin(host, name: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", BOOTER, str(host.lab.state.directory), host.lab.config.flavour, name]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begins\n"
    return process


@pytest.mark.parametrize("after_s", [2.0, *(pytest.param(other, marks=pytest.mark.soak) for other in (0.5, 6.0))])
def test_boot_killed_at_any_moment_is_simply_done_again(host, make, after_s):
    port = free_port()
    name = make("cut", ports=(Port("127.0.0.1", port, 80),))
    process = begin(host, name)
    time.sleep(after_s)
    process.kill()
    process.communicate()
    boot(host, name)
    assert "zone cut" in get(f"http://127.0.0.1:{port}/")
    (zone,) = live(host)
    assert zone.state == "ready"
    assert list(host.lab.forwards()) == [("127.0.0.1", port, "tcp")]


def test_interrupted_boot_leaves_no_zone_and_no_port(host, make):
    name = make("stopped", ports=(Port("127.0.0.1", free_port(), 80),))
    process = begin(host, name)
    wait_for(lambda: [zone for zone in live(host) if zone.domid], "zone")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode != 0 and b"KeyboardInterrupt" in said
    wait_for(lambda: not live(host), "end of the zone")
    assert host.lab.forwards() == {}
