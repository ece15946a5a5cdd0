"""`zone system check` on a real dom0: leaks of several kinds are planted, told, and when they are gone no more."""

from __future__ import annotations

import json

import pytest
from support.zonecommand import ZoneCommand

from runtime.host.lab.lab import Lab

pytestmark = [pytest.mark.xen, pytest.mark.slow]

RUN, STATE = "/run/zonewright", "/var/lib/zonewright"
XENSTORE = "from runtime.boot.xenstore import XenStore; store = XenStore(); store"
NETNS = "from runtime.net import netns; netns"


def python(code: str) -> str:
    return f'PYTHONPATH=/opt/zonewright python3 -c "{code}"'


# What makes a process a network engine to the check is its command line.
ENGINE = python(
    "import os, signal, socket; from runtime.net.engine.main import main; "
    "listener = socket.create_server(('127.0.0.1', 8099)); open('/tmp/planted', 'w').write(str(os.getpid())); "
    "signal.pause()"
)
# What is told -> what plants it in dom0, what takes it away.
PLANTS = {
    ("file", f"{RUN}/planted"): (f"touch {RUN}/planted", f"rm {RUN}/planted"),
    ("file", f"{RUN}/net/planted"): (f"mkdir -p {RUN}/net/planted", f"rmdir {RUN}/net/planted"),
    ("file", f"{RUN}/ledger/planted"): (f"touch {RUN}/ledger/planted", f"rm {RUN}/ledger/planted"),
    ("file", f"{STATE}/logs/planted"): (f"mkdir -p {STATE}/logs/planted", f"rmdir {STATE}/logs/planted"),
    ("file", f"{STATE}/store/tmp/blob.planted"): (
        f"touch {STATE}/store/tmp/blob.planted",
        f"rm {STATE}/store/tmp/blob.planted",
    ),
    ("xenstore", "/local/domain/999"): (
        python(f"{XENSTORE}.write('/local/domain/999/name', 'planted'); store.close()"),
        python(f"{XENSTORE}.remove('/local/domain/999'); store.close()"),
    ),
    ("netns", "zw-planted"): (python(f"{NETNS}.create('zw-planted')"), python(f"{NETNS}.delete('zw-planted')")),
    ("mount", f"{RUN}/planted"): (f"mount --bind {RUN}/planted {RUN}/planted", f"umount {RUN}/planted"),
    ("vif", "vif999.0"): ("ip link add vif999.0 type bridge", "ip link delete vif999.0"),
    ("port", "127.0.0.1:8099"): (
        f"{ENGINE} >/dev/null 2>&1 & until [ -s /tmp/planted ]; do sleep 0.1; done",
        "kill -9 $(cat /tmp/planted); rm /tmp/planted",
    ),
}


def findings(command: ZoneCommand, code: int) -> set[tuple[str, str]]:
    report = json.loads(command("system", "check", "--format", "json", code=code))
    return {(one["kind"], one["what"]) for one in report["findings"]}


def test_leaks_planted_in_dom0_are_told_each_and_when_they_are_gone_no_more(lab: Lab, command: ZoneCommand) -> None:
    assert findings(command, 0) == set()
    try:
        for plant, _ in PLANTS.values():
            code, said = lab.shell(plant)
            assert code == 0, (plant, said)
        engine = lab.shell("cat /tmp/planted")[1]
        # A namespace is a mount as well, and a port is told beside who holds it.
        beside = {("mount", "/run/netns/zw-planted"), ("process", f"{engine} (a network engine)")}
        assert findings(command, 1) == {*PLANTS} | beside
        shown = command("system", "check", code=1)
        assert all(what in shown for _, what in PLANTS)
    finally:
        for _, undo in reversed(PLANTS.values()):
            lab.shell(undo)
    assert findings(command, 0) == set()
