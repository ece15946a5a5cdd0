"""The zone's agent, run by the real init in namespaces, with the host's end of the channel in the test."""

import contextlib
import io
import os
import signal
import tarfile
import time
from pathlib import Path

import pytest
from support import zonebox, zoneparts
from support.agenthost import AgentError

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts"),
]
# Says the letters of its argument back; needs no module of perl's.
SERVER = """socket(S,2,1,6);setsockopt(S,1,2,pack("i",1));bind(S,pack("SnCCCCx8",2,8080,127,0,0,1))or die;listen(S,9);
while(accept(C,S)){while(sysread(C,$b,65536)){syswrite(C,$b)}close(C)}"""
IDLE = {"argv": ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 1 & wait $!; done"]}


@pytest.fixture(scope="module")
def initrd(tmp_path_factory):
    return zonebox.make_initrd(tmp_path_factory.mktemp("initrd") / "initrd")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    directory = tmp_path_factory.mktemp("image")
    programs = ("stty", "tty", "head", "wc", "env", "perl", "touch", "mkdir", "rm")
    root = zoneparts.small_root(directory / "root", (*zonebox.PROGRAMS, *programs))
    (root / "etc" / "passwd").write_text("root:x:0:0:r:/root:/bin/sh\nweb:x:33:44:w:/srv:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\nwww:x:44:\nlogs:x:55:web\n")
    (root / "bin" / "plain").write_text("no x bit\n")
    (root / "data").mkdir()
    (root / "data" / "up").symlink_to("../../..")
    (root / "data" / "absolute").symlink_to("/etc")
    return zoneparts.squashfs(root, directory / "root.sqfs")


@pytest.fixture
def start(initrd, image, tmp_path):
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(zonebox.loop_device(image)).removeprefix("/dev/")

        def run(process=None, *, hello=True, **launch):
            launch = {"process": process, "root": device, "overlay_size_mib": 64} | launch
            zone = stack.enter_context(zonebox.zone(tmp_path, initrd, channel=True, **launch))
            if hello:
                zone.host.hello()
            return zone

        yield run


@pytest.fixture(scope="module")
def zone(initrd, image, tmp_path_factory):
    """A zone whose workload idles; its session is begun anew by each test that wants one."""
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(zonebox.loop_device(image)).removeprefix("/dev/")
        directory = tmp_path_factory.mktemp("zone")
        yield stack.enter_context(
            zonebox.zone(directory, initrd, channel=True, process=IDLE, root=device, overlay_size_mib=64)
        )


@pytest.fixture
def host(zone):
    zone.host.hello()
    return zone.host


def sh(text: str, **keys) -> dict:
    return {"argv": ["sh", "-c", text]} | keys


def test_the_greeting_tells_phases_and_containers(zone):
    greeting = zone.host.hello()
    assert list(greeting["boot"]) == ["init", "modules", "root", "network", "workload"]
    (main,) = greeting["containers"]
    assert (main["id"], main["state"], main["tty"]) == ("main", "running", False)


def test_ping_and_info(host):
    assert host.call("ping")["now"] > 0
    info = host.call("info")
    assert info["hostname"] == "box" and info["kernel"] == os.uname().release and info["cpus"] >= 1


@pytest.mark.parametrize(
    ("method", "params", "reason"),
    [
        ("nothere", {}, "method"),
        ("start", {"id": "nothere"}, "container"),
        ("start", {"id": "main"}, "state"),
        ("kill", {"id": "main", "signal": 99}, "params"),
        ("kill", {"id": ["x"]}, "container"),
        ("exec", {"container": "main", "process": "ls"}, "params"),
        ("exec", {"container": "main", "process": {"argv": ["ls"], "user": "nobody"}}, "user"),
        ("exec", {"container": "main", "process": {"argv": ["ls"], "uid": "x"}}, "spec"),
        ("exec", {"container": "main", "process": {"argv": ["ls"], "unknown": 1}}, "spec"),
        ("create", {"id": "../x", "spec": {}}, "spec"),
        ("sysctl", {"key": "../../etc/passwd", "value": "x"}, "ENOENT"),
        ("stdin", {"id": "main"}, "state"),
        ("copy_out", {"container": "main", "path": "/nothere"}, "ENOENT"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_reason(host, method, params, reason):
    with pytest.raises(AgentError) as caught:
        host.call(method, **params)
    assert caught.value.reason == reason and caught.value.sentence
    host.call("ping")


def test_exec_keeps_streams_apart_and_passes_input_and_its_end(host):
    done = host.run(["sh", "-c", "cat; echo err >&2; exit 3"], data=b"in\n")
    assert (bytes(done.data[1]), bytes(done.data[2])) == (b"in\n", b"err\n")
    assert done.result == {"ok": {"exit": {"code": 3}}} and done.ended == {1, 2}
    assert done.events[0]["started"] > 1


@pytest.mark.parametrize("code", [0, 1, 126, 127, 137, 255])
def test_exec_codes_arrive_exactly(host, code):
    assert host.run(["sh", "-c", f"exit {code}"]).result == {"ok": {"exit": {"code": code}}}


@pytest.mark.parametrize("number", [1, 9, 15, 11])
def test_exec_death_by_signal_is_told_as_such(host, number):
    assert host.run(["sh", "-c", f"kill -{number} $$"]).result == {"ok": {"exit": {"signal": number}}}


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


def test_exec_takes_directory_and_environment(host):
    assert host.run(["sh", "-c", "pwd; echo $X"], cwd="/tmp", env=["X=y"]).data[1] == b"/tmp\ny\n"


def test_exec_on_a_terminal_has_its_size_and_no_second_stream(host):
    stream = host.open(
        "exec", container="main", process=sh("tty; stty size; read x; stty size", tty=True, size=[7, 33])
    )
    host.until(lambda: b"7 33" in stream.data[1])
    assert b"/dev/pts/" in stream.data[1]
    stream.event(resize=[9, 44])
    stream.write(b"\n")
    assert stream.wait() == {"exit": {"code": 0}}
    assert b"9 44" in stream.data[1] and not stream.data[2]


def test_a_terminals_end_of_input_is_its_own_character(host):
    stream = host.open("exec", container="main", process={"argv": ["cat"], "tty": True})
    stream.write(b"hello\n")
    stream.eof()
    assert stream.wait() == {"exit": {"code": 0}} and stream.data[1].count(b"hello") == 2


def test_signals_reach_an_exec(host):
    stream = host.open("exec", container="main", process=sh("trap 'echo got; exit 4' USR1; echo up; sleep 9 & wait"))
    host.until(lambda: b"up" in stream.data[1])
    stream.event(signal=int(signal.SIGUSR1))
    assert stream.wait() == {"exit": {"code": 4}} and stream.data[1] == b"up\ngot\n"


def test_what_an_exec_leaves_behind_does_not_keep_it(host):
    assert host.run(["sh", "-c", "sleep 20 & echo hi"]).data[1] == b"hi\n"


def test_cancel_hangs_up_on_an_exec(host):
    stream = host.open("exec", container="main", process=sh("trap '' HUP; echo up; sleep 60; echo never"))
    host.until(lambda: b"up" in stream.data[1])
    pid = stream.events[0]["started"]
    stream.cancel()
    gone = lambda: pid not in [one["pid"] for one in host.call("processes", container="main")["processes"]]  # noqa: E731
    end = time.monotonic() + 20
    while not gone():
        assert time.monotonic() < end


def test_exec_in_the_zone_itself_sees_its_own_root(host):
    with pytest.raises(AgentError, match="was not found"):
        host.run(["sh"], container=None)


def test_a_hundred_execs_at_once(host):
    streams = [
        host.open("exec", container="main", process=sh(f"cat; echo {number}; exit {number}")) for number in range(100)
    ]
    for number, stream in enumerate(streams):
        stream.write(b"x" * number)
        stream.eof()
    for number, stream in enumerate(streams):
        assert stream.wait() == {"exit": {"code": number}}
        assert stream.data[1] == b"x" * number + b"%d\n" % number


def test_a_slow_stream_holds_back_nobody_else(host):
    slow = host.open("exec", container="main", process={"argv": ["head", "-c", "1000000", "/dev/zero"]})
    slow.hold = True
    host.until(lambda: len(slow.data[1]) == 65536)
    assert host.run(["head", "-c", "1000000", "/dev/zero"]).data[1] == bytes(1000000)
    assert len(slow.data[1]) == 65536 and slow.result is None
    slow.release()
    assert slow.wait() == {"exit": {"code": 0}} and slow.data[1] == bytes(1000000)


def test_input_that_nobody_reads_holds_back_nobody_else(host):
    slow = host.open("exec", container="main", process=sh("sleep 100"))
    while slow.may_send:  # all the credit there is, until pipe and agent are full
        slow.write(bytes(min(slow.may_send, 4096)))
        host.call("ping")
    assert host.run(["wc", "-c"], data=bytes(300_000)).data[1] == b"300000\n"
    slow.event(signal=9)
    assert slow.wait() == {"exit": {"signal": 9}}


def test_a_new_session_hangs_up_on_the_old_ones_execs(zone):
    zone.host.hello()
    stream = zone.host.open("exec", container="main", process=sh("echo up; sleep 100"))
    zone.host.until(lambda: b"up" in stream.data[1])
    pid = stream.events[0]["started"]
    zone.host.hello()
    end = time.monotonic() + 20
    while pid in [one["pid"] for one in zone.host.call("processes", container="main")["processes"]]:
        assert time.monotonic() < end


def test_garbage_of_the_host_costs_only_its_session(zone):
    zone.host.hello()
    zone.host.send(os.urandom(5000) + b"\xff" * 100)
    zone.host.hello()
    assert zone.host.call("ping")
    zone.host.send(b"\x02\x00\x05\x00\x09\x00\x00\x00nojso\xa5")
    with pytest.raises(AssertionError, match="of an unknown stream"):
        zone.host.until(lambda: False)
    zone.host.hello()
    assert zone.host.call("list")["containers"][0]["state"] == "running"


def test_a_port_is_told_as_it_opens_and_closes(host):
    stream = host.open("exec", container="main", process={"argv": ["perl", "-e", SERVER]})
    opened = host.note("port", state="open", port=8080)
    assert opened["address"] == "127.0.0.1"
    stream.event(signal=9)
    host.note("port", state="closed", port=8080)


def test_dial_passes_bytes_both_ways_and_both_ends(host):
    stream = host.open("exec", container="main", process={"argv": ["perl", "-e", SERVER]})
    host.note("port", state="open", port=8080)
    dialled = host.open("dial", port=8080)
    sent = os.urandom(300_000)
    dialled.write(sent)
    dialled.eof()
    assert dialled.wait() == {} and dialled.data[1] == sent and dialled.events == [{"connected": True}]
    stream.event(signal=9)
    stream.wait()


@pytest.mark.parametrize(
    ("address", "reason"), [("127.0.0.1", "ECONNREFUSED"), ("localhost", "params"), ("192.0.2.1", "ENETUNREACH")]
)
def test_dial_says_why_not(host, address, reason):
    with pytest.raises(AgentError) as caught:
        host.call("dial", address=address, port=9)
    assert caught.value.reason == reason


def archive_of(**files) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.mtime = 1234567890
            if isinstance(content, bytes):
                member.size, member.mode, member.uid, member.gid = len(content), 0o640, 33, 44
                tar.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
    return out.getvalue()


def copy_in(host, path: str, archive: bytes) -> dict:
    stream = host.open("copy_in", container="main", path=path)
    stream.write(archive)
    if stream.result is None:
        stream.eof()
    return stream.wait()


def copy_out(host, path: str) -> tarfile.TarFile:
    stream = host.open("copy_out", container="main", path=path)
    stream.wait()
    return tarfile.open(fileobj=io.BytesIO(bytes(stream.data[1])))


def test_files_go_in_with_their_owners_and_come_out_again(host):
    long = "d/" + "x" * 120 + "/\u00e9\udcff"
    content = os.urandom(300_000)
    archive = archive_of(**{long: content, "d/link": "../nowhere", "d/empty": b""})
    assert copy_in(host, "/tmp", archive) == {"entries": 3, "bytes": 300_000}
    assert host.run(["stat", "-c", "%u %g %a %s %Y", f"/tmp/{long}"]).data[1] == b"33 44 640 300000 1234567890\n"
    tar = copy_out(host, "/tmp/d")
    names = ["d", "d/empty", "d/link", "d/" + "x" * 120, long]
    assert [member.name for member in tar] == names and tar.getmember("d/link").linkname == "../nowhere"
    assert tar.extractfile(long).read() == content and tar.getmember(long).uid == 33


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("../../../../escaped", None),
        ("up/escaped", "/escaped"),
        ("absolute/escaped", "/etc/escaped"),
        ("/rooted/escaped", "/data/rooted/escaped"),
    ],
)
def test_no_name_in_an_archive_leads_out_of_the_container(host, name, seen):
    if seen is None:
        with pytest.raises(AgentError) as caught:
            copy_in(host, "/data", archive_of(**{name: b"x"}))
        assert caught.value.reason == "archive"
    else:
        copy_in(host, "/data", archive_of(**{name: b"x"}))
        assert host.run(["cat", seen]).data[1] == b"x"
    assert not Path("/escaped").exists() and not Path("/etc/escaped").exists()


def test_a_symlink_made_by_an_archive_leads_nowhere_else_either(host):
    archive = archive_of(**{"way": "/../../etc", "way/planted": b"x"})
    copy_in(host, "/data", archive)
    assert host.run(["cat", "/etc/planted"]).data[1] == b"x" and not Path("/etc/planted").exists()


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (b"x" * 1024, "expected the magic ustar"),
        (archive_of(a=b"x" * 600)[:1000], "was it cut off"),
        (b"", "was it cut off"),
    ],
)
def test_a_broken_archive_is_refused_and_leaves_no_half_file(host, archive, words):
    with pytest.raises(AgentError, match=words):
        copy_in(host, "/data", archive)
    assert not [name for name in host.run(["ls", "-a", "/data"]).data[1].split() if b"zone" in name or name == b"a"]


