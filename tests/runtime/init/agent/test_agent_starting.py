"""While a process cannot get to its command, the agent goes on.

A container at its cpu.max or memory.high makes whatever is started in it slow; its cgroup, frozen behind the agent's
back, makes that stand still.
"""

import contextlib
import os
import signal
from pathlib import Path

import pytest
from support import zonebox
from support.agenthost import AgentError
from support.containers import eventually
from support.zonebox import IDLE, cgroup_of, sh

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts"),
]


def set_frozen(cgroup, frozen):
    (cgroup / "cgroup.freeze").write_text(str(int(frozen)))
    assert eventually(lambda: f"frozen {int(frozen)}" in (cgroup / "cgroup.events").read_text())


@contextlib.contextmanager
def frozen(cgroup):
    """Nothing in it goes on."""
    set_frozen(cgroup, True)
    try:
        yield
    finally:
        set_frozen(cgroup, False)


def pids(cgroup):
    return set((cgroup / "main" / "cgroup.procs").read_text().split())


def command(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_an_exec_that_cannot_get_to_its_command_holds_up_nobody_else(zone, host):
    with frozen(cgroup_of(zone)):
        stuck = [host.open("exec", container="main", process={"argv": ["cat"], "tty": tty}) for tty in (False, True)]
        for stream in stuck:
            stream.write(b"typed early\n")
            stream.eof()
        stuck[1].event(resize=[9, 44])
        assert host.call("ping")
        assert host.run(["styrolite", "/none"], container=None).result["ok"]["exit"] == {"code": 125}
        assert [(stream.events, stream.result) for stream in stuck] == [([], None)] * 2
    for stream in stuck:
        assert stream.wait()["exit"] == {"code": 0} and b"typed early" in stream.data[1]


def test_an_exec_that_is_called_off_before_its_command_leaves_no_process(zone, host):
    cgroup = cgroup_of(zone)
    before = pids(cgroup)
    with frozen(cgroup):
        stream = host.open("exec", container="main", process=sh("echo never; sleep 100"))
        assert eventually(lambda: host.call("ping") and len(pids(cgroup)) > len(before))
        stream.cancel()
        assert eventually(lambda: host.call("ping") and pids(cgroup) <= before)
    assert not stream.data[1] and host.run(["id", "-u"]).data[1] == b"0\n"


def test_an_exec_that_is_called_off_as_its_command_runs_leaves_no_process(zone, host):
    """The agent reads that nobody waits before it reads which process it is."""
    cgroup = cgroup_of(zone)
    before = pids(cgroup)
    with frozen(cgroup):
        stream = host.open("exec", container="main", process={"argv": ["sleep", "100"]})
        assert eventually(lambda: host.call("ping") and len(pids(cgroup)) > len(before))
        os.kill(zone.agent_pid, signal.SIGSTOP)
        stream.cancel()
    try:
        assert eventually(lambda: [command(pid) for pid in pids(cgroup) - before] == [b"sleep\x00100\x00"])
    finally:
        os.kill(zone.agent_pid, signal.SIGCONT)
    assert eventually(lambda: host.call("ping") and pids(cgroup) <= before)


def test_of_many_execs_few_are_on_their_way_at_once(zone, host):
    """Each is a copy of the agent until its command runs: a small zone has no room for a hundred of those."""
    cgroup = cgroup_of(zone)
    before = pids(cgroup)
    with frozen(cgroup):
        many = [host.open("exec", container="main", process=sh(f"cat; exit {number}")) for number in range(40)]
        for stream in many:
            stream.write(b"typed early\n")
            stream.eof()
        assert eventually(lambda: host.call("ping") and len(pids(cgroup)) > len(before))
        assert len(pids(cgroup) - before) <= 4
        many.pop(0).cancel()  # one that is on its way, and one that waits
        many.pop(20).cancel()
        assert host.call("ping") and len(pids(cgroup) - before) <= 4
    codes = [*range(1, 21), *range(22, 40)]
    assert [stream.wait()["exit"]["code"] for stream in many] == codes
    assert all(stream.data[1] == b"typed early\n" for stream in many)


def test_execs_that_wait_for_their_turn_go_with_their_session(zone, host):
    cgroup = cgroup_of(zone)
    before = pids(cgroup)
    with frozen(cgroup):
        for _ in range(40):
            host.open("exec", container="main", process=sh("echo never; sleep 100"))
        assert eventually(lambda: host.call("ping") and len(pids(cgroup)) > len(before))
        host.hello()
        assert host.call("ping")
    assert eventually(lambda: host.call("ping") and pids(cgroup) <= before)
    assert host.run(["id", "-u"]).data[1] == b"0\n"


def test_execs_that_wait_for_their_turn_are_refused_where_their_container_ends(two):
    host, cgroup = two.host, cgroup_of(two)
    host.call("start", id="two")
    with frozen(cgroup):
        many = [host.open("exec", container="two", process=sh("exit 3")) for _ in range(20)]
        assert host.call("ping")
        host.call("kill", id="two", signal=9, all=True)
    for stream in many:
        with pytest.raises(AgentError):
            stream.wait()
    host.call("start", id="two")
    assert host.run(["id", "-u"], container="two").data[1] == b"0\n"


def test_a_signal_for_an_exec_reaches_its_command(zone, host):
    with frozen(cgroup_of(zone)):
        stream = host.open("exec", container="main", process=sh("sleep 100"))
        stream.event(signal=9)
        assert host.call("ping")
    assert stream.wait()["exit"] == {"signal": 9}


@pytest.fixture
def two(start, image):
    """A zone with a second container, which is created."""
    zone = start(IDLE)
    with zonebox.loop_device(image) as device:
        script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done"
        spec = {"root": {"device": device.removeprefix("/dev/")}, "process": {"argv": ["sh", "-c", script]}}
        zone.host.call("create", id="two", spec=spec)
        yield zone
        zone.host.call("shutdown", mode="now")
        zone.wait()


def test_a_container_that_cannot_get_to_its_command_holds_up_nobody_else(two):
    host = two.host
    with frozen(cgroup_of(two)):
        starting = host.open("start", id="two")
        assert [one["state"] for one in host.call("list")["containers"]] == ["running", "created"]
        for method in ("start", "delete"):
            with pytest.raises(AgentError, match="got one that starts"):
                host.call(method, id="two")
        stopping = host.open("stop", id="two", timeout_s=60)
        assert host.call("ping") and starting.result is None and stopping.result is None
    assert starting.wait()["pid"] > 1
    assert stopping.wait() == {"exit": {"code": 9}}, "it is asked to stop once it runs"


def test_a_container_that_is_to_stop_before_its_command_runs_is_killed_in_time(two):
    host, cgroup = two.host, cgroup_of(two)
    with frozen(cgroup):
        starting = host.open("start", id="two")
        assert host.call("stop", id="two", timeout_s=0.1) == {"exit": None}
        with pytest.raises(AgentError, match="ended before its command was executed"):
            starting.wait()
        # What was killed may be there a moment longer, and its cgroup with it.
        assert eventually(lambda: not (cgroup / "two").exists())
    host.call("start", id="two")
    logs = host.open("logs", container="two")
    host.until(lambda: logs.data[1] == b"up\n")
    assert host.call("stop", id="two") == {"exit": {"code": 9}}
