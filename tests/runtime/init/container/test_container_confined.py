"""What a container is confined to: namespaces, capabilities, users, limits, as seen from inside."""

import os
from pathlib import Path

import pytest
from support.containers import live, refused, run, spec, status_of

from runtime.init.container import abi, calls

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("zsys")]
FULL = {"uid_maps": [[0, 100000, 65536]], "gid_maps": [[0, 100000, 65536]]}


def test_a_container_has_its_own_namespaces():
    names = ("mnt", "pid", "uts", "ipc", "cgroup")
    out, _ = run(spec("for n in mnt pid uts ipc cgroup net user time; do readlink /proc/self/ns/$n; done"))
    inside = dict(line.split(":") for line in out.split())
    for name, number in inside.items():
        assert (f"{name}:{number}" != os.readlink(f"/proc/self/ns/{name}")) == (name in names), name


def test_its_first_process_is_pid_1_and_sees_no_other():
    out, _ = run(spec("echo $$; ls /proc; cat /proc/self/cgroup"))
    assert out.splitlines()[0] == "1"
    assert [name for name in out.split() if name.isdigit()][1:] == ["1", "2"]
    assert out.splitlines()[-1] == "0::/"


def test_a_network_of_its_own_has_a_loopback_only():
    out, _ = run(spec("cat /proc/net/dev; ls /sys/class/net", namespaces={"net": "own"}))
    assert out.split()[-1] == "lo" and "lo:" in out and "eth0" not in out


def test_hostname_and_domainname():
    out, _ = run(spec("hostname; cat /proc/sys/kernel/domainname", hostname="web", domainname="example.org"))
    assert out.split() == ["web", "example.org"]
    assert os.uname().nodename != "web"


def test_a_time_namespace_moves_its_clocks():
    offsets = {"boottime": 10_000_000, "monotonic": 5_000_000}
    out, _ = run(spec("cat /proc/uptime /proc/self/timens_offsets", namespaces={"time": offsets}))
    uptime_s, _, *rows = out.split()
    assert float(uptime_s) > 10_000_000
    assert rows == ["monotonic", "5000000", "0", "boottime", "10000000", "0"]


@pytest.mark.usefixtures("user_namespaces")
def test_a_user_namespace_makes_its_root_somebody_else_outside():
    with live(
        spec("id; cat /proc/self/uid_map; echo x > /dev/shm/x; ls -ln /dev/shm; sleep 100", namespaces={"user": FULL})
    ) as box:
        assert box.line() == "uid=0(root) gid=0(root) groups=0(root)\n"
        assert box.line().split() == ["0", "100000", "65536"]
        box.line()
        assert box.line().split()[2:4] == ["0", "0"]
        assert os.stat(f"/proc/{box.started.pid}/root/dev/shm").st_uid == 100000
        status = status_of(Path(f"/proc/{box.started.pid}/status").read_text())
        assert status["Uid"].split() == ["100000"] * 4
        assert box.run("id")[0] == "uid=0(root) gid=0(root) groups=0(root)\n"


@pytest.mark.usefixtures("user_namespaces")
def test_a_user_namespace_has_its_own_network_and_hostname():
    out, end = run(spec("hostname; ls /sys/class/net", namespaces={"user": FULL, "net": "own"}, hostname="inner"))
    assert out.split() == ["inner", "lo"] and end["code"] == 0


@pytest.mark.usefixtures("user_namespaces")
def test_a_user_namespace_can_go_with_the_zones_processes():
    out, end = run(spec("id; ls /proc/1/ns >/dev/null; exit 3", namespaces={"user": FULL, "pid": "zone"}))
    assert out.startswith("uid=0(root)") and "Permission denied" in out and end["code"] == 3


@pytest.mark.usefixtures("user_namespaces")
def test_denied_setgroups_are_denied():
    denied = FULL | {"deny_setgroups": True}
    out, _ = run(spec("cat /proc/self/setgroups; id -u", {"user": "1234:55"}, namespaces={"user": denied}))
    assert out == "deny\n1234\n"
    failure = refused(spec("true", {"groups": [5]}, namespaces={"user": denied}))
    assert failure.reason == "user" and "denies setgroups" in failure.sentence


def test_containers_can_share_namespaces():
    with live(spec("hostname; sleep 100", hostname="first", namespaces={"net": "own"}), "first") as first:
        first.line()
        wanted = spec(
            "hostname; readlink /proc/self/ns/net", namespaces={"uts": "container:first", "net": "container:first"}
        )
        with live(wanted, "second", find=lambda name: first.container if name == "first" else None) as second:
            out, _ = second.wait()
        assert out.split() == ["first", os.readlink(f"/proc/{first.started.pid}/ns/net")]
        shared_pid = spec("ls /proc", namespaces={"pid": "container:first"})
        with live(shared_pid, "third", find=lambda name: first.container) as third:
            assert "1" in third.wait()[0].split() and third.started.pid


