"""An earlier state of dom0's disks is brought back beside a Xen that has gone on, as a restored snapshot does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.labzones import boot, forget, wait_for
from support.zonecommand import ZoneCommand

from runtime.host import actions
from runtime.host.hosts import LabHost

pytestmark = [pytest.mark.xen, pytest.mark.slow, pytest.mark.soak]

KEEP = """
set -e
rm -rf /run/kept && mkdir /run/kept
cp -a /run/zonewright/ledger /run/kept
cp -a /var/lib/zonewright/zones.sqlite* /run/kept
"""
# `stopping` keeps the keeper from starting the next zoned; it ends, too, and is started again where all is in place.
BRING_BACK = """
set -e
touch /run/zonewright/stopping
keeper=$(grep ^PPid /proc/{pid}/status | cut -f2)
kill -9 {pid}
while [ -e /proc/{pid} ]; do sleep 0.1; done
rm -rf /run/zonewright/ledger /var/lib/zonewright/zones.sqlite*
cp -a /run/kept/ledger /run/zonewright
cp -a /run/kept/zones.sqlite* /var/lib/zonewright
rm -r /run/kept /run/zonewright/stopping
kill $keeper
"""


def test_what_xen_lists_is_believed(host: LabHost, make: Callable[..., str], command: ZoneCommand) -> None:
    earlier, later = (make(name, "/bin/sleep", "1000") for name in ("earlier", "later"))
    boot(host, earlier)
    shell(host, KEEP)
    forget(host, earlier)
    boot(host, later)
    pid = int(host.lab.call("ping")["zoned"]["pid"])
    shell(host, BRING_BACK.format(pid=pid))
    wait_for(lambda: host.lab.call("ping")["zoned"]["state"] == "serving", "new zoned", 120)
    assert [(one.name, one.exit.reason) for one in actions.zones(host)] == [(earlier, "lost")]
    assert command.json("system", "check")["findings"] == []
    boot(host, later)
    boot(host, earlier)


def shell(host: LabHost, script: str) -> None:
    code, said = host.lab.shell(script)
    assert code == 0, said
