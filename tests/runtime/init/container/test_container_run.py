"""Real containers on this machine, seen from inside."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from support import containers, zoneparts
from support.containers import live, run, spec

from runtime.init.failure import ContainerFailure

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("zsys")]
FULL = {"uid_maps": [[0, 100000, 65536]], "gid_maps": [[0, 100000, 65536]]}


def refused(wanted):
    with pytest.raises(ContainerFailure) as caught, live(wanted):
        pass
    return caught.value


def status_of(text):
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@pytest.mark.parametrize("code", [0, 3, 127, 255])
@pytest.mark.parametrize("init", [False, True])
def test_exit_codes_arrive_exactly(code, init):
    assert run(spec(f"exit {code}", {"init": init}))[1] == {"code": code, "oom": False}


@pytest.mark.parametrize("number", [9, 15, 11])
def test_death_by_signal_is_told_as_such(number):
    # As pid 1 without a handler it would be spared by its own namespace's signals.
    assert run(spec(f"kill -{number} $$", {"init": True}))[1] == {"signal": number, "oom": False}


def test_a_signal_from_outside_kills_pid_1():
    with live(spec("echo up; sleep 100")) as container:
        container.line()
        container.container.kill(signal.SIGKILL)
        assert container.wait()[1] == {"signal": 9, "oom": False}


@pytest.mark.parametrize(
    ("argv", "process", "reason", "words"),
    [
        (["nothere"], {"env": ["PATH=/bin:/x"]}, "command-127", "command 'nothere' was not found in PATH /bin:/x"),
        (["/bin/nothere"], {}, "command-127", "command '/bin/nothere' does not exist"),
        (["orphan"], {}, "command-127", "command '/bin/orphan' is there, but its interpreter /opt/none/sh is not"),
        (["text"], {}, "command-126", "command '/bin/text' is neither a program for this machine nor a #! script"),
        (["/etc/passwd"], {}, "command-126", "command '/etc/passwd' cannot be executed: Permission denied"),
        (["/tmp"], {}, "command-126", "command '/tmp' is a directory"),
        ([], {}, "command-127", "neither the image nor the zone names a command"),
        (["true"], {"cwd": "/nowhere"}, "cwd", "working directory '/nowhere': No such file or directory"),
        (["id"], {"user": "jim"}, "user", "user 'jim': expected a number or a name in the image's /etc/passwd"),
        (["id"], {"user": "joe:club"}, "user", "group 'club': expected a number or a name in the image's /etc/group"),
        (["id"], {"rlimits": {"nofile": [1 << 40, 1 << 40]}}, "rlimit", "setting rlimit 7"),
    ],
)
@pytest.mark.parametrize("init", [False, True])
def test_a_command_that_cannot_start_is_explained(argv, process, reason, words, init):
    failure = refused(spec(argv, process | {"init": init}))
    assert failure.reason == reason and words in failure.sentence


def test_nothing_is_left_of_a_failed_start():
    mounts = Path("/proc/self/mountinfo").read_text()
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text() if children.exists() else ""
    refused(spec(["nothere"]))
    refused(spec("true", mounts=[{"destination": "/x", "type": "tmpfs", "options": ["nonsense=1"]}]))
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert (children.read_text() if children.exists() else "") == before
    assert not containers.cgroup().exists()


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
    out, _ = run(spec("cat /proc/uptime", namespaces={"time": {"boottime": 10_000_000}}))
    assert float(out.split()[0]) > 10_000_000


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


def test_a_user_namespace_has_its_own_network_and_hostname():
    out, end = run(spec("hostname; ls /sys/class/net", namespaces={"user": FULL, "net": "own"}, hostname="inner"))
    assert out.split() == ["inner", "lo"] and end["code"] == 0


def test_a_user_namespace_can_go_with_the_zones_processes():
    out, end = run(spec("id; ls /proc/1/ns >/dev/null; exit 3", namespaces={"user": FULL, "pid": "zone"}))
    assert out.startswith("uid=0(root)") and "Permission denied" in out and end["code"] == 3


def test_denied_setgroups_are_denied():
    denied = FULL | {"deny_setgroups": True}
    out, _ = run(spec("cat /proc/self/setgroups", namespaces={"user": denied}))
    assert out == "deny\n"
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


def test_a_namespace_of_nobody_is_named():
    failure = refused(spec("true", namespaces={"ipc": "container:nobody"}))
    assert failure.reason == "namespace" and "container:nobody" in failure.sentence


def test_default_devices_work_and_are_all_there_is():
    out, _ = run(
        spec(
            "ls /dev; echo gone > /dev/null; dd if=/dev/zero bs=4 count=1 2>/dev/null | cat;"
            "dd if=/dev/zero of=/dev/full count=1"
        )
    )
    names = ["fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty"]
    assert out.split()[:14] == [*names, "urandom", "zero"]
    assert "No space left on device" in out


def test_further_devices_are_made_where_asked():
    loop = {"path": "/dev/loop-test", "type": "b", "major": 7, "minor": 0, "mode": 0o640}
    deep = {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200}
    out, _ = run(spec(["stat", "-c", "%n %F %t:%T %a", "/dev/loop-test", "/dev/net/tun"], devices=[loop, deep]))
    assert out.splitlines() == [
        "/dev/loop-test block special file 7:0 640",
        "/dev/net/tun character special file a:c8 666",
    ]


def test_default_mounts_and_their_flags():
    out, _ = run(spec("mount"))
    mounts = {line.split()[2]: line for line in out.splitlines()}
    for place, kind in (("/sys", "sysfs"), ("/sys/fs/cgroup", "cgroup2"), ("/proc/sys", "proc")):
        assert f"type {kind} (ro,nosuid,nodev,noexec" in mounts[place]
    for place, kind in (("/proc", "proc"), ("/dev/shm", "tmpfs"), ("/dev/mqueue", "mqueue")):
        assert f"type {kind} (rw,nosuid,nodev,noexec" in mounts[place]
    assert "(rw,nosuid,nodev,noexec" in mounts["/dev"] and "nodev" in mounts["/"]
    assert not [place for place in mounts if place.startswith("/tmp")]


def test_mounts_of_the_spec(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("from outside\n")
    wanted = [
        {"destination": "/data", "type": "bind", "source": str(tmp_path / "data"), "options": ["ro"]},
        {"destination": "/etc/one", "type": "bind", "source": str(tmp_path / "data" / "file")},
        {
            "destination": "/scratch/deep",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["size=64k", "nosuid", "mode=700"],
        },
    ]
    script = "cat /data/file /etc/one; echo x > /data/new; dd if=/dev/zero of=/scratch/deep/big bs=1k count=100; mount"
    out, _ = run(spec(script, mounts=wanted))
    assert out.startswith("from outside\nfrom outside\n") and "Read-only file system" in out
    assert "No space left on device" in out
    assert "on /scratch/deep type tmpfs (rw,nosuid,nodev,relatime,size=64k,mode=700" in out
    assert "on /data type ext4 (ro,nodev" in out or "/data" in out


def test_recursive_read_only_reaches_what_is_mounted_below(tmp_path):
    (tmp_path / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "below", tmp_path / "below"], check=True)
    try:
        bind = {"destination": "/data", "source": str(tmp_path), "type": "bind"}
        for options, expected in (
            (["rbind", "ro"], ""),
            (["rbind", "rro"], "Read-only"),
            (["bind", "ro"], "Read-only"),
        ):
            out, _ = run(spec("echo x > /data/below/x", mounts=[bind | {"options": options}]))
            assert (expected in out) and (bool(expected) or not out), (options, out)
    finally:
        subprocess.run(["umount", tmp_path / "below"], check=True)


def test_propagation_is_set(tmp_path):
    bind = {"destination": "/data", "source": str(tmp_path), "type": "bind", "options": ["rbind", "rshared"]}
    out, _ = run(spec(["cat", "/proc/self/mountinfo"], mounts=[bind]))
    (line,) = [line for line in out.splitlines() if line.split()[4] == "/data"]
    assert "shared:" in line
    assert sum("shared:" in line for line in out.splitlines()) == 1


def test_a_wrong_mount_option_is_told_in_the_file_systems_words():
    failure = refused(spec("true", mounts=[{"destination": "/x", "type": "tmpfs", "options": ["size=lots"]}]))
    assert failure.reason == "mount"
    assert failure.sentence.startswith("mounting tmpfs for /x: Invalid argument (tmpfs: Bad value for 'size'")


def test_a_read_only_root_can_be_written_nowhere_but_in_its_mounts():
    wanted = spec("echo x > /new; echo x > /tmp/y && cat /tmp/y; echo s > /dev/shm/s && cat /dev/shm/s")
    wanted["root"]["readonly"] = True
    wanted["mounts"] = [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}]
    out, _ = run(wanted)
    assert "Read-only file system" in out and out.endswith("x\ns\n")


@pytest.mark.parametrize("path", ["/proc/keys", "/proc/timer_list", "/proc/interrupts"])
def test_masked_files_are_empty(path):
    assert run(spec(f"cat {path}; echo $?"))[0] == "0\n"


def test_masked_directories_are_empty_and_closed():
    out, _ = run(spec("ls /sys/firmware; mknod /sys/firmware/x p"))
    assert "Read-only file system" in out and len(out.splitlines()) == 1


def test_paths_of_the_spec_are_masked_and_read_only():
    wanted = spec(
        "cat /etc/passwd; ls /bin; echo x > /etc/group",
        masked_paths=["/etc/passwd", "/bin/none"],
        readonly_paths=["/etc"],
    )
    out, _ = run(wanted)
    assert "joe" not in out and "Read-only file system" in out


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
    assert (failure.reason, failure.sentence) == ("capabilities", "setting the capabilities: Operation not permitted")


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


def test_a_terminal_of_its_own():
    script = "echo > /dev/console; readlink /proc/self/fd/0; stat -c '%t:%T %u' /dev/console; echo to > /dev/tty; cat"
    with live(spec(script, {"tty": True, "size": [24, 80], "uid": 9})) as box:
        said = box.line() + box.line() + box.line() + box.line()
        assert said == "\r\n/dev/pts/0\r\n88:0 9\r\nto\r\n"
        box.container.resize(30, 100)
        os.write(box.started.terminal, b"here\n")
        assert box.line() + box.line() == "here\r\nhere\r\n"  # the terminal's echo, and cat: pid 1 would ignore ...
        os.write(box.started.terminal, b"\x03")  # ... Ctrl-C: the terminal is the controlling one
        assert box.wait()[1]["signal" if "signal" in box.container.exit else "code"] in (2, 130)


def test_a_resize_reaches_the_program():
    with live(spec("trap 'echo resized; exit 4' WINCH; echo up; while :; do sleep 0.05; done", {"tty": True})) as box:
        assert box.line() == "up\r\n"
        box.container.resize(50, 90)
        assert box.line() == "resized\r\n" and box.wait()[1]["code"] == 4


def test_processes_run_in_it_later_are_in_all_its_namespaces():
    with live(
        spec("echo up; sleep 100", {"uid": 0}, hostname="inner", namespaces={"time": {"boottime": 9_000_000}})
    ) as box:
        box.line()
        namespaces = "for n in mnt pid uts ipc cgroup net user time; do readlink /proc/self/ns/$n; done"
        out, end = box.run(f"hostname; cat /proc/self/cgroup /proc/uptime; {namespaces}")
        assert out.split()[0] == "inner" and end == {"code": 0} and "0::/\n" in out
        assert float(out.split("0::/\n")[1].split()[0]) > 9_000_000
        for line in [line for line in out.split() if ":[" in line]:
            assert line == os.readlink(f"/proc/{box.started.pid}/ns/{line.split(':')[0]}")
        status = status_of(box.run(["cat", "/proc/self/status"])[0])
        assert status["CapBnd"] == "00000000a80425fb" and status["NoNewPrivs"] == "1"
        assert box.run("exit 9")[1] == {"code": 9} and box.run("kill -15 $$")[1] == {"signal": 15}


def test_processes_run_in_it_later_take_what_they_do_not_say_from_the_first():
    first = {
        "uid": 7,
        "gid": 8,
        "groups": [9],
        "env": ["A=1"],
        "cwd": "/tmp",
        "umask": 0o077,
        "rlimits": {"core": [0, 0]},
    }
    with live(spec("echo up; sleep 100", first)) as box:
        box.line()
        assert box.run("id; echo $A; pwd; umask")[0].splitlines() == [
            "uid=7 gid=8(audio) groups=8(audio),9",
            "1",
            "/tmp",
            "0077",
        ]
        assert box.run("id; echo $A", user="joe", env=["A=2"])[0].startswith("uid=1234(joe) gid=55(staff)")
        assert box.run("id", uid=0)[0] == "uid=0(root) gid=0(root) groups=0(root)\n"


def test_a_user_has_its_own_home_unless_the_environment_says_another():
    home = "echo $HOME $A"
    assert run(spec(home, {"user": "joe", "env": ["HOME=/srv"]}))[0] == "/srv\n"
    assert run(spec(home, {"user": "9"}))[0] == "/\n"  # no such user
    assert run(spec(home, {"uid": 1234}))[0] == "\n"  # nobody looks for a name
    with live(spec("echo up; sleep 100", {"env": ["HOME=/root", "A=1"]})) as box:
        box.line()
        assert box.run(home)[0] == "/root 1\n"
        for user in ("joe", "1234", "joe:audio"):
            assert box.run(home, user=user)[0] == "/home/joe 1\n"
        assert box.run(home, user="joe", env=["HOME=/srv"])[0] == "/srv\n"


def test_processes_run_in_it_later_can_have_a_terminal_and_input():
    with live(spec("echo up; sleep 100")) as box:
        box.line()
        out, end = box.run("readlink /proc/self/fd/1; exit 2", tty=True)
        assert out == "/dev/pts/0\r\n" and end == {"code": 2}
        reader, writer = os.pipe()
        os.write(writer, b"some input\n")
        os.close(writer)
        assert box.run(["cat"], stdin=reader)[0] == "some input\n"
        os.close(reader)


def test_a_later_process_that_cannot_start_is_explained_and_the_container_goes_on():
    with live(spec("echo up; sleep 100")) as box:
        box.line()
        for process, reason in (({"argv": ["nope"]}, "command-127"), ({"argv": ["id"], "cwd": "/no"}, "cwd")):
            with pytest.raises(ContainerFailure) as caught:
                box.container.enter(process)
            assert caught.value.reason == reason
        assert len(box.container.cgroup.pids()) == 2 and box.run("echo fine")[0] == "fine\n"


def test_a_paused_container_takes_no_process():
    with live(spec("echo up; sleep 100")) as box:
        box.line()
        box.container.freeze(frozen=True)
        with pytest.raises(ContainerFailure, match="expected running, got paused"):
            box.container.enter({"argv": ["id"]})


def test_a_container_in_a_user_namespace_has_a_terminal():
    wanted = spec(
        "echo > /dev/console; readlink /proc/self/fd/0; id -u", {"tty": True, "uid": 9}, namespaces={"user": FULL}
    )
    assert run(wanted)[0] == "\r\n/dev/pts/0\r\n9\r\n"


def test_a_user_that_the_namespace_does_not_have_fails_the_start():
    few = {"uid_maps": [[0, 100000, 10]], "gid_maps": [[0, 100000, 10]]}
    failure = refused(spec("true", {"uid": 50, "gid": 5}, namespaces={"user": few}))
    assert (failure.reason, failure.sentence) == ("user", "giving descriptor 1 to user 50: Invalid argument")
    failure = refused(spec("true", {"uid": 5, "gid": 50}, namespaces={"user": few}))
    assert (failure.reason, failure.sentence) == ("user", "becoming group 50: Invalid argument")


def test_a_limit_without_its_controller_fails_before_anything_runs():
    root = Path(containers.cgroup_root())
    if "memory" in (root / "cgroup.controllers").read_text():
        pytest.skip("needs a cgroup v2 tree without the controller memory")
    failure = refused(spec("true", limits={"memory_max": 1 << 20}))
    assert failure.reason == "cgroup" and "expected the controller memory, got" in failure.sentence
    assert not containers.cgroup().exists()
    with live(spec("sleep 100")) as box, pytest.raises(ContainerFailure, match="expected the controller pids"):
        box.container.update({"pids_max": 5})


def test_a_process_can_be_run_in_a_user_namespace():
    with live(spec("echo up; sleep 100", namespaces={"user": FULL})) as box:
        box.line()
        assert box.run("id; readlink /proc/self/ns/user", tty=True)[0].startswith("uid=0")


def test_the_reaper_collects_orphans_and_forwards_signals():
    script = "trap 'echo got; exit 6' USR1; (sleep 0.01 & sleep 0.01 &); echo up; while :; do sleep 0.05; done"
    with live(spec(script, {"init": True})) as box:
        box.line()
        assert containers.eventually(lambda: "Z" not in box.run("cat /proc/[0-9]*/stat")[0].split(") ")[1:])
        box.container.kill(signal.SIGUSR1)
        assert box.wait() == ("got\n", {"code": 6, "oom": False})


def test_a_command_without_a_handler_is_stopped_at_once_behind_the_reaper():
    with live(spec("echo up; sleep 100", {"init": True})) as box:
        box.line()
        box.container.stop(timeout_s=60)
        assert box.wait()[1] == {"signal": 15, "oom": False}


def test_stop_kills_what_does_not_end():
    with live(spec("trap '' TERM; echo up; while :; do sleep 1; done")) as box:
        box.line()
        box.container.stop(timeout_s=0.1)
        assert box.wait()[1] == {"signal": 9, "oom": False}


def test_the_stop_signal_is_that_of_the_spec():
    script = "trap 'echo quit; exit 3' QUIT; echo up; while :; do sleep 0.05; done"
    with live(spec(script, {"stop_signal": 3})) as box:
        box.line()
        box.container.stop()
        assert box.wait() == ("quit\n", {"code": 3, "oom": False})


def test_everyone_is_signalled_and_everyone_is_killed():
    loop = "while :; do sleep 0.05 2>/dev/null; done 2>/dev/null"
    with live(spec(f"(trap 'echo child' USR2; echo up; {loop}) & trap : USR2; {loop}")) as box:
        box.line()
        box.container.kill(signal.SIGUSR2, everyone=True)
        assert box.line() == "child\n"
        box.container.kill(signal.SIGKILL, everyone=True)
        assert box.wait()[1] == {"signal": 9, "oom": False}


def test_a_paused_container_does_not_run():
    with live(spec("while :; do echo tick; sleep 0.01; done")) as box:
        box.line()
        box.container.freeze(frozen=True)
        events = (containers.cgroup() / "cgroup.events").read_text()
        assert "frozen 1" in events and box.container.state == "paused"
        box.container.freeze(frozen=False)
        assert containers.eventually(lambda: box.line() == "tick\n") and box.container.state == "running"
        box.container.freeze(frozen=True)
        box.container.stop(timeout_s=0.1)
        assert box.wait()[1]["oom"] is False


def test_with_the_first_process_the_others_end_even_without_a_pid_namespace():
    with live(spec("sleep 100 & echo $!; exit 0", namespaces={"pid": "zone"})) as box:
        pid = int(box.line())
        os.waitpid(box.started.pid, 0)
        assert Path(f"/proc/{pid}").exists()
        box.container.exited(0)
        assert containers.eventually(
            lambda: not Path(f"/proc/{pid}").exists() or "zombie" in Path(f"/proc/{pid}/status").read_text()
        )


def test_states_are_kept_to():
    from runtime.init.container.container import Container

    container = Container(containers.cgroup().name, spec("sleep 100"), containers.cgroup_root())
    with pytest.raises(ContainerFailure, match=r"to signal it: expected running or paused, got created"):
        container.kill(15)
    with pytest.raises(ContainerFailure, match="it is there already"):
        Container(containers.cgroup().name, spec("true"), containers.cgroup_root())
    started = container.start()
    with pytest.raises(ContainerFailure, match="to start it: expected created, got running"):
        container.start()
    with pytest.raises(ContainerFailure, match="expected it to be stopped, got running"):
        container.delete()
    container.kill(9)
    container.exited(os.waitpid(started.pid, 0)[1])
    container.delete()
    assert not containers.cgroup().exists()


def test_the_output_of_a_container_without_streams_goes_nowhere():
    from runtime.init.container.container import Container

    container = Container(
        containers.cgroup().name, spec("echo lost; cat; readlink /proc/self/fd/0 >&2"), containers.cgroup_root()
    )
    try:
        started = container.start()
        assert container.exited(os.waitpid(started.pid, 0)[1])["code"] == 0
    finally:
        container.delete(force=True)


def test_a_plan_can_be_printed():
    from runtime.init.container import steps

    plan = steps.plan(spec("true", {"seccomp": "06000000" + "0000ff7f"}))
    assert json.dumps(plan["stage"]) and "('pivot',)" in repr(plan["inside"])


@pytest.fixture
def disk(tmp_path):
    """A loop device with a squashfs of the root: (name below /dev)."""
    image = zoneparts.squashfs(containers.root(), tmp_path / "root.sqfs")
    attach = ["losetup", "--find", "--show", "--read-only", image]
    done = subprocess.run(attach, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop device to be had: {done.stderr.strip()}")
    yield done.stdout.strip().removeprefix("/dev/")
    subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


def test_a_disk_with_an_image_is_a_root(disk):
    wanted = spec(
        "cat /etc/hosts; ls -d /srv/data; echo x > /new && cat /new; dd if=/dev/zero of=/big bs=1M count=20; mount"
    )
    wanted["root"] = {
        "device": disk,
        "overlay_size_mib": 8,
        "etc": {"hosts": "1.2.3.4 me\n"},
        "directories": ["/srv/data"],
    }
    out, end = run(wanted)
    assert out.startswith("1.2.3.4 me\n/srv/data\nx\n") and "No space left on device" in out and end["code"] == 0
    assert "overlay on / type overlay (rw,nodev,relatime,lowerdir=lower,upperdir=rw/upper,workdir=rw/work" in out
    assert "squashfs" not in out and "rw type" not in out  # the layers cannot be reached by themselves


def test_a_disk_can_be_a_read_only_root_with_its_files(disk):
    wanted = spec("cat /etc/hosts; echo x > /new")
    wanted["root"] = {"device": disk, "readonly": True, "etc": {"hosts": "1.2.3.4 me\n"}}
    out, _ = run(wanted)
    assert out.startswith("1.2.3.4 me\n") and "Read-only file system" in out


def test_what_an_image_on_a_disk_has_in_place_of_proc_is_replaced(tmp_path):
    shutil.copytree(containers.root(), tmp_path / "image", symlinks=True)
    for name in ("proc", "dev"):
        shutil.rmtree(tmp_path / "image" / name, ignore_errors=True)
    (tmp_path / "image" / "proc").symlink_to("/etc")
    (tmp_path / "image" / "dev").write_text("a file\n")
    image = zoneparts.squashfs(tmp_path / "image", tmp_path / "root.sqfs")
    done = subprocess.run(["losetup", "-f", "--show", "-r", image], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop device to be had: {done.stderr.strip()}")
    try:
        wanted = spec("stat -c %F /proc /dev; ls /etc")
        wanted["root"] = {"device": done.stdout.strip().removeprefix("/dev/")}
        assert run(wanted)[0].split()[:2] == ["directory", "directory"]
    finally:
        subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


def test_a_disk_that_is_none_is_named():
    wanted = spec("true")
    wanted["root"] = {"device": "xvdz"}
    failure = refused(wanted)
    assert (failure.reason, failure.sentence.partition(":")[0]) == ("root", "mounting the image on /dev/xvdz")