def test_each_kind_of_namespace_can_be_joined_by_its_path():
    kinds = ("pid", "uts", "ipc", "cgroup", "net", "time")
    own = {"net": "own", "time": {"boottime": 9_000_000}}
    with live(spec("echo up; sleep 1000", hostname="first", namespaces=own), "first") as first:
        first.line()
        places = {kind: f"/proc/{first.started.pid}/ns/{kind}" for kind in kinds}
        shown = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds)
        joined = {kind: f"path:{place}" for kind, place in places.items()}
        with live(spec(f"{shown}; hostname; exec sleep 1000", namespaces=joined), "second") as second:
            found = [second.line().strip() for _ in range(7)]
            assert found == [*(os.readlink(place) for place in places.values()), "first"]
            assert second.run(f"{shown}; hostname")[0].split() == found


def test_a_namespace_that_is_not_there_is_named():
    failure = refused(spec("true", namespaces={"net": "path:/run/netns/none-of-ours"}))
    assert (failure.reason, failure.sentence) == (
        "namespace",
        "joining the namespace path:/run/netns/none-of-ours: No such file or directory",
    )
    failure = refused(spec("true", namespaces={"net": "path:/proc/self/ns/uts"}))
    assert (failure.reason, failure.sentence) == (
        "namespace",
        "joining the namespace path:/proc/self/ns/uts: Invalid argument",
    )


def test_a_namespace_of_nobody_is_named():
    failure = refused(spec("true", namespaces={"ipc": "container:nobody"}))
    assert failure.reason == "namespace" and "container:nobody" in failure.sentence


