"""The agent under the zone's own kernel, without Xen: hvc is a virtio console, cgroups have their controllers."""

import contextlib
import socket
import subprocess

import pytest
from support import guestzone, zoneparts
from support.agenthost import AgentError, AgentHost
from support.zonebox import config

from pipeline.bundle.model import Launch, Process

pytestmark = [pytest.mark.slow, pytest.mark.network]
LISTEN_S = 120.0


@pytest.fixture(scope="module")
def zone(tmp_path_factory):
    """The host's end of a zone whose workload reads its stdin for ever, with two CPUs."""
    directory = tmp_path_factory.mktemp("disk")
    root = zoneparts.small_root(directory / "root", ("sh", "cat", "id", "ls", "mount"))
    zone = guestzone.build(directory, root)
    extra = {
        "agent_device": "/dev/hvc0",
        "stdin_open": True,
        "container": {"limits": {"memory_max": 64 << 20, "memory_swap_max": 0}},
    }
    launch = Launch("box", "ab" * 32, zone.modules, Process(("cat",), ()), root=guestzone.ROOT, extra=extra)
    path = directory / "hvc"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(LISTEN_S)
        console = ("-device", "virtio-serial-pci", "-chardev", f"socket,id=hvc,path={path}")
        options = ("-smp", "2", *console, "-device", "virtconsole,chardev=hvc")
        argv = zone.argv(launch, *options, serial=f"file:{directory}/agent.serial")
        qemu = subprocess.Popen(argv)
        stack.callback(qemu.wait)
        stack.callback(qemu.kill)
        wire, _ = listener.accept()
        host = AgentHost(stack.enter_context(wire).fileno())
        host.hello(LISTEN_S)
        yield host


def test_a_process_in_the_container_is_answered_over_hvc(zone):
    done = zone.run(["sh", "-c", "cat; id -u; exit 9"], data=bytes(100_000), user="33")
    assert done.data[1] == bytes(100_000) + b"33\n" and done.result["ok"]["exit"] == {"code": 9}


def test_metrics_are_those_of_the_container(zone):
    metrics = zone.call("metrics")
    main = metrics["containers"]["main"]
    assert main["pids"] >= 1 and main["memory_bytes"] > 0 and main["cpu"]["usage_usec"] > 0
    assert metrics["pressure"]["memory"].keys() <= {"some", "full"} and "vda" in metrics["disks"]


def test_limits_are_changed_while_it_runs(zone):
    assert zone.call("update", id="main", limits={"pids_max": 50, "memory_max": 32 << 20}) == {}
    read = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max"
    assert zone.run(["sh", "-c", read]).data[1] == b"50\n33554432\n"
    with pytest.raises(AgentError) as caught:
        zone.call("update", id="main", limits={"pids_max": "many"})
    assert caught.value.reason == "spec"


def test_limits_of_a_disk_are_set(zone):
    device = zone.run(["cat", "/sys/block/vda/dev"]).data[1].decode().strip()
    rates = {"device": device, "rbps": 1 << 20, "wiops": 50}
    assert zone.call("update", id="main", limits={"io_max": [rates]}) == {}
    found = zone.run(["cat", "/sys/fs/cgroup/io.max"]).data[1].decode()
    assert found == f"{device} rbps=1048576 wbps=max riops=max wiops=50\n"
    with pytest.raises(AgentError, match="No such device") as caught:
        zone.call("update", id="main", limits={"io_max": [rates | {"device": "253:77"}]})
    assert caught.value.reason == "cgroup"


def test_what_the_oom_killer_takes_is_told_as_such(zone):
    grow = zone.run(["sh", "-c", "x=xxxxxxxx; while :; do x=$x$x; done"])
    assert grow.result["ok"]["exit"] == {"signal": 9, "oom": True}
    assert zone.note("oom", container="main")["kills"] >= 1
    assert zone.call("list")["containers"][0]["state"] == "running"


def test_the_oom_killer_spares_init_and_agent_and_takes_what_runs_in_the_zone_itself(zone):
    read = "read agent x </proc/1/task/1/children; for pid in 1 $agent $$; do cat /proc/$pid/oom_score_adj; done"
    done = zone.run(["styrolite", "-"], container=None, data=config(read, namespaces=["Mount"]))
    assert done.data[1] == b"-1000\n-1000\n0\n"
    grow = config("x=xxxxxxxx; while :; do x=$x$x; done", namespaces=["Mount"])
    done = zone.run(["styrolite", "-"], container=None, data=grow)
    assert done.data[2].startswith(b"styrolite: the command was killed by signal 9"), done.data
    assert done.result["ok"]["exit"] == {"code": 137}
    assert zone.call("list")["containers"][0]["state"] == "running"


def test_a_config_of_styrolite_has_its_limits_in_the_zone_itself(zone):
    own = ["Mount", "Uts", "Pid", "Ipc", "Cgroup"]
    limited = config("cat /sys/fs/cgroup/pids.max; exit 7", limits={"pids.max": "9"}, namespaces=own)
    done = zone.run(["styrolite", "-"], container=None, data=limited)
    assert (done.data[1], done.data[2]) == (b"9\n", b"") and done.result["ok"]["exit"] == {"code": 7}


def test_the_clock_is_set(zone):
    wanted = 2_000_000_000 * 10**9
    assert 0 <= zone.call("clock", unix_ns=wanted)["unix_ns"] - wanted < 60 * 10**9
    assert 0 <= zone.call("info")["unix_s"] - 2_000_000_000 < 60


def test_cpus_go_offline_and_come_back(zone):
    assert zone.call("cpus", online=1) == {"online": 1}
    assert zone.call("cpus", online=2) == {"online": 2}
    assert zone.call("info")["cpus"] == 2


def test_pause_and_resume(zone):
    assert zone.call("pause", id="main") == {"state": "paused"}
    assert zone.call("list")["containers"][0]["state"] == "paused"
    assert zone.call("resume", id="main") == {"state": "running"}


def test_a_terminal_of_the_container_has_its_name_there(zone):
    stream = zone.open("exec", container="main", process={"argv": ["ls", "-l", "/proc/self/fd/"], "tty": True})
    assert stream.wait()["exit"] == {"code": 0} and b"/dev/pts/0" in stream.data[1]


def test_the_end_of_stdin_ends_the_workload_and_the_zone(zone):
    logs = zone.open("logs", container="main")
    typed = zone.open("stdin", id="main")
    typed.write(b"typed\n" * 1000)
    typed.eof()
    assert logs.wait() == {} and logs.data[1] == b"typed\n" * 1000
    assert zone.note("exit", container="main")["code"] == 0
