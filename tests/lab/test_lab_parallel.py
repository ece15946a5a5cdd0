"""Zones made and removed side by side while zoned is killed, and zones that take all the time there is, on real Xen."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import time
from collections.abc import Iterator

import pytest
from support.labzones import kill_zoned, wait_for
from support.zonecommand import ZoneCommand

from runtime.host.lab.lab import Lab

pytestmark = [pytest.mark.xen, pytest.mark.slow, pytest.mark.soak]

IMAGE = "recipe:nginx"
SMALL = ("-m", "96m")
MEMORY_MIB = 2048
KILLS = 3
SPIN = "while :; do :; done"


@dataclasses.dataclass(frozen=True)
class Large:
    """A lab that has room for eight zones, and `zone` on it."""

    lab: Lab
    zone: ZoneCommand


@pytest.fixture(scope="module")
def large(lab: Lab) -> Iterator[Large]:
    config = dataclasses.replace(lab.config, memory_mib=MEMORY_MIB)
    other = Lab(config, lab.store, directory=lab.state.directory.with_name(f"{lab.state.directory.name}-large"))
    other.down(wipe=True)
    other.up()
    command = ZoneCommand(f"lab:{other.state.directory.name}")
    yield Large(other, command)
    command.close()
    other.down(wipe=True)


def ended(processes: list[subprocess.Popen[bytes]]) -> bool:
    return all(process.poll() is not None for process in processes)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_zones_made_and_removed_at_once_while_zoned_is_killed_leave_nothing(large: Large, count: int) -> None:
    lab, zone = large.lab, large.zone
    chance = random.Random(count)
    names = [f"side{number}" for number in range(count)]
    making = [
        zone.start("run", "-d", "--name", name, *SMALL, IMAGE, "sleep", "1000", stdin=subprocess.DEVNULL)
        for name in names
    ]
    for _ in range(KILLS):
        time.sleep(chance.uniform(1.0, 8.0))
        kill_zoned(lab)
    wait_for(lambda: ended(making), "end of all that was started", 300)
    listed = set(zone("ps", "-aq").split())
    assert listed <= set(names)
    for name in listed:  # each is a zone that runs, or one that has ended and says how
        (found,) = zone.json("inspect", name)
        if found["state"] in ("running", "ready"):
            assert zone("exec", name, "hostname") == f"{name}\n"
        else:
            assert found["exit"]["text"], found
    removing = [zone.start("rm", "-f", name, stdin=subprocess.DEVNULL) for name in listed]
    time.sleep(chance.uniform(0.2, 3.0))
    kill_zoned(lab)
    wait_for(lambda: ended(removing), "end of all removals", 300)
    zone.remove_zones()
    assert zone.json("system", "check")["findings"] == []
    assert zone("run", "--rm", "--name", "after", *SMALL, IMAGE, "echo", "well") == "well\n"
    assert zone.json("system", "check")["findings"] == []


def test_zone_that_spins_on_all_its_processors_keeps_nobody_from_others_and_is_stopped(large: Large) -> None:
    zone = large.zone
    zone("run", "-d", "--name", "calm", *SMALL, IMAGE, "sleep", "1000")
    zone("run", "-d", "--name", "spin", "-c", "2", *SMALL, IMAGE, "sh", "-c", f"({SPIN}) & {SPIN}")
    for number in range(5):
        assert zone("exec", "-i", "calm", "cat", input=b"%d" % number) == str(number)
        assert zone("exec", "spin", "hostname") == "spin\n"
    assert {one["name"] for one in zone.json("ps")} == {"calm", "spin"}
    zone("stop", "-t", "2", "spin")
    (found,) = zone.json("inspect", "spin")
    assert found["exit"]["code"] in (137, 143), found["exit"]
    zone.remove_zones()
    assert zone.json("system", "check")["findings"] == []