def test_a_full_layer_is_said_and_the_zone_goes_on(host):
    with pytest.raises(AgentError) as caught:
        copy_in(host, "/tmp", archive_of(big=bytes(70 << 20)))
    assert caught.value.reason == "ENOSPC"
    assert host.run(["sh", "-c", "echo x > /tmp/small && cat /tmp/small"]).data[1] == b"x\n"


def test_stat_tells_what_a_path_is(host):
    assert host.call("stat", path="/etc/passwd")["kind"] == "file"
    found = host.call("stat", path="/data/absolute")
    assert (found["kind"], found["link"], found["target"]) == ("symlink", "/etc", "directory")
    assert host.call("stat", path="/data/absolute/")["kind"] == "directory"


def test_a_further_container_has_its_own_root_and_life(start, image):
    zone = start(IDLE)
    host = zone.host
    with zonebox.loop_device(image) as device:
        spec = {
            "root": {"device": device.removeprefix("/dev/"), "readonly": True},
            "process": {"argv": ["sh", "-c", "cat /etc/hostname; echo x > /new; cat; exit 3"]},
            "hostname": "other",
            "stdin_open": True,
        }
        host.call("create", id="two", spec=spec)
        with pytest.raises(AgentError, match="in use"):
            host.call("create", id="two", spec=spec)
        logs = host.open("logs", container="two")
        for _ in range(2):
            host.call("start", id="two")
            typed = host.open("stdin", id="two")
            typed.write(b"typed\n")
            typed.eof()
            assert typed.wait() == {}
        assert logs.wait() == {} and logs.data[1].startswith(b"other\ntyped\n")
        assert b"Read-only file system" in logs.data[2]
        found = {one["id"]: one for one in host.call("list")["containers"]}
        assert found["two"]["exit"] == {"code": 3} and found["main"]["state"] == "running"
        host.call("delete", id="two")
    with pytest.raises(AgentError, match="did not appear"):
        host.call("create", id="three", spec=spec | {"root": {"device": "xvdz"}, "device_timeout_s": 0.1})
    assert [one["id"] for one in host.call("list")["containers"]] == ["main"]


