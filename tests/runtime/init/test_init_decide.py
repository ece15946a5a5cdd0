"""The decisions of init that need no kernel."""

import errno
import os
import signal
import socket
import struct
from types import SimpleNamespace

import pytest
from support import containers

from runtime.init import abi, boot, files, kernel, launch, modules, mounts, report, supervise
from runtime.init.agent import cgroup, main
from runtime.init.container import command
from runtime.init.failure import BootFailure


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15 10", (15, 10.0)),
        ("3 0.5", (3, 0.5)),
        ("9 0", (9, 0.0)),
        ("", None),
        ("15", None),
        ("0 1", None),
        ("65 1", None),
        ("-9 1", None),
        ("15 -1", None),
        ("15 1.", None),
        ("15 x", None),
        ("TERM 5", None),
        ("15 1 1", None),
    ],
)
def test_stop_requests(text, expected):
    assert supervise.parse_stop(text) == expected


@pytest.mark.parametrize(
    ("status", "text"), [(0, "code 0"), (3 << 8, "code 3"), (255 << 8, "code 255"), (9, "signal 9"), (139, "signal 11")]
)
def test_wait_statuses_keep_codes_and_signals_apart(status, text):
    assert supervise.outcome_text(status) == text


@pytest.fixture
def supervised(monkeypatch):
    """Makes a supervisor whose agent is ours: (it, the agent's end of the socket)."""
    monkeypatch.setattr(supervise, "_end_remains", lambda: None)
    ours, agent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    signals = os.pipe2(os.O_NONBLOCK)

    def make(status, stop_request=lambda: None):
        monkeypatch.setattr(supervise.kernel, "reap", lambda pid: status)
        told = SimpleNamespace(bus=None, phase=lambda name: None, stop_request=stop_request)
        return supervise.Supervisor(told, signals[0], ours), agent

    yield make
    for fd in signals:
        os.close(fd)
    ours.close()
    agent.close()


def test_a_stop_that_is_given_more_time_than_the_kernel_can_wait_ends_nothing(supervised):
    """Pid 1 would die of it, and the zone with it."""

    def asked():
        agent.send(b"exit code 3")
        return "15 3000000"

    supervisor, agent = supervised(None, asked)
    agent.send(b"phase workload")
    assert supervisor.run(7) == "code 3"


@pytest.mark.parametrize(
    ("word", "outcome", "lost"),
    [
        (b"exit code 3", "code 3", False),
        (b"exit failed mount no", "failed mount no", False),
        (b"phase workload", "failed agent the zone's agent ended with signal 9", True),
        (b"lost OSError: no", "failed agent the zone's agent ended with signal 9: OSError: no", True),
    ],
)
def test_an_agent_that_ends_without_a_word_is_told_from_one_that_has_ended_the_zone(supervised, word, outcome, lost):
    supervisor, agent = supervised(signal.SIGKILL)
    agent.send(word)
    assert supervisor.run(7) == outcome and supervisor.agent_lost is lost


def test_an_agent_that_cannot_begin_says_why_and_is_no_second_pid_1(monkeypatch, capfd):
    """It would power the zone off."""

    def fail(*given):
        raise ImportError("nothing to import it from")

    monkeypatch.setattr(main, "_run", fail)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        pid = os.fork()
        if pid == 0:
            try:
                boot._be_agent({}, report.Reporter(), ours, theirs, None)
            finally:
                os._exit(9)
        theirs.close()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        assert ours.recv(100) == b"lost ImportError: nothing to import it from"
    assert capfd.readouterr().err == "zone: agent: ImportError: nothing to import it from\n"


def test_path_is_searched_in_order_and_empty_parts_mean_here():
    assert command.candidates("nginx", "/a:/b/:") == ["/a/nginx", "/b//nginx", "./nginx"]
    assert command.candidates("./x", "/a") == ["./x"]


def test_environment_keeps_equals_signs_and_gets_a_path():
    assert command.environment(["A=b=c", "noequals", "=x", "E="]) == {"A": "b=c", "E": "", "PATH": command.DEFAULT_PATH}
    assert command.environment(["PATH=/only"])["PATH"] == "/only"


def test_etc_files_name_the_zone_and_its_resolvers():
    network = {"addresses": ["10.75.1.2/24", "fd00::2/64"], "nameservers": ["10.75.1.1"], "search": ["lan", "corp"]}
    found = files.etc_files("web", network)
    assert found["hostname"] == "web\n"
    assert "10.75.1.2 web\nfd00::2 web\n" in found["hosts"] and found["hosts"].startswith("127.0.0.1 localhost\n")
    assert found["resolv.conf"] == "nameserver 10.75.1.1\nsearch lan corp\n"
    found = files.etc_files("web", {**network, "options": ["ndots:2", "use-vc"], "search": []})
    assert found["resolv.conf"] == "nameserver 10.75.1.1\noptions ndots:2 use-vc\n"


