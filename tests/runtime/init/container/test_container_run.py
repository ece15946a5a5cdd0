"""Real containers on this machine: how they start, end, are stopped, and take further processes."""

import errno
import json
import os
import resource
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from support import containers
from support.containers import live, refused, run, spec, status_of

from runtime.init.container import reaper
from runtime.init.container.launched import Launch
from runtime.init.failure import ContainerFailure
from runtime.net.engine.processes import start_time_of

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("zsys")]
# `become UID COMMAND…`, as su-exec does.
BECOME = """
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    return argc < 3 || setuid(atoi(argv[1])) || execvp(argv[2], argv + 2);
}
"""
FULL = {"uid_maps": [[0, 100000, 65536]], "gid_maps": [[0, 100000, 65536]]}


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
    mounts = containers.mounts()
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text() if children.exists() else ""
    refused(spec(["nothere"]))
    refused(spec("true", mounts=[{"destination": "/x", "type": "tmpfs", "options": ["nonsense=1"]}]))
    assert containers.mounts() == mounts
    assert (children.read_text() if children.exists() else "") == before
    assert not containers.cgroup().exists()


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


def test_a_terminal_is_its_users_who_is_looked_up_in_the_container():
    script = "echo again > /dev/stdout && stat -Lc %u /dev/stdin"
    with live(spec(f"{script}; read x", {"tty": True, "user": "joe"})) as box:
        assert box.line() + box.line() == "again\r\n1234\r\n"
        assert box.run(script, user="joe", tty=True) == ("again\r\n1234\r\n", {"code": 0})
        assert box.run(script, user="77", tty=True) == ("again\r\n77\r\n", {"code": 0})


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


def test_processes_run_in_it_later_are_confined_as_the_first():
    held = ["CAP_CHOWN", "CAP_NET_RAW"]
    process = {
        "uid": 1000,
        "gid": 55,
        "groups": [7],
        "capabilities": dict.fromkeys(("bounding", "permitted", "effective", "inheritable", "ambient"), held),
        "rlimits": {"nofile": [64, 128], "core": [0, 0], "nproc": [900, 900]},
        "oom_score_adj": 300,
        "seccomp": "060000000000ff7f",
    }
    with live(spec("echo up; exec sleep 1000", process)) as box:
        box.line()
        later = box.container.enter({"argv": ["sleep", "1000"]})
        try:
            first, second = (Path(f"/proc/{pid}") for pid in (box.started.pid, later.pid))
            for name in ("limits", "oom_score_adj", "cgroup"):
                assert (first / name).read_text() == (second / name).read_text()
            ours, theirs = (status_of((of / "status").read_text()) for of in (first, second))
            for name in ("Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Seccomp_filters", "SigIgn", "SigBlk"):
                assert ours[name] == theirs[name], name
            sets = {name: ours[name] for name in ours if name.startswith("Cap")}
            assert sets == {name: theirs[name] for name in sets}
            assert set(sets.values()) == {f"{1 | 1 << 13:016x}"} and ours["Seccomp"] == "2"
        finally:
            box.container.cgroup.kill()
            os.waitpid(later.pid, 0)
            later.close()


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
        # The shell and, once it has come to it, its sleep.
        assert containers.eventually(lambda: len(box.container.cgroup.pids()) == 2)
        assert box.run("echo fine")[0] == "fine\n"


def test_a_paused_container_takes_no_process():
    with live(spec("echo up; sleep 100")) as box:
        box.line()
        box.container.freeze(frozen=True)
        with pytest.raises(ContainerFailure, match="expected running, got paused"):
            box.container.enter({"argv": ["id"]})


@pytest.mark.usefixtures("user_namespaces")
def test_a_container_in_a_user_namespace_has_a_terminal():
    wanted = spec(
        "echo > /dev/console; readlink /proc/self/fd/0; id -u", {"tty": True, "uid": 9}, namespaces={"user": FULL}
    )
    assert run(wanted)[0] == "\r\n/dev/pts/0\r\n9\r\n"