def test_pause_and_resume(start):
    zone = start(sh("i=0; while :; do i=$((i+1)); echo $i; done > /dev/null & echo up; wait"))
    host = zone.host
    host.open("logs", container="main")
    assert host.call("pause", id="main") == {"state": "paused"}
    (spinning,) = [one for one in host.call("processes", container="main")["processes"] if one["ppid"] != 2][-1:]
    times = {one["cpu_s"] for _ in range(20) for one in host.call("processes")["processes"] if one == spinning}
    assert len(times) <= 1
    assert host.call("resume", id="main") == {"state": "running"}
    assert host.call("stop", id="main", signal=9, timeout_s=1) == {"exit": {"signal": 9}}


def test_the_image_healthcheck_is_told_as_it_changes(start):
    check = {"argv": ["sh", "-c", "echo looked; test -e /well"], "interval_s": 0.1, "timeout_s": 5, "retries": 2}
    zone = start(IDLE, extra={"healthcheck": check})
    bad = zone.host.note("health", state="unhealthy")
    assert (bad["code"], bad["output"]) == (1, "looked\n")
    zone.host.run(["touch", "/well"])
    zone.host.note("health", state="healthy")
    assert zone.host.call("list")["containers"][0]["health"] == "healthy"


def test_sysctl_sets_and_reads(host):
    assert host.call("sysctl", key="kernel.hostname", value="other")["value"] == "other"
    assert host.call("sysctl", key="kernel/hostname")["value"] == "other"


