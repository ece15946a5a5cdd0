"""What the agent runs for its host beside the workload: streams, terminals, signals, many at once."""

import os
import signal
from pathlib import Path

import pytest
from support import zonebox, zoneparts
from support.agenthost import AgentError
from support.containers import eventually
from support.zonebox import IDLE, sh

from pipeline.bundle.model import Seccomp
from runtime.host.daemon import confinement

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts"),
]


def test_exec_keeps_streams_apart_and_passes_input_and_its_end(host):
    done = host.run(["sh", "-c", "cat; echo err >&2; exit 3"], data=b"in\n")
    assert (bytes(done.data[1]), bytes(done.data[2])) == (b"in\n", b"err\n")
    assert done.result["ok"]["exit"] == {"code": 3} and done.ended == {1, 2}
    assert done.events[0]["started"] > 1


@pytest.mark.parametrize("code", [0, 1, 126, 127, 137, 255])
def test_exec_codes_arrive_exactly(host, code):
    assert host.run(["sh", "-c", f"exit {code}"]).result["ok"]["exit"] == {"code": code}


def test_exec_tells_what_the_process_and_its_children_used(host):
    idle = host.run(["sleep", "0"]).result["ok"]["rusage"]
    busy = host.run(["sh", "-c", "i=0; (while [ $i -lt 100000 ]; do i=$((i+1)); done)"]).result["ok"]["rusage"]
    assert idle.keys() == busy.keys() == {"user_s", "system_s", "max_rss_kib"}
    assert busy["user_s"] + busy["system_s"] > idle["user_s"] + idle["system_s"] >= 0
    big = host.run(["dd", "if=/dev/zero", "of=/dev/null", "bs=32M", "count=1"]).result["ok"]["rusage"]
    assert big["max_rss_kib"] > 32 << 10 > idle["max_rss_kib"] > 0


@pytest.mark.parametrize("number", [1, 9, 15, 11])
def test_exec_death_by_signal_is_told_as_such(host, number):
    assert host.run(["sh", "-c", f"kill -{number} $$"]).result["ok"]["exit"] == {"signal": number}


@pytest.mark.parametrize(
    ("argv", "reason", "words"),
    [
        (["nothere"], "command-127", "command 'nothere' was not found in PATH"),
        (["/bin/plain"], "command-126", "command '/bin/plain' cannot be executed: Permission denied"),
        (["/etc"], "command-126", "command '/etc' is a directory"),
    ],
)
def test_exec_of_what_cannot_start_is_explained(host, argv, reason, words):
    with pytest.raises(AgentError) as caught:
        host.run(argv)
    assert caught.value.reason == reason and words in caught.value.sentence


def test_exec_resolves_users_in_the_container(host):
    assert host.run(["id"], user="web").data[1] == b"uid=33(web) gid=44(www) groups=44(www),55(logs)\n"
    assert host.run(["id", "-G"], user="web:root").data[1] == b"0\n"
    assert host.run(["id", "-u"], user="1234").data[1] == b"1234\n"
    assert host.run(["id", "-u"], user=33).data[1] == b"33\n"


@pytest.mark.parametrize(("seccomp", "said"), [(Seccomp(), b"refused 2\n"), (Seccomp(unconfined=True), b"done 0\n")])
def test_workload_and_what_is_run_beside_it_have_the_filter_of_the_launch_data(start, seccomp, said):
    # keyctl (250) is for no container; 2 is a filter, 0 none (proc(5), Seccomp).
    script = """perl -e 'print syscall(250, 0, -3, 1) < 0 ? "refused" : "done"; open S, "/proc/self/status";
        /^Seccomp:\\s(\\d)/ and print " $1\\n" for <S>'"""
    process = confinement.process_keys(seccomp, "box")
    zone = start(sh(f"{script}; read x"), extra={"stdin_open": True, "container": {"process": process}})
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: logs.data[1] == said)
    assert zone.host.run(["sh", "-c", script]).data[1] == said
    assert zone.host.run(["sh", "-c", script], user="web").data[1] == said


def test_workload_and_what_is_run_beside_it_are_confined_as_the_bundle_says(start):
    text = """
        init = true
        [security]
        capabilities = { drop = ["ALL"], add = ["KILL", "NET_BIND_SERVICE"] }
        no_new_privs = false
        namespaces = { net = "own", uts = "zone" }
        [rlimits]
        nofile = [100, 200]
        core = 0
    """
    script = "cat /proc/self/status; echo limits $(ulimit -S -n) $(ulimit -H -n) $(ulimit -c) $(ls /sys/class/net)"
    container = zonebox.confined(text)
    zone = start(sh(f"{script}; echo pid $$; read x"), extra={"stdin_open": True, "container": container})
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: b"\npid " in logs.data[1] and logs.data[1].endswith(b"\n"))
    mask = f"{1 << 5 | 1 << 10:016x}"  # KILL, NET_BIND_SERVICE: include/uapi/linux/capability.h
    for said in (logs.data[1], zone.host.run(["sh", "-c", script]).data[1]):
        lines = said.decode().splitlines()
        fields = dict(line.split(":\t") for line in lines if ":\t" in line)
        assert (fields["CapEff"], fields["CapBnd"], fields["NoNewPrivs"]) == (mask, mask, "0")
        assert "limits 100 200 0 lo" in lines
    assert b"pid 2" in logs.data[1], "the reaper is the first"


