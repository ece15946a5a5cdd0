"""What a workload does to hold the agent up, or to hide from it: the agent goes on, and sees it."""

import contextlib
import os
from pathlib import Path

import pytest
from support import zonebox
from support.agentcopy import archive_of, copy_in, copy_out
from support.agenthost import AgentError
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


# What a workload may do to be in everybody's way, each without end, once it has said that it begins.
HOSTILE = {
    "stops whatever it sees": "trap '' TERM HUP; echo up; while :; do kill -STOP -1; done 2>/dev/null",
    "says more than anybody takes": "trap '' TERM HUP; echo up; while :; do echo ............; done",
    "leaves sleepers in sessions of their own": """echo up; exec perl -e '$SIG{TERM} = "IGNORE";
        for (1 .. 99) { fork or do { syscall(112); fork and exit; exec "sleep", "1000" } } sleep 1000'""",
    "writes to what /proc has of pid 1": """trap '' TERM HUP; echo up
        while :; do for f in /proc/1/*; do [ -d $f ] || echo x >$f; done; done 2>/dev/null""",
    "closes what it has": "trap '' TERM HUP; echo up; exec <&- >&- 2>&-; while :; do :; done",
}


@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE)
def test_a_workload_that_is_in_everybodys_way_is_answered_for_and_ended(start, script):
    zone = start(sh(script))
    host = zone.host
    host.until_output("main", 1, 3)
    # What is run in it may be stopped before it has a command, and is called off then.
    called_off = [host.open("exec", container="main", process=sh("sleep 1000")) for _ in range(6)]
    assert host.call("ping") and host.call("metrics") and host.call("processes", container="main")["processes"]
    assert host.call("stat", path="/etc/passwd")["kind"] == "file"
    for stream in called_off:
        stream.cancel()
    host.call("shutdown", mode="stop", timeout_s=0.5)
    assert zone.wait()[1].endswith("signal 9")


def test_a_workload_that_forks_without_end_keeps_nobody_from_entering_and_ends(start):
    """As a user of its own, as on this machine only that has a limit; to a zone, so many are a little."""
    container = zonebox.confined("[rlimits]\nnproc = 60")
    script = """perl -e '$SIG{TERM} = "IGNORE"; $| = 1; print "up\n"; while (1) { fork }'"""
    zone = start(sh(script, uid=54321, gid=54321), extra={"container": container})
    host = zone.host
    host.until_output("main", 1, 3)
    host.until(lambda: len(host.call("processes", container="main")["processes"]) > 30)
    for _ in range(5):
        assert host.run(["sleep", "0"]).result["ok"]["exit"] == {"code": 0}
    assert host.run(["id", "-u"], user="0").data[1] == b"0\n"
    host.call("shutdown", mode="stop", timeout_s=0.5)
    assert zone.wait()[1].endswith("signal 9")


def test_a_passwd_that_is_replaced_while_a_user_is_looked_up_gives_that_user_or_none(start):
    swap = """$f = "/tmp/f"; syscall(133, $f, 0010644, 0); symlink "../../../../etc/group", "/tmp/l";
        open I, "/etc/passwd"; @p = <I>; print "up\n";
        while (1) { open O, ">/tmp/p"; print O @p; close O; rename "/tmp/p", "/etc/passwd";
          for $o ("f", "l") { link "/tmp/$o", "/etc/n"; rename "/etc/n", "/etc/passwd" }
          open O, ">/tmp/q"; print O "web:x:0"; close O; rename "/tmp/q", "/etc/passwd" }"""
    host = start({"argv": ["perl", "-e", f"$| = 1; {swap}"]}).host
    host.until_output("main", 1, 3)
    said = set()
    for _ in range(60):
        try:
            said.add(bytes(host.run(["perl", "-e", 'print "$< $("'], user="web").data[1]))
        except AgentError as error:
            said.add(error.reason)
    assert said <= {b"33 44 44 55", "user"}


def test_directories_that_become_links_while_files_are_copied_lead_nowhere_else(start):
    swap = """mkdir "/d"; mkdir "/d/in"; symlink "../../../../..", "/out"; symlink "/proc/1/root", "/l"; print "up\n";
        while (1) { rename "/d", "/e"; for $o ("out", "l") { symlink readlink("/$o"), "/d"; unlink "/d" }
            rename "/e", "/d"; rename "/d/in", "/d/was";
            symlink "/", "/d/in"; unlink "/d/in"; rename "/d/was", "/d/in" }"""
    zone = start({"argv": ["perl", "-e", f"$| = 1; {swap}"]})
    host, own = zone.host, Path(f"/proc/{zone.init_pid}/root")
    host.until_output("main", 1, 3)
    kept = {path: sorted(os.listdir(own / path)) for path in ("", "bin", "containers", "containers/main")}
    for _ in range(40):
        for path, archive in (("/d", archive_of(**{"in/planted": b"x"})), ("/d/in", archive_of(planted=b"x"))):
            with contextlib.suppress(AgentError):
                copy_in(host, path, archive)
        with contextlib.suppress(AgentError):
            assert not {name for name in copy_out(host, "/d").getnames() if "styrolite" in name or "containers" in name}
    assert {path: sorted(os.listdir(own / path)) for path in kept} == kept
    assert not (own / "planted").exists() and not (own / "in").exists() and host.call("ping")