def test_metrics_count(host):
    metrics = host.call("metrics")
    assert metrics["memory_kib"]["MemTotal"] > 0 and "cpu0" in metrics["cpu"] and metrics["network"]["lo"]
    assert metrics["processes"]["forked"] > 0 and "main" in metrics["containers"]
    assert metrics["containers"]["main"]["root_bytes"]["total"] == 64 << 20


def test_the_logs_come_from_their_offsets_and_end_with_the_workload(start):
    zone = start(sh("echo one; echo two >&2; read x; echo $x; exit 5"), extra={"stdin_open": True})
    zone.host.until_output("main", 1, 4)
    logs = zone.host.open("logs", container="main", **{"from": {"1": 2, "2": 0}})
    typed = zone.host.open("stdin", id="main")
    typed.write(b"three\n")
    assert zone.host.note("exit")["code"] == 5
    zone.host.until(lambda: logs.ended == {1, 2})
    assert (bytes(logs.data[1]), bytes(logs.data[2])) == (b"e\nthree\n", b"two\n")
    assert logs.wait() == {} and typed.wait() == {}
    assert zone.wait()[1] == "zone: the workload exited with code 5"


def test_the_end_of_stdin_reaches_the_workload(start):
    zone = start({"argv": ["wc", "-c"]}, extra={"stdin_open": True})
    logs = zone.host.open("logs", container="main")
    typed = zone.host.open("stdin", id="main")
    typed.write(bytes(200_000))
    typed.eof()
    logs.wait()
    assert logs.data[1] == b"200000\n" and zone.wait()[1].endswith("code 0")


