"""The command styrolite as it is in a zone: the static program, run on this machine."""

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import cgroups, containers, zoneparts
from support.namespaces import require_mounted_root

from pipeline.seccomp import profile
from runtime.init.container import foreground
from runtime.init.container import styrolite as command
from runtime.init.failure import ContainerFailure

pytestmark = [pytest.mark.root, pytest.mark.network, pytest.mark.usefixtures("zsys")]


@pytest.fixture(scope="module")
def styrolite(tmp_path_factory):
    require_mounted_root()
    path = tmp_path_factory.mktemp("program") / "styrolite"
    path.write_bytes(zoneparts.env().store.read(zoneparts.zone_init().elf.digest))
    path.chmod(0o755)
    return path


@pytest.fixture
def run(styrolite, tmp_path):
    """Runs `styrolite CONFIG` or, for what has an ociVersion, `styrolite --bundle DIR`."""

    def go(config, **keys):
        (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        arguments = ["--bundle", tmp_path] if "ociVersion" in config else [tmp_path / "config.json"]
        return subprocess.run([styrolite, *arguments], capture_output=True, text=True, timeout=60, **keys)

    return go


def create(script, **keys):
    command = {
        "executable": "/bin/sh",
        "arguments": ["-c", script],
        "no_new_privs": True,
        "environment": {"PATH": "/bin"},
    }
    inner = command | keys.pop("exec", {})
    return {"kind": "Create", "workload_id": cgroups.own("cmd"), "rootfs": str(containers.root()), "exec": inner} | keys


def oci(script, **linux):
    """A bundle as tools write them."""
    caps = ["CAP_CHOWN", "CAP_KILL"]
    return {
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": True,
        },
        "root": {"path": str(containers.root()), "readonly": True},
        "hostname": "bundled",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]} | linux,
    }


@pytest.mark.usefixtures("user_namespaces")
def test_a_config_of_styrolite_runs_unchanged(run):
    maps = [{"base_nsid": 0, "base_hostid": 100000, "remap_count": 65536}]
    done = run(create("id; hostname; cat /proc/self/uid_map; exit 7", uid_mappings=maps, gid_mappings=maps))
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.split("\n")[:2] == ["uid=0(root) gid=0(root) groups=0(root)", cgroups.own("styrolite-cmd")]
    assert done.stdout.split()[-3:] == ["0", "100000", "65536"]


def test_an_oci_bundle_runs(run):
    done = run(oci("hostname; echo x > /tmp/x && cat /tmp/x; echo x > /new; cat /proc/self/status; ls /sys"))
    assert done.returncode == 0
    assert done.stdout.startswith("bundled\nx\n") and "CapBnd:\t0000000000000021" in done.stdout
    assert "Read-only file system" in done.stderr and "NoNewPrivs:\t1" in done.stdout


def test_devices_and_bind_mounts_of_a_bundle(run, tmp_path):
    config = oci(
        "stat -c '%F %a' /dev/one; cat /proc/self/mountinfo",
        devices=[{"path": "/dev/one", "type": "p", "fileMode": 0o600}],
    )
    options = ["rbind", "rprivate", "ro", "nosuid", "nodev", "noexec", "relatime"]
    config["mounts"].append({"destination": "/tmp/data", "type": "bind", "source": str(tmp_path), "options": options})
    done = run(config)
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    (flags,) = [line.split()[5] for line in lines if line.split()[4] == "/tmp/data"]
    assert first == "fifo 600" and flags == "ro,nosuid,nodev,noexec,relatime"
    config["process"]["args"][-1] = "echo x > /tmp/data/new"
    config["mounts"][-1]["options"] = ["bind"]
    config["mounts"].append({"destination": "/tmp/data", "type": "none", "options": ["bind", "remount", "ro"]})
    assert "Read-only file system" in run(config).stderr


def test_the_filter_of_a_bundle_is_compiled_and_installed(run):
    script = "cat /proc/self/status; call 250 0 -3 1"
    done = run(oci(script, seccomp=profile.default([])))
    assert "Seccomp:\t2\n" in done.stdout and done.stdout.endswith("-1 1\n")


def test_a_wrong_filter_of_a_bundle_is_named(run):
    done = run(oci("true", seccomp={"defaultAction": "SCMP_ACT_NOTIFY"}))
    assert done.returncode == 125
    assert done.stderr.startswith(
        "styrolite: failed (seccomp): config.json: seccomp: key defaultAction: expected one of"
    )


@pytest.mark.parametrize(
    ("executable", "code", "words"),
    [
        ("/bin/none", 127, "failed (command-127): command '/bin/none' does not exist"),
        ("none", 127, "failed (command-127): command 'none' was not found in PATH /bin"),
        ("/bin/text", 126, "failed (command-126): command '/bin/text' is neither a program for this machine nor"),
    ],
)
def test_a_command_that_cannot_be_executed(run, executable, code, words):
    done = run(create("", exec={"executable": executable, "arguments": []}))
    assert done.returncode == code and done.stderr.startswith(f"styrolite: {words}")