def test_capability_sets_are_exactly_those_of_the_spec():
    sets = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_TIME"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "effective": ["CAP_CHOWN"],
        "inheritable": ["CAP_NET_RAW"],
        "ambient": ["CAP_NET_RAW"],
    }
    out, _ = run(spec(["cat", "/proc/self/status"], {"capabilities": sets, "uid": 1000}))
    status = status_of(out)
    # What exec makes of them for a user other than root: only what is ambient stays.
    assert {key: int(status[f"Cap{key}"], 16) for key in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {
        "Inh": 1 << 13,
        "Prm": 1 << 13,
        "Eff": 1 << 13,
        "Bnd": 1 | 1 << 5 | 1 << 13 | 1 << 25,
        "Amb": 1 << 13,
    }


def test_the_default_capabilities_are_containerds():
    status = status_of(run(spec(["cat", "/proc/self/status"]))[0])
    assert [status[f"Cap{key}"] for key in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [
        "0000000000000000",
        "00000000a80425fb",
        "00000000a80425fb",
        "00000000a80425fb",
        "0000000000000000",
    ]


def test_no_capabilities_means_none():
    status = status_of(run(spec(["cat", "/proc/self/status"], {"capabilities": {}}))[0])
    assert {status[f"Cap{key}"] for key in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}


def test_capabilities_the_caller_has_not_fail_the_start():
    lacking = 24  # CAP_SYS_RESOURCE
    if int(status_of(Path("/proc/self/status").read_text())["CapPrm"], 16) >> lacking & 1:
        pytest.skip("needs a root without CAP_SYS_RESOURCE")
    failure = refused(spec("true", {"capabilities": {"permitted": ["CAP_SYS_RESOURCE"], "bounding": ["ALL"]}}))
    assert failure.reason == "capabilities" and "CAP_SYS_RESOURCE" in failure.sentence


def test_a_bounding_set_that_cannot_be_had_fails_the_start(monkeypatch):
    prctl = calls.prctl
    lacking = (abi.PR_CAPBSET_READ, 27)  # CAP_MKNOD
    monkeypatch.setattr(calls, "prctl", lambda *words: 0 if words == lacking else prctl(*words))
    failure = refused(spec("true", {"capabilities": {"bounding": ["CAP_KILL", "CAP_MKNOD"]}}))
    assert (failure.reason, failure.sentence) == (
        "capabilities",
        "bounding set: expected CAP_MKNOD among what the caller has, got none",
    )


def test_sets_that_the_kernel_takes_without_an_error_but_not_whole_fail_the_start(monkeypatch):
    """As it takes those of a newer one: what it does not know is left out (kernel/capability.c, capset)."""
    capget = calls.capget
    monkeypatch.setattr(calls, "capget", lambda: tuple(mask & ~1 for mask in capget()))
    only = {key: ["CAP_CHOWN", "CAP_KILL"] for key in ("bounding", "permitted", "effective")}
    failure = refused(spec("true", {"capabilities": only}))
    assert (failure.reason, failure.sentence) == (
        "capabilities",
        "capabilities: expected the sets of the spec, got effective 0x20, permitted 0x20, inheritable 0x0",
    )


def test_who_the_process_is_by_number_and_by_name():
    assert run(spec("id", {"uid": 5, "gid": 6, "groups": [7, 9]}))[0] == "uid=5 gid=6 groups=6,7(wheel),9\n"
    assert run(spec("id", {"user": "joe"}))[0].startswith(
        "uid=1234(joe) gid=55(staff) groups=55(staff),7(wheel),8(audio)"
    )
    assert run(spec("id", {"user": "joe:audio"}))[0].startswith("uid=1234(joe) gid=8(audio) groups=8(audio)\n")
    assert (
        run(spec("id; echo again > /dev/stdout", {"user": "1001"}))[0] == "uid=1001 gid=0(root) groups=0(root)\nagain\n"
    )


def test_rlimits_are_set_and_others_inherited():
    out, _ = run(spec(["cat", "/proc/self/limits"], {"rlimits": {"RLIMIT_NOFILE": [64, 128], "core": [0, 0]}}))
    ours = Path("/proc/self/limits").read_text()
    rows = {line[:26].strip(): line[26:].split()[:2] for line in out.splitlines()}
    mine = {line[:26].strip(): line[26:].split()[:2] for line in ours.splitlines()}
    assert rows["Max open files"] == ["64", "128"] and rows["Max core file size"] == ["0", "0"]
    assert {key: rows[key] for key in ("Max stack size", "Max processes")} == {
        key: mine[key] for key in ("Max stack size", "Max processes")
    }


def test_a_limit_of_three_descriptors_still_starts():
    # A static program: the loader of another would want a fourth.
    assert run(spec(["call", "39"], {"rlimits": {"nofile": [3, 3]}}))[0] == "1 0\n"


def test_oom_score_umask_environment_and_directory():
    out, _ = run(
        spec(
            "cat /proc/self/oom_score_adj; umask; pwd; echo $A",
            {"oom_score_adj": 321, "umask": 0o027, "cwd": "/tmp", "env": ["A=b=c d"]},
        )
    )
    assert out.splitlines() == ["321", "0027", "/tmp", "b=c d"]


@pytest.mark.usefixtures("user_namespaces")
def test_oom_score_reaches_into_a_user_namespace():
    out, _ = run(spec("cat /proc/self/oom_score_adj", {"oom_score_adj": 400}, namespaces={"user": FULL}))
    assert out == "400\n"


def test_sysctls_of_its_own_namespaces_only():
    values = {"kernel.shmmax": "123456", "net.ipv4.ip_forward": "1", "fs.mqueue.msg_max": "20"}
    before = Path("/proc/sys/kernel/shmmax").read_text()
    script = "cat /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_forward /proc/sys/fs/mqueue/msg_max"
    out, _ = run(spec(script, sysctl=values, namespaces={"net": "own"}))
    assert out.split() == ["123456", "1", "20"]
    assert Path("/proc/sys/kernel/shmmax").read_text() == before
    failure = refused(spec("true", sysctl={"net.ipv4.ip_forward": "1"}))
    assert failure.reason == "spec" and "an own net namespace for net.ipv4.ip_forward" in failure.sentence
    failure = refused(spec("true", sysctl={"kernel.shmmax": "wrong"}))
    assert failure.reason == "sysctl" and "setting kernel/shmmax to wrong" in failure.sentence


def test_no_new_privileges_unless_asked_otherwise():
    assert status_of(run(spec(["cat", "/proc/self/status"]))[0])["NoNewPrivs"] == "1"
    out = run(spec(["cat", "/proc/self/status"], {"no_new_privileges": False}))[0]
    assert status_of(out)["NoNewPrivs"] == "0"


def test_signals_are_neither_blocked_nor_ignored():
    status = status_of(run(spec(["cat", "/proc/self/status"]))[0])
    assert {status[key].strip("0") for key in ("SigBlk", "SigIgn", "SigCgt")} == {""}


@pytest.mark.usefixtures("user_namespaces")
def test_a_user_that_the_namespace_does_not_have_fails_the_start():
    few = {"uid_maps": [[0, 100000, 10]], "gid_maps": [[0, 100000, 10]]}
    failure = refused(spec("true", {"uid": 50, "gid": 5}, namespaces={"user": few}))
    assert (failure.reason, failure.sentence) == ("user", "giving descriptor 1 to user 50: Invalid argument")
    failure = refused(spec("true", {"uid": 5, "gid": 50}, namespaces={"user": few}))
    assert (failure.reason, failure.sentence) == ("user", "becoming group 50: Invalid argument")