def test_a_workload_on_a_terminal(start):
    zone = start(sh("stty size; read x; stty size; exit 6", tty=True), extra={"stdin_open": True, "tty_size": [11, 22]})
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: b"11 22" in logs.data[1])
    typed = zone.host.open("stdin", id="main")
    typed.event(resize=[33, 44])
    typed.write(b"\n")
    logs.wait()
    assert b"33 44" in logs.data[1] and zone.wait()[1].endswith("code 6")


def test_output_is_kept_for_a_host_that_comes_late(start):
    zone = start(sh("sleep 0.3; echo early; exit 2"), hello=False)
    zone.workload_ended()
    greeting = zone.host.hello()
    assert greeting["containers"][0]["exit"] == {"code": 2} and greeting["outcome"] == "code 2"
    logs = zone.host.open("logs", container="main")
    logs.wait()
    assert logs.data[1] == b"early\n" and zone.wait()[1].endswith("code 2")


def test_what_no_host_ever_read_is_shown_on_the_console(start):
    out, end = start(sh("echo unread; exit 2"), hello=False).wait()
    assert out == "unread\n" and end.endswith("code 2")


def test_acknowledged_output_is_not_sent_again_and_the_rest_is(start):
    zone = start(sh("head -c 200000 /dev/zero; exec sleep 100"))
    logs = zone.host.open("logs", container="main")
    logs.hold = True
    zone.host.until(lambda: len(logs.data[1]) == 65536)
    logs.release()
    zone.host.until(lambda: len(logs.data[1]) == 200_000)
    (main,) = zone.host.hello()["containers"]
    start_at, end_at = main["output"]["1"]
    assert end_at == 200_000 and 65536 <= start_at <= 200_000
    again = zone.host.open("logs", container="main", **{"from": {"1": start_at}})
    zone.host.until(lambda: len(again.data[1]) == end_at - start_at)
    assert not again.events