def test_exec_takes_directory_and_environment(host):
    assert host.run(["sh", "-c", "pwd; echo $X"], cwd="/tmp", env=["X=y"]).data[1] == b"/tmp\ny\n"


def test_no_descriptor_serves_as_directory_of_an_exec(host):
    for first in range(0, 1024, 64):
        asked = [
            host.open("exec", container="main", process={"argv": ["true"], "cwd": f"/proc/self/fd/{fd}"})
            for fd in range(first, first + 64)
        ]
        for stream in asked:
            with pytest.raises(AgentError) as caught:
                stream.wait()
            assert caught.value.reason == "cwd"


def test_exec_on_a_terminal_has_its_size_and_no_second_stream(host):
    stream = host.open(
        "exec", container="main", process=sh("tty; stty size; read x; stty size", tty=True, size=[7, 33])
    )
    host.until(lambda: b"7 33" in stream.data[1])
    assert b"/dev/pts/" in stream.data[1]
    stream.event(resize=[9, 44])
    stream.write(b"\n")
    assert stream.wait()["exit"] == {"code": 0}
    assert b"9 44" in stream.data[1] and not stream.data[2]


def test_a_terminals_end_of_input_is_its_own_character(host):
    stream = host.open("exec", container="main", process={"argv": ["cat"], "tty": True})
    stream.write(b"hello\n")
    stream.eof()
    assert stream.wait()["exit"] == {"code": 0} and stream.data[1].count(b"hello") == 2


def test_signals_reach_an_exec(host):
    stream = host.open("exec", container="main", process=sh("trap 'echo got; exit 4' USR1; echo up; sleep 600 & wait"))
    host.until(lambda: b"up" in stream.data[1])
    stream.event(signal=int(signal.SIGUSR1))
    assert stream.wait()["exit"] == {"code": 4} and stream.data[1] == b"up\ngot\n"


def test_what_an_exec_leaves_behind_does_not_keep_it(host):
    assert host.run(["sh", "-c", "sleep 20 & echo hi"]).data[1] == b"hi\n"


def test_cancel_hangs_up_on_an_exec(host):
    stream = host.open("exec", container="main", process=sh("trap '' HUP; echo up; sleep 60; echo never"))
    host.until(lambda: b"up" in stream.data[1])
    pid = stream.events[0]["started"]
    stream.cancel()
    assert eventually(lambda: pid not in [one["pid"] for one in host.call("processes", container="main")["processes"]])


def test_exec_in_the_zone_itself_sees_its_own_root(host):
    with pytest.raises(AgentError, match="was not found"):
        host.run(["sh"], container=None)


@pytest.mark.parametrize("program", ["styrolite", "/bin/styrolite"])
def test_styrolite_runs_a_config_in_the_zone_itself(host, program):
    done = host.run([program, "-"], container=None, data=zonebox.config("hostname; id -u; cat; exit 7"))
    assert (bytes(done.data[1]), bytes(done.data[2])) == (b"styrolite-inner\n0\n", b"")
    assert done.result["ok"]["exit"] == {"code": 7}
    assert [one["id"] for one in host.call("list")["containers"]] == ["main"]


def test_styrolite_reads_a_config_that_lies_in_a_container(host):
    host.run(["sh", "-c", "cat > /c.json"], data=zonebox.config("read x; echo $x; kill -9 $$", namespaces=["Mount"]))
    done = host.run(["styrolite", "/containers/main/root/c.json"], container=None, data=b"its own input\n")
    assert bytes(done.data[1]) == b"its own input\n"
    assert done.data[2] == b"styrolite: the command was killed by signal 9\n"
    assert done.result["ok"]["exit"] == {"code": 137}


def test_styrolite_says_in_the_zone_what_it_does_not_take(host):
    done = host.run(["styrolite", "-"], container=None, data=b'{"kind": "Other"}')
    assert b"key kind: expected Create or Attach, got 'Other'" in done.data[2]
    assert done.result["ok"]["exit"] == {"code": 125}