def test_a_signal_is_told_and_is_128_and_its_number(run):
    done = run(create("kill -9 $$", namespaces=["Mount"]))
    assert (done.returncode, done.stderr) == (137, "styrolite: the command was killed by signal 9\n")


def test_signals_go_on_to_the_command(styrolite, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(create("trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done")))
    with subprocess.Popen([styrolite, tmp_path / "c.json"], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGUSR1)
        assert process.wait(30) == 9


def test_with_the_supervisor_the_container_dies(styrolite, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(create("echo up; sleep 100")))
    with subprocess.Popen([styrolite, tmp_path / "c.json"], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.kill()
        assert process.stdout.read() == b""  # the end comes when the last holder of the pipe is gone
    # Its cgroup is all a killed supervisor leaves.
    for root in (containers.cgroup_root(), "/sys/fs/cgroup"):
        cgroup = f"{root}/containers/{cgroups.own('styrolite-cmd')}"
        if os.path.isdir(cgroup):  # who had the pipe has closed it, and may be in there a moment longer
            assert containers.eventually(lambda path=f"{cgroup}/cgroup.events": "populated 0" in Path(path).read_text())
            os.rmdir(cgroup)


def test_a_terminal_is_joined_to_ours(styrolite, tmp_path):
    config = oci("test -t 0 && readlink /proc/self/fd/1; cat /dev/null; exit 5")
    config["process"]["terminal"] = True
    config["mounts"].append({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["dev"]})
    (tmp_path / "config.json").write_text(json.dumps(config))
    pid, master = pty.fork()
    if pid == 0:
        os.execv(styrolite, ["styrolite", "--bundle", str(tmp_path)])
    said = containers.drain(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5 and said == "/dev/pts/0\r\n"


def test_attach_runs_in_the_namespaces_of_a_container(styrolite, tmp_path, run):
    (tmp_path / "first.json").write_text(json.dumps(create("echo up; sleep 100", hostname="inner")))
    with subprocess.Popen([styrolite, tmp_path / "first.json"], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        inner = {"executable": "sh", "arguments": ["-c", "hostname; ls /proc; exit 4"], "no_new_privs": True, "uid": 5}
        done = run({"kind": "Attach", "pid": process.pid, "exec": inner | {"environment": {"PATH": "/bin"}}})
        process.terminate()  # pid 1 without a handler: spared
        process.kill()
    assert done.returncode == 4, done.stderr
    assert done.stdout.split()[0] == "inner" and len([n for n in done.stdout.split() if n.isdigit()]) <= 4


def on_a_terminal(tmp_path, script, namespaces=("pid", "ipc", "uts", "mount")):
    config = oci(script, namespaces=[{"type": kind} for kind in namespaces])
    config["process"]["terminal"] = True
    config["mounts"].append({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["dev"]})
    (tmp_path / "config.json").write_text(json.dumps(config))
    return ["--bundle", str(tmp_path)]


def test_signals_go_on_to_a_command_that_does_not_read_its_terminal(styrolite, tmp_path):
    (tmp_path / "typed").write_text("a line\n" * 1_000_000)  # more than any terminal takes
    words = on_a_terminal(tmp_path, "trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done")
    with (
        open(tmp_path / "typed") as typed,
        open(tmp_path / "said", "wb") as said,
        subprocess.Popen([styrolite, *words], stdin=typed, stdout=said) as process,
    ):
        try:
            assert containers.eventually(lambda: b"up" in (tmp_path / "said").read_bytes(), 60)
            process.send_signal(signal.SIGUSR1)
            assert process.wait(60) == 9
        finally:
            process.kill()


def test_a_terminal_that_others_still_have_does_not_keep_us(styrolite, tmp_path):
    words = on_a_terminal(tmp_path, "trap '' HUP; sleep 300 & echo left $!; exit 5", ["ipc", "uts", "mount"])
    done = subprocess.run([styrolite, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    os.kill(int(done.stdout.split()[1]), signal.SIGKILL)
    assert (done.returncode, done.stdout.split()[0]) == (5, "left")


def test_a_terminal_that_others_still_write_to_now_and_then_does_not_keep_us(monkeypatch):
    now_s, (master, slave) = 0.0, pty.openpty()
    monkeypatch.setattr(foreground, "time", SimpleNamespace(monotonic=lambda: now_s), raising=False)

    def ready(wanted, timeout_ms):
        nonlocal now_s
        if timeout_ms is None:  # what was read is to be written
            return {fd: events for fd, events in wanted.items() if fd >= 0}
        now_s += 0.05
        assert now_s < 60
        os.write(slave, b"x")
        select.select([master], [], [])
        return {master: select.POLLIN}

    monkeypatch.setattr(foreground, "_ready", ready)
    monkeypatch.setattr(foreground, "_write", lambda fd, data: b"")
    foreground.Joint(master).finish(-1, ())
    for fd in (master, slave):
        os.close(fd)


def test_a_resized_terminal_loses_nothing_of_what_was_written_last(styrolite, tmp_path):
    """The command ends with all of it in its terminal, as the pipe that it is copied to is full."""
    words = on_a_terminal(tmp_path, "sleep 1; dd if=/dev/zero bs=4000 count=1 2>/dev/null; exit 5")
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    full_bytes = os.write(writer, bytes(4096))
    with (
        open(reader, "rb", buffering=0) as stdout,
        subprocess.Popen([styrolite, *words], stdin=subprocess.DEVNULL, stdout=writer) as process,
    ):
        os.close(writer)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        assert containers.eventually(children.read_text, 60) and containers.eventually(
            lambda: not children.read_text(), 60
        )
        process.send_signal(signal.SIGWINCH)
        assert (len(stdout.readall()) - full_bytes, process.wait(60)) == (4000, 5)


def test_a_command_on_a_terminal_goes_on_though_nobody_takes_what_it_writes(styrolite, tmp_path):
    words = on_a_terminal(tmp_path, "echo up; read x; echo more; read x; exit 5")
    with subprocess.Popen([styrolite, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\r\n"
        process.stdout.close()
        process.stdin.write(b"go\n" * 2)
        process.stdin.flush()
        assert process.wait(60) == 5


SUPERVISOR = """
import subprocess, sys
children = [subprocess.Popen(words.split()) for words in sys.argv[1:]]
print(*[child.pid for child in children], flush=True)
sys.stdin.read()
for child in children:
    child.kill()
"""


@pytest.mark.parametrize("stage", ["true", "sleep 1000"])
def test_attach_finds_the_container_while_the_stage_that_made_it_is_not_gone_yet(stage):
    words = [sys.executable, "-c", SUPERVISOR, stage, "sleep 1000"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        first, container = process.stdout.readline().split()
        if stage == "true":
            assert containers.eventually(lambda: ") Z " in Path(f"/proc/{first}/stat").read_text())
        assert command._first_child(process.pid) == int(container)
        process.communicate("")
    with pytest.raises(ContainerFailure, match=f"expected a child of process {process.pid}, got none"):
        command._first_child(process.pid)


@pytest.fixture
def supervised(styrolite, tmp_path):
    """The pid of a styrolite whose container has a cgroup of its own."""
    config = create("echo up; sleep 100", cgroupfs=containers.cgroup_root())
    (tmp_path / "first.json").write_text(json.dumps(config))
    with subprocess.Popen([styrolite, tmp_path / "first.json"], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process.pid
        process.kill()
    cgroup = containers.cgroup("styrolite-cmd")
    assert containers.eventually(lambda: "populated 0" in (cgroup / "cgroup.events").read_text())
    cgroup.rmdir()


@pytest.mark.parametrize("keys", [{}, {"workload_id": "another"}])
def test_attach_joins_the_cgroup_of_the_process(run, supervised, keys):
    inner = {"executable": "cat", "arguments": ["/proc/self/cgroup"], "environment": {"PATH": "/bin"}}
    done = run({"kind": "Attach", "pid": supervised, "exec": inner, "cgroupfs": containers.cgroup_root()} | keys)
    assert f"0::/containers/{cgroups.own('styrolite-cmd')}\n" in done.stdout, done.stderr


@pytest.mark.parametrize("place", ["/nowhere", "/proc", "/tmp"])
def test_attach_that_cannot_join_the_cgroup_of_the_process_fails(run, supervised, place):
    inner = {"executable": "true", "environment": {"PATH": "/bin"}}
    done = run({"kind": "Attach", "pid": supervised, "exec": inner, "cgroupfs": place})
    assert done.returncode == 125 and done.stderr.startswith("styrolite: failed (cgroup): cgroup of process ")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"kind": "Destroy"}, "failed (spec): styrolite config: key kind: expected Create or Attach, got 'Destroy'"),
        ("{", "expected JSON, got JSON at character 1"),
        ([], "expected an object, got []"),
        ({"kind": "Create", "exec": {}}, "failed (spec): container spec: key root: expected one of path and device"),
    ],
)
def test_what_is_no_config_is_named(run, config, words):
    done = run(config)
    assert done.returncode == 125 and words in done.stderr


def test_a_missing_config_and_wrong_words_are_named(styrolite):
    done = subprocess.run([styrolite, "/none.json"], capture_output=True, text=True)
    assert done.stderr == "styrolite: failed (spec): reading /none.json: No such file or directory\n"
    done = subprocess.run([styrolite, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.split(" | ")[0]) == (125, "styrolite: usage: styrolite CONFIG.json")