def test_a_great_output_arrives_whole(start):
    size = 64 << 20
    zone = start({"argv": ["head", "-c", str(size), "/dev/zero"]})
    logs = zone.host.open("logs", container="main")
    total = 0
    while logs.result is None:
        zone.host.take(20)
        total += len(logs.data[1])
        assert not any(logs.data[1])
        logs.data[1].clear()
    assert total == size and not logs.events and zone.wait()[1].endswith("code 0")


def test_a_zone_without_a_process_waits_until_it_is_shut_down(start):
    zone = start(None)
    assert zone.host.call("list") == {"containers": []} or zone.host.greeting["containers"] == []
    zone.host.call("shutdown")
    assert zone.wait()[1] == "zone: the workload exited with code 0"


def test_shutdown_gives_the_workload_its_signal(start):
    zone = start(IDLE)
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: b"up" in logs.data[1])
    zone.host.call("shutdown", signal=15, timeout_s=20)
    assert zone.host.note("exit")["code"] == 7
    assert zone.wait()[1].endswith("code 7")


def test_a_signal_to_init_reaches_the_workload(start):
    zone = start(IDLE)
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: b"up" in logs.data[1])
    os.kill(zone.init_pid, signal.SIGTERM)
    assert zone.host.note("exit")["code"] == 7
    assert zone.wait()[1].endswith("code 7")


def test_init_and_agent_live_in_a_root_of_their_own(zone):
    zone.host.hello()
    assert sorted(os.listdir(f"/proc/{zone.init_pid}/root")) == ["containers", "dev", "proc", "sys"]
    assert os.readlink(f"/proc/{zone.init_pid}/exe").endswith(" (deleted)")
    assert zone.host.run(["ls", "/proc/1/root/containers"]).result == {"ok": {"exit": {"code": 2}}}


def test_stop_kills_what_does_not_listen(start):
    zone = start(sh("trap '' TERM; echo up; while :; do sleep 1; done"))
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: b"up" in logs.data[1])
    assert zone.host.call("stop", id="main", signal=15, timeout_s=0.3) == {"exit": {"signal": 9}}
    assert zone.wait()[1].endswith("killed by signal 9")


def test_a_workload_that_cannot_start_is_told_to_the_host(start):
    zone = start({"argv": ["nothere"]})
    assert zone.host.greeting["outcome"].startswith("failed command-127 command 'nothere'")
    assert "failed (command-127)" in zone.wait()[1]


def test_ten_thousand_orphans_are_reaped(start):
    zone = start(sh("i=0; while [ $i -lt 10000 ]; do (: &); i=$((i+1)); done; echo made; sleep 100"))
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: b"made" in logs.data[1], 120)
    end = time.monotonic() + 20
    while len(zone.host.call("processes")["processes"]) > 6:
        assert time.monotonic() < end


def test_a_killed_agent_ends_the_zone_with_a_sentence(start):
    zone = start(IDLE)
    os.kill(zone.agent_pid, signal.SIGKILL)
    assert zone.wait()[1] == "zone: failed (agent): the zone's agent ended with signal 9"
