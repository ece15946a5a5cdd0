"""zoned is killed, again and again, while zones run in real Xen: they serve on, and nothing of them is lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest
from support.labzones import boot, get, kill_zoned, wait_for, zone_of
from support.ports import free_port
from support.zonecommand import ZoneCommand

from pipeline.bundle.model import Port
from pipeline.progress import Progress
from runtime.host import actions
from runtime.host.hosts import LabHost

pytestmark = [pytest.mark.xen, pytest.mark.slow]

KILLS = int(os.environ.get("ZONEWRIGHT_KILLS", "1"))
PAGE = "http://127.0.0.1:{}/"


def test_zones_outlive_killed_zoneds(host: LabHost, make: Callable[..., str], command: ZoneCommand) -> None:
    ports = {name: free_port() for name in ("one", "two")}
    for name, port in ports.items():
        boot(host, make(name, ports=(Port("127.0.0.1", port, 80),)))
    before = {name: zone_of(host, name) for name in ports}
    for _ in range(KILLS):
        kill_zoned(host.lab)
        for name, port in ports.items():
            assert "nginx" in get(PAGE.format(port)).lower()
            zone = wait_for(lambda name=name: zone_of(host, name), f"zone {name}")
            known = before[name]
            assert (zone.id, zone.domid, zone.domain_uuid) == (known.id, known.domid, known.domain_uuid)
            assert zone.state in ("running", "ready") and zone.restarts == 0
            assert command("exec", name, "hostname") == f"{name}\n"
            # The page was asked for after the kill.
            wait_for(lambda name=name: "GET / HTTP" in command("logs", name), f"word of the page in the log of {name}")
    for name in ports:
        stopped = actions.stop(host, name, progress=Progress())
        assert stopped.exit.code == 0, "nginx ends with 0 when it gets its own stop signal, SIGQUIT"


def test_zone_whose_ledger_nobody_can_read_costs_no_other_and_is_taken_over_once_it_can_be(
    host: LabHost, make: Callable[..., str], command: ZoneCommand
) -> None:
    ports = {name: free_port() for name in ("whole", "spoilt")}
    for name, port in ports.items():
        boot(host, make(name, ports=(Port("127.0.0.1", port, 80),)))
    before = zone_of(host, "spoilt")
    ledger = f"/run/zonewright/ledger/{before.domain_uuid}.jsonl"
    assert host.lab.shell(f"mv {ledger} /root/ledger && mkdir {ledger}")[0] == 0  # as where the disk gives an error
    kill_zoned(host.lab)
    for port in ports.values():
        assert "nginx" in get(PAGE.format(port)).lower(), "what runs runs on"
    assert command("exec", "whole", "hostname") == "whole\n"
    command("stop", "spoilt", code=1)
    assert b"cannot be read" in command.err
    assert host.lab.shell(f"rmdir {ledger} && mv /root/ledger {ledger}")[0] == 0
    kill_zoned(host.lab)
    after = wait_for(lambda: zone_of(host, "spoilt"), "zone that can be read")
    assert (after.id, after.domid, after.restarts) == (before.id, before.domid, 0)
    for name in ports:
        command("stop", name)


@pytest.mark.soak
def test_boot_that_a_kill_interrupts_leaves_nothing(host: LabHost, make: Callable[..., str]) -> None:
    name = make("cut", "/bin/sleep", "1000")
    failures: list[BaseException] = []

    def booting() -> None:
        try:
            boot(host, name)
        except BaseException as error:
            failures.append(error)

    booter = threading.Thread(target=booting)
    booter.start()
    wait_for(lambda: any(zone.name == name for zone in actions.zones(host)), "zone that is being booted")
    kill_zoned(host.lab)
    booter.join(120)
    assert failures, "the boot went through in spite of it"
    zone = zone_of(host, name)
    assert zone.state in ("failed", "exited", "running", "ready")
    boot(host, make("after", "/bin/sleep", "1000"))
