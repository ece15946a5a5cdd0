"""dom0's xenstored ends and another is started, in a lab of its own: Xen knows no way to start it again unharmed."""

from __future__ import annotations

import pytest
from support.labzones import get, wait_for
from support.ports import free_port
from support.zonecommand import ZoneCommand

from runtime.host.lab.lab import Lab

pytestmark = [pytest.mark.xen, pytest.mark.slow, pytest.mark.soak]

RESTART = """
kill -9 $(cat /run/xenstored.pid)
rm /run/xenstored/socket
PYTHONPATH=/opt/zonewright python3 -c 'from runtime.host.dom0.start import start_xenstored; start_xenstored()'
"""


def test_zones_serve_on_no_other_is_begun_and_it_is_said_why(own: Lab) -> None:
    own.up()
    zone, port = ZoneCommand(f"lab:{own.state.directory.name}"), free_port()
    zone("run", "-d", "--name", "web", "-p", f"{port}:80", "-m", "128m", "recipe:nginx")
    zone("wait", "--until", "ports", "web")
    before = own.call("ping")["zoned"]["pid"]
    code, said = own.shell(RESTART)
    assert code == 0, said

    def another() -> bool:
        found = own.call("ping")["zoned"]
        return found["pid"] != before and found["state"] == "serving"

    wait_for(another, "zoned that the new xenstored answers", 120)
    assert "nginx" in get(f"http://127.0.0.1:{port}/").lower()
    (web,) = zone.json("ps")
    assert (web["name"], web["state"], web["restarts"]) == ("web", "ready", 0)
    assert any("started since" in sentence for sentence in zone.json("host", "status")["missing"])
    zone("run", "-d", "--name", "new", "-m", "128m", "recipe:nginx", code=125)
    assert b"dom0's kernel hears of no new devices" in zone.err
    zone("stop", "web")
    assert zone.json("ps") == []