def test_a_utility_of_the_addons_is_run_in_the_zone_itself(start, tmp_path):
    """A static program: the zone's own, by a name it does not know."""
    directory = tmp_path / "addons" / "overlays" / "workload" / "usr" / "bin"
    directory.mkdir(parents=True)
    (directory / "tool").write_bytes(zoneparts.env().store.read(zoneparts.zone_init().elf.digest))
    (directory / "tool").chmod(0o755)
    with zonebox.loop_device(zoneparts.squashfs(tmp_path / "addons", tmp_path / "addons.sqfs")) as device:
        zone = start(IDLE, addons=device.removeprefix("/dev/"))
        done = zone.host.run(["tool"], container=None)
        assert done.data[2] == b"zone: called as 'tool': expected init, zone or styrolite\n"
        zone.host.call("shutdown", mode="now")
        zone.wait()


def test_the_name_of_the_agent_says_that_init_starts_it(host):
    done = host.run(["zone"], container=None)
    assert done.data[2] == b"zone: the zone's agent is a part of init: expected nothing to start it by hand\n"
    assert done.result["ok"]["exit"] == {"code": 1}


def test_a_container_sees_nothing_of_the_zones_program_and_nobody_can_write_to_it(zone, host):
    mounts = host.run(["cat", "/proc/self/mountinfo"]).data[1].decode()
    assert "styrolite" not in mounts and "/init" not in mounts and mounts.count(" / / ") == 1
    found = host.run(["sh", "-c", "for name in zone styrolite; do cat /bin/$name; done"])
    assert found.data[2].count(b"No such file or directory") == 2
    for program in (f"{zone.init_pid}/root/bin/styrolite", f"{zone.init_pid}/exe", f"{zone.agent_pid}/exe"):
        with pytest.raises(OSError, match="Read-only file system"):
            os.chmod(f"/proc/{program}", 0o777)
        with pytest.raises(OSError, match="Text file busy"):
            os.open(f"/proc/{program}", os.O_WRONLY)


def test_a_script_whose_interpreter_is_the_process_that_executes_it_gets_the_zones_program_and_cannot_change_it(host):
    """CVE-2019-5736: /proc/self/exe of a process that enters is the program of init and agent."""
    script = "open F, '>/tmp/trap'; print F qq(#!/proc/self/exe\\n); close F; chmod 0755, '/tmp/trap'"
    host.run(["perl", "-e", script])
    caught = host.run(["/tmp/trap"])
    assert caught.result["ok"]["exit"] == {"code": 1} and b"expected init, zone or styrolite" in caught.data[2]


def test_a_hundred_execs_at_once(host):
    streams = [
        host.open("exec", container="main", process=sh(f"cat; echo {number}; exit {number}")) for number in range(100)
    ]
    for number, stream in enumerate(streams):
        stream.write(b"x" * number)
        stream.eof()
    for number, stream in enumerate(streams):
        assert stream.wait()["exit"] == {"code": number}
        assert stream.data[1] == b"x" * number + b"%d\n" % number


def limit_of(pid):
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("Max open files")]
    return line.split()[3:5]


def test_streams_may_have_more_descriptors_than_what_is_run_has(start):
    under = ["prlimit", "--nofile=64:4096"]
    zone = start(sh("ulimit -n; ulimit -Hn; read x"), extra={"stdin_open": True}, under=under)
    assert limit_of(zone.init_pid) == ["64", "4096"] and int(limit_of(zone.agent_pid)[0]) >= 4096
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: logs.data[1] == b"64\n4096\n")
    assert zone.host.run(["sh", "-c", "ulimit -n; ulimit -Hn"]).data[1] == b"64\n4096\n"
    streams = [zone.host.open("exec", container="main", process={"argv": ["cat"]}) for _ in range(40)]
    for stream in streams:
        stream.write(b"x")
    for stream in streams:
        zone.host.until(lambda stream=stream: stream.data[1] == b"x")
        stream.eof()
        assert stream.wait()["exit"] == {"code": 0}


def test_a_slow_stream_holds_back_nobody_else(host):
    slow = host.open("exec", container="main", process={"argv": ["head", "-c", "1000000", "/dev/zero"]})
    slow.hold = True
    host.until(lambda: len(slow.data[1]) == 65536)
    assert host.run(["head", "-c", "1000000", "/dev/zero"]).data[1] == bytes(1000000)
    assert len(slow.data[1]) == 65536 and slow.result is None
    slow.release()
    assert slow.wait()["exit"] == {"code": 0} and slow.data[1] == bytes(1000000)


def test_input_that_nobody_reads_holds_back_nobody_else(host):
    slow = host.open("exec", container="main", process=sh("sleep 100"))
    while slow.may_send:  # all the credit there is, until pipe and agent are full
        slow.write(bytes(min(slow.may_send, 4096)))
        host.call("ping")
    assert host.run(["wc", "-c"], data=bytes(300_000)).data[1] == b"300000\n"
    slow.event(signal=9)
    assert slow.wait()["exit"] == {"signal": 9}
