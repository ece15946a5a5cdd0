"""In dom0: every point of a boot and of a teardown fails once and kills once; a case of dom0_zone.py."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections import Counter
from typing import Any

from dom0parts import HOME, Host, Zone, say
from doorfaults import FaultyDoor, Points, faulty_edges, faulty_record, was_injected

from runtime.boot import resize

DONE, FAILED, DEFECT = 0, 3, 4


def faults(host: Host, count: str = "8", phases: str = "boot,end") -> None:
    """Points of a boot and of a teardown, evenly spread (0: all), each failed once and killed at once."""
    for phase in phases.split(","):
        assert run_child(host, phase, Points()) == DONE
        points = (HOME / "points").read_text().splitlines()
        recover(host)
        wanted = int(count) or len(points)
        chosen = points if wanted >= len(points) else [points[at * len(points) // wanted] for at in range(wanted)]
        for what in ("fail", "kill"):
            ended: Counter[int] = Counter()
            missed, started = [], time.monotonic()
            for point in chosen:
                for _ in range(3):  # how often a wait looks differs from run to run
                    code = run_child(host, phase, Points(point, what))
                    reached = point in (HOME / "points").read_text().splitlines()
                    recover(host)
                    left = settled(host)
                    assert left == [] and code != DEFECT, (phase, what, point, code, left)
                    if reached:
                        break
                ended[code] += 1
                missed += [] if reached else [point]
            kinds = Counter(point.split(" ")[0].split("#")[0] for point in points)
            say(phase=phase, what=what, points=len(points), tried=len(chosen), missed=missed, ended=dict(ended),
                kinds=dict(kinds), seconds=round(time.monotonic() - started))  # fmt: skip


def run_child(host: Host, phase: str, points: Any) -> int:
    def note() -> None:
        (HOME / "points").write_text("\n".join(points.seen))

    points.before_kill = note
    pid = os.fork()
    if not pid:
        code = DEFECT
        try:
            host.open()
            door = FaultyDoor(host.hypervisor.door, points if phase == "boot" else Points())
            host.hypervisor._door = door
            ledger = host.ledgers.create("box")
            record = faulty_record(ledger.record, points) if phase == "boot" else ledger.record
            zone = Zone(host, ledger, record)
            try:
                if phase == "boot":
                    with faulty_edges(points):
                        zone.boot(script="busybox sleep 600")
                        domain = zone.domain
                        resize.set_memory(host.hypervisor, host.xenstore, domain.domid, domain.uuid, 150)
                        resize.set_vcpus(host.hypervisor, host.xenstore, domain.domid, domain.uuid, 1)
                else:
                    zone.boot(script="busybox sleep 600")
                    door.points = points
                    with faulty_edges(points):
                        zone.end()
            except BaseException:
                with faulty_edges(points):
                    zone.end()
                raise
            code = DONE
        except Exception:
            text = traceback.format_exc()
            code = FAILED if was_injected(text, points) else DEFECT
            if code == DEFECT:
                sys.stderr.write(text)
        finally:
            note()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def recover(host: Host) -> None:
    """What the next zoned does with the ledgers it finds."""
    for ledger in host.ledgers.all():
        Zone(host, ledger, ledger.record).end()


def settled(host: Host) -> list[str]:
    """What is left; an engine whose starter was killed before telling it anything ends by itself, once it runs."""
    deadline = time.monotonic() + 30
    while any("(a network engine): in no ledger" in line for line in host.findings()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return host.findings()