def test_a_limit_without_its_controller_fails_before_anything_runs():
    root = Path(containers.cgroup_root())
    if "memory" in (root / "cgroup.controllers").read_text():
        pytest.skip("needs a cgroup v2 tree without the controller memory")
    failure = refused(spec("true", limits={"memory_max": 1 << 20}))
    assert failure.reason == "cgroup" and "expected the controller memory, got" in failure.sentence
    assert not containers.cgroup().exists()
    with live(spec("sleep 100")) as box, pytest.raises(ContainerFailure, match="expected the controller pids"):
        box.container.update({"pids_max": 5})


@pytest.mark.usefixtures("user_namespaces")
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


def test_the_reaper_stays_when_it_may_not_signal_a_command_that_became_another_user():
    become = containers.root() / "become.c"
    become.write_text(BECOME)
    containers.gcc("-static", "-o", containers.root() / "bin" / "become", become)
    only = {name: ["CAP_SETUID"] for name in ("bounding", "permitted", "effective")}
    script = "trap 'exit 3' USR1; echo up; sleep 100 & wait"
    with live(spec(["become", "33", "sh", "-c", script], {"init": True, "capabilities": only})) as box:
        assert box.line() == "up\n"
        box.container.kill(signal.SIGTERM)
        box.run("kill -USR1 2", uid=33)  # which the end of the container may cut off
        assert box.wait() == ("", {"code": 3, "oom": False})


def test_a_reaper_that_cannot_tell_how_the_command_ended_is_no_success():
    pid = os.fork()
    if pid == 0:
        try:
            reaper.run(-1, [], lambda: os._exit(0))
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 125


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
        assert containers.eventually(lambda: start_time_of(pid) is None)


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


@pytest.mark.parametrize("said", [[b"P%d", b"R"], [b"R", b"P%d"], [b"P%d", b"F cwd gone", b"R"], [b"P%d"]])
def test_a_process_that_has_ended_has_said_all_though_its_stage_has_not_ended(said):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    launch = Launch(ours, 0, -1, staged=True)
    try:
        for word in said:
            theirs.send(word.replace(b"%d", b"%d" % child.pid))
        assert launch.hear() is None
        if len(said) == 2:
            started = launch.hear(child.pid)
            assert started.pid == child.pid
            started.close()
        else:
            with pytest.raises(ContainerFailure, match=r"gone|ended before its command"):
                launch.hear(child.pid)
    finally:
        launch.close()
        theirs.close()
        child.wait()


def test_only_the_stage_names_the_process_and_one_terminal_is_taken():
    """Who traces what enters has its socket, too: what it names would be killed, and what it sends be kept open."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    bystander = subprocess.Popen(["sleep", "100"])
    launch = Launch(ours, 1 << 22, -1, staged=True)  # of no process, as pid_max(5) has it
    spare = os.open(os.devnull, os.O_RDONLY)
    try:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(9):
            socket.send_fds(theirs, [b"T"], [spare, spare])
        theirs.send(b"P%d" % bystander.pid)
        assert launch.hear() is None and len(os.listdir("/proc/self/fd")) == before + 1
        theirs.send(b"R")
        theirs.close()
        with pytest.raises(ContainerFailure, match="ended before its command"):
            launch.hear()
        assert bystander.poll() is None
    finally:
        launch.close()
        os.close(spare)
        bystander.kill()
        bystander.wait()


def test_a_process_that_cannot_be_taken_on_is_ended(monkeypatch):
    def fail(pid):
        raise OSError(errno.EMFILE, "Too many open files")

    with live(spec("echo up; exec sleep 100")) as box:
        box.line()
        before = box.container.cgroup.pids()
        with monkeypatch.context() as patched:
            patched.setattr("runtime.init.container.launched.posix.pidfd_open", fail)
            with pytest.raises(OSError, match="Too many open files"):
                box.container.enter({"argv": ["sleep", "100"]})
        assert box.container.cgroup.pids() == before


def test_a_terminal_that_cannot_be_taken_on_ends_its_process():
    with live(spec("echo up; exec sleep 100")) as box:
        box.line()
        before, limits = box.container.cgroup.pids(), resource.getrlimit(resource.RLIMIT_NOFILE)
        launch = box.container.begin_further({"argv": ["sleep", "100"], "tty": True}, (None, None, None))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # nothing can be opened from here on
        try:
            with pytest.raises(ContainerFailure, match="its master: too many open files"):
                launch.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert box.container.cgroup.pids() == before