def test_without_a_network_the_image_keeps_its_resolv_conf():
    assert set(files.etc_files("web", None)) == {"hostname", "hosts"}
    assert set(files.etc_files("", None)) == {"hosts"}


@pytest.mark.parametrize("left", ["of a run that was killed", None])
def test_what_has_the_name_of_a_file_that_is_being_written_does_not_keep_it_from_that(tmp_path, left):
    containers.zsys()
    (tmp_path / "etc").mkdir()
    if left is None:
        (tmp_path / "etc" / ".zone.hosts").symlink_to("passwd")
    else:
        (tmp_path / "etc" / ".zone.hosts").write_text(left)
    root_fd = files.open_root(str(tmp_path))
    try:
        files.write_etc(root_fd, {"hosts": "::1 localhost\n"})
    finally:
        os.close(root_fd)
    assert os.listdir(tmp_path / "etc") == ["hosts"]
    assert (tmp_path / "etc" / "hosts").read_text() == "::1 localhost\n"


@pytest.mark.parametrize("name", ["hosts", ".zone.hosts"])
@pytest.mark.parametrize("inside", [None, "deep/file", "link"])
def test_a_directory_in_the_place_of_a_file_of_etc_is_replaced(tmp_path, name, inside):
    """A workload may have made one, which its scratch disk has at every later start."""
    containers.zsys()
    there, kept = tmp_path / "etc" / name, tmp_path / "kept"
    there.mkdir(parents=True)
    kept.write_text("x")
    if inside == "link":
        (there / inside).symlink_to(tmp_path)
    elif inside is not None:
        (there / inside).parent.mkdir()
        (there / inside).write_text("x")
    root_fd = files.open_root(str(tmp_path))
    try:
        files.write_etc(root_fd, {"hosts": "::1 localhost\n"})
    finally:
        os.close(root_fd)
    assert os.listdir(tmp_path / "etc") == ["hosts"] and kept.exists()
    assert (tmp_path / "etc" / "hosts").read_text() == "::1 localhost\n"


def test_launch_data_get_their_defaults():
    data = launch.check(b'{"hostname":"x","process":{"argv":["true"]}}')
    assert (data["root"], data["readonly_root"], data["network"]) == ("xvda", False, None)
    assert data["process"] == {
        "argv": ["true"],
        "env": [],
        "cwd": "/",
        "uid": 0,
        "gid": 0,
        "groups": [],
        "tty": False,
        "stop_signal": 15,
        "stop_timeout_s": 10,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "no JSON"),
        ("[]", "no object"),
        ('{"root":5}', "key root: expected str, got 5"),
        ('{"process":{"uid":"root"}}', "key process.uid: expected int, got 'root'"),
        ('{"process":{"uid":true}}', "key process.uid"),
        ('{"network":[]}', "key network: expected dict"),
    ],
)
def test_broken_launch_data_name_the_key(text, words):
    with pytest.raises(BootFailure) as caught:
        launch.check(text.encode())
    assert caught.value.reason == "launch" and words in caught.value.sentence


def test_every_field_of_the_model_is_known_to_init():
    import dataclasses

    from pipeline.bundle.model import Launch, Process

    assert set(launch._KEYS) == {field.name for field in dataclasses.fields(Launch)}
    assert set(launch._PROCESS) == {field.name for field in dataclasses.fields(Process)}


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        ("code 0", "the workload exited with code 0"),
        ("signal 9", "the workload was killed by signal 9"),
        ("failed root root device xvda did not appear", "failed (root): root device xvda did not appear"),
    ],
)
def test_the_console_says_it_as_a_sentence(outcome, line):
    assert report.sentence(outcome) == line


def test_an_interpreter_is_named_when_a_script_lacks_it(tmp_path):
    script = tmp_path / "run"
    script.write_text("#! /opt/none/sh -e\n")
    assert command.interpreter(str(script)) == "its interpreter /opt/none/sh"


@pytest.mark.parametrize(
    ("name", "number", "failed"),
    [
        ("xen-blkfront.ko", errno.ENODEV, False),
        ("xen_netfront.ko", errno.ENODEV, False),
        ("squashfs.ko", errno.EEXIST, False),
        ("xen-blkfront.ko", errno.ENOEXEC, True),
        ("9pnet_xen.ko", errno.ENODEV, True),
        ("users-own.ko", errno.ENODEV, True),
    ],
)
def test_only_xens_own_drivers_may_find_no_device(tmp_path, monkeypatch, name, number, failed):
    def refuse(fd, parameters):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(kernel, "load_module", refuse)
    (tmp_path / name).touch()
    listed = [{"path": str(tmp_path / name)}]
    if not failed:
        modules.load_all(listed)
        return
    with pytest.raises(BootFailure) as caught:
        modules.load_all(listed)
    assert (caught.value.reason, caught.value.sentence) == (
        "modules",
        f"loading {tmp_path / name}: {os.strerror(number)}",
    )


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """In the place of the cgroup tree, with the controllers of a kernel that lacks some of ours."""
    monkeypatch.setattr(mounts, "CGROUPS", str(tmp_path))
    (tmp_path / "cgroup.controllers").write_text("cpu memory rdma\n")
    (tmp_path / "cgroup.subtree_control").touch()
    return tmp_path


