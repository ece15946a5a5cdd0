"""What a workload does to hold the agent up, or to hide from it: the agent goes on, and sees it."""

import contextlib
import os
from pathlib import Path

import pytest
from support import zonebox
from support.containers import eventually
from support.zonebox import IDLE, cgroup_of, sh

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts"),
]


def numbered_in_the_zone(pid):
    """What the zone calls a process of the workload's; None where it has ended since it was listed."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/status").read_text().split("NSpid:")[1].split("\n")[0].split()[-2])


def test_processes_in_groups_of_their_own_are_seen_and_signalled(zone, host):
    group = cgroup_of(zone) / "main" / "own"
    stream = host.open("exec", container="main", process=sh("trap 'exit 5' USR1; echo up; while :; do sleep 0.1; done"))
    host.until(lambda: stream.data[1] == b"up\n")
    pid = stream.events[0]["started"]
    group.mkdir()
    inside = (group.parent / "cgroup.procs").read_text().split()
    outside = next(each for each in inside if numbered_in_the_zone(each) == pid)
    (group / "cgroup.procs").write_text(outside)
    assert pid in [one["pid"] for one in host.call("processes", container="main")["processes"]]
    host.call("kill", id="main", signal=10, all=True)
    assert stream.wait()["exit"] == {"code": 5}
    assert eventually(lambda: "populated 0" in (group / "cgroup.events").read_text()), "what it began is there no more"
    group.rmdir()


@pytest.mark.parametrize("method", ["start", "delete"])
def test_what_is_left_of_a_run_is_waited_for_without_holding_up_others(start, image, method):
    """Pid 1 of a zone cannot be killed from within it: as little as a process that the kernel does not let go."""
    zone = start(IDLE)
    host, group = zone.host, cgroup_of(zone) / "two"
    with zonebox.loop_device(image) as device:
        spec = {"root": {"device": device.removeprefix("/dev/")}, "process": sh("exit 3")}
        host.call("create", id="two", spec=spec)
        host.call("start", id="two")
        host.note("exit", container="two")
        (group / "cgroup.procs").write_text(str(zone.init_pid))
        later = host.open(method, id="two")
        assert host.call("ping") and later.result is None
        (group.parent.parent / "cgroup.procs").write_text(str(zone.init_pid))
        later.wait()
        assert group.exists() == (method == "start")
        host.call("shutdown", mode="now")
        zone.wait()