def test_a_container_that_may_mount_the_cgroup_tree_cannot_lift_its_limits(monkeypatch):
    """What a namespace's own root is limited to is its parent's, if the tree was first mounted so (nsdelegate)."""
    asked = {}
    monkeypatch.setattr(mounts, "make_directory", lambda path: None)
    monkeypatch.setattr(
        kernel, "mount", lambda source, target, kind, flags=0, data=None: asked.update({target: (kind, data)})
    )
    mounts.early()
    assert asked["/sys/fs/cgroup"] == ("cgroup2", "nsdelegate") and list(asked) == [
        "/dev",
        "/proc",
        "/sys",
        mounts.CGROUPS,
    ]


def test_controllers_are_enabled_as_far_as_the_kernel_has_them(tree):
    cgroup.enable_controllers()
    assert (tree / "cgroup.subtree_control").read_text() == "+cpu +memory"
    (tree / "cgroup.controllers").write_text("rdma\n")
    (tree / "cgroup.subtree_control").unlink()
    cgroup.enable_controllers()


def test_controllers_that_cannot_be_enabled_end_the_boot(tree, monkeypatch):
    (tree / "cgroup.subtree_control").unlink()
    with pytest.raises(BootFailure) as caught:
        cgroup.enable_controllers()
    assert caught.value.reason == "cgroup"
    assert caught.value.sentence == "enabling the controllers +cpu +memory: No such file or directory"

    def busy(path, text):
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(cgroup, "write", busy)
    with pytest.raises(BootFailure, match="Device or resource busy"):
        cgroup.enable_controllers()
    (tree / "cgroup.type").write_text("domain\n")  # only below the root of all
    cgroup.enable_controllers()
    (tree / "cgroup.controllers").unlink()
    with pytest.raises(BootFailure, match="enabling the controllers: No such file"):
        cgroup.enable_controllers()


def test_init_that_cannot_be_spared_by_the_oom_killer_ends_the_boot(monkeypatch, capfd):
    given = []

    def refuse(path, text):
        given.append((path, text))
        number = errno.EIO if len(given) == 1 else errno.EACCES
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cgroup, "write", refuse)
    with pytest.raises(BootFailure) as caught:
        cgroup.spare()
    assert caught.value.reason == "agent"
    assert caught.value.sentence == "keeping the OOM killer from init and agent: Input/output error"
    cgroup.spare()  # no privilege for it, which only a zone's kernel gives
    assert capfd.readouterr().err == "zone: the OOM killer may take init and agent: Permission denied\n"
    assert given == [("/proc/self/oom_score_adj", "-1000")] * 2


def test_everything_is_written_out_before_the_power_goes(monkeypatch):
    done = []
    monkeypatch.setattr(kernel.posix, "sync", lambda: done.append("sync"))
    monkeypatch.setattr(kernel, "call", lambda number, *arguments: done.append((number, arguments[2])) or 0)
    kernel.power_off()
    assert done == ["sync", (abi.SYS_REBOOT, abi.REBOOT_POWER_OFF)]


def test_all_bits_of_the_seed_but_the_hashs_are_counted_as_entropy(monkeypatch):
    asked = []
    monkeypatch.setattr(kernel, "call", lambda *arguments: asked.append(arguments) or 0)
    boot.seed_entropy("0123456789abcdef" * 4)
    ((number, fd, request, argument),) = asked
    assert (number, request) == (abi.SYS_IOCTL, abi.RNDADDENTROPY) and fd > 2
    assert argument == struct.pack("=ii", 224, 28) + bytes.fromhex("0123456789abcdef" * 4)[:28]
    boot.seed_entropy("")
    assert len(asked) == 1


@pytest.mark.parametrize("lost", [0, 3, 100])
def test_path_is_looked_up_again_after_a_race_with_a_rename(monkeypatch, lost):
    """openat2(2): EAGAIN where ".." could not be told safe, as something was renamed or mounted meanwhile."""
    races = iter([BlockingIOError(errno.EAGAIN, "raced")] * lost)

    def call(*arguments):
        if (race := next(races, None)) is not None:
            raise race
        return 7

    monkeypatch.setattr(kernel, "call", call)
    assert kernel.open_in(3, "etc", os.O_RDONLY) == 7


def test_path_that_is_renamed_without_end_is_given_up(monkeypatch):
    def call(*arguments):
        raise BlockingIOError(errno.EAGAIN, "raced")

    monkeypatch.setattr(kernel, "call", call)
    with pytest.raises(BlockingIOError):
        kernel.open_in(3, "etc", os.O_RDONLY)
