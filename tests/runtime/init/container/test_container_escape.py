"""Attempts to get out of a container, each with the refusal that is expected."""

import os
import shutil
from pathlib import Path

import pytest
from support import containers
from support.containers import live, run, spec

from pipeline.seccomp import filters, profile, syscalls
from runtime.init.container import capabilities, hypervisor, mountspec, steps
from runtime.init.failure import ContainerFailure

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("zsys")]
EPERM, EACCES, ENOSYS, ESRCH, EROFS = 1, 13, 38, 3, 30
EVERYTHING = {name: ["ALL"] for name in ("bounding", "effective", "permitted")}


def call(*words):
    """argv that does a system call and prints `result errno`."""
    return ["call", *(str(syscalls.NUMBERS.get(str(word), word)) for word in words)]


def refused(wanted, name="refused"):
    with pytest.raises(ContainerFailure) as caught, live(wanted, name):
        pass
    return caught.value


def default_filter():
    return filters.compile(profile.default([f"CAP_{name}" for name in capabilities.DEFAULT])).hex()


@pytest.fixture
def image(tmp_path):
    """A root of its own, for what must not be done to the one of all."""
    shutil.copytree(containers.root(), tmp_path / "image", symlinks=True)
    return tmp_path / "image"


# Descriptors and directories of the zone: CVE-2024-21626, CVE-2016-9962


def test_nothing_but_the_standard_streams_is_inherited():
    held = [os.open("/", os.O_RDONLY) for _ in range(20)]
    for fd in held:
        os.set_inheritable(fd, True)
    try:
        with live(spec("ls /proc/self/fd; sleep 100")) as box:
            assert "".join(box.line() for _ in range(4)).split() == ["0", "1", "2", "3"]  # 3 is ls's own
            assert sorted(os.listdir(f"/proc/{box.started.pid}/fd")) in (["0", "1", "2"], ["0", "1", "10", "2"])
            assert box.run("ls /proc/self/fd")[0].split() == ["0", "1", "2", "3"]
    finally:
        for fd in held:
            os.close(fd)


@pytest.mark.parametrize("fd", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 31, 1023])
def test_no_descriptor_serves_as_working_directory(fd):
    with live(spec("echo up; sleep 100")) as box:
        box.line()
        for cwd in (f"/proc/self/fd/{fd}", f"/proc/self/fd/{fd}/.."):
            assert refused(spec("pwd", {"cwd": cwd})).reason == "cwd"
            with pytest.raises(ContainerFailure) as caught:
                box.container.enter({"argv": ["ls"], "cwd": cwd})
            assert caught.value.reason == "cwd"


def test_no_descriptor_serves_as_working_directory_through_a_symlink(image):
    for fd in range(3, 12):
        (image / f"way{fd}").symlink_to(f"/proc/self/fd/{fd}")
        wanted = spec("pwd; ls", {"cwd": f"/way{fd}"})
        wanted["root"]["path"] = str(image)
        assert refused(wanted).reason == "cwd"


@pytest.mark.parametrize("what", ["/proc/self/fd/5", "/proc/self/fd/5/self/status", "/fifo", "/etc/passwd"])
def test_what_a_container_puts_in_the_place_of_dev_null_is_no_standard_stream(what, image):
    """At 5, a process that enters has the zone's /proc until it has its streams."""
    (image / "trap").mkdir()
    (image / "trap" / "null").symlink_to(what)
    os.mkfifo(image / "fifo")
    rights = [*capabilities.DEFAULT, "SYS_ADMIN"]
    wanted = spec(
        "mount --bind /trap /dev && echo up; sleep 100",
        {"capabilities": dict.fromkeys(("bounding", "effective", "permitted"), rights)},
    )
    wanted["root"]["path"] = str(image)
    with live(wanted) as box:
        assert box.line() == "up\n"
        with pytest.raises(ContainerFailure) as caught:
            box.run("ls /proc/self/fd/0")
        assert caught.value.reason == "process"
        reader, writer = os.pipe()
        assert box.run("echo goes on", stdin=reader)[0] == "goes on\n"  # one that is given its streams
        for fd in (reader, writer):
            os.close(fd)


# The runtime's own program: CVE-2019-5736


def test_the_runtimes_program_cannot_be_reached_while_a_process_enters():
    look = "while :; do for p in /proc/[0-9]*; do readlink $p/exe; readlink $p/cwd; ls $p/fd/ $p/map_files; done; done"
    with live(spec(f"{look} 2>/dev/null", {"env": ["PATH=/bin"]})) as box:
        box.line()
        for _ in range(30):
            assert box.run(["call", "39"])[1] == {"code": 0}
        box.container.kill(9)
        seen = set(box.wait()[0].split())
    assert "/bin/sh" in seen or "/bin/readlink" in seen
    ours = str(containers.directory())
    assert not [name for name in seen if "python" in name or "zsys" in name or name.startswith(ours)]


def test_the_first_process_is_the_command_and_no_part_of_the_runtime():
    out, _ = run(spec("readlink /proc/1/exe; echo x > /proc/1/exe; ls /proc/1/root"))
    assert out.startswith("/bin/sh\n") and "cannot create /proc/1/exe: Text file busy" in out and "bin" in out


def test_the_reaper_cannot_be_looked_into():
    out, _ = run(
        spec("readlink /proc/1/exe; cat /proc/1/mem; (echo 0 > /proc/1/fd/4); cat /proc/1/environ", {"init": True})
    )
    assert len(out.splitlines()) == 3 and out.count("Permission denied") == 3  # readlink says nothing
    assert run(spec(call("ptrace", 16, 1, 0, 0), {"init": True}))[0] == f"-1 {EPERM}\n"


# Mount targets an image chooses: CVE-2019-19921, CVE-2021-30465, CVE-2023-27561, CVE-2026-41579


@pytest.mark.parametrize("place", ["proc", "sys", "dev"])
@pytest.mark.parametrize("target", ["/etc", "../../../../etc", "proc", "/nowhere", "etc", None])
def test_what_an_image_has_for_a_system_directory_does_not_choose_where_it_lies(place, target, image):
    shutil.rmtree(image / place, ignore_errors=True)
    if target is None:
        (image / place).write_text("a file\n")
    else:
        (image / place).symlink_to(target)
    wanted = spec("echo started")
    wanted["root"]["path"] = str(image)
    failure = refused(wanted)
    assert (failure.reason, failure.sentence) == (
        "mount",
        f"/{place} of the image: expected a directory, got something else",
    )
    assert (image / "etc" / "passwd").read_text().startswith("root:")


@pytest.mark.parametrize("name", ["dev/pts", "dev/shm", "dev/null", "dev/console", "dev/fd"])
def test_what_an_image_has_in_dev_is_never_looked_at(name, image):
    shutil.rmtree(image / "dev", ignore_errors=True)  # a container that ran before may have made some of it
    (image / "dev").mkdir()
    (image / "victim").mkdir()
    (image / name).symlink_to("/victim")
    wanted = spec("cat /proc/keys; ls /victim; stat -c %F /dev/null /dev/pts", {"tty": name == "dev/console"})
    wanted["root"]["path"] = str(image)
    out, end = run(wanted)
    assert out.replace("\r", "").splitlines() == ["character special file", "directory"] and end["code"] == 0


@pytest.mark.parametrize("target", ["/outside", "../../../../../../outside", "/proc/1/root/outside"])
def test_a_mount_through_a_symlink_stays_in_the_root(target, image, tmp_path):
    (tmp_path / "outside").mkdir()
    (image / "link").symlink_to(target)
    bind = {"destination": "/link/deep", "type": "tmpfs", "source": "tmpfs"}
    wanted = spec("mount", mounts=[bind])
    wanted["root"]["path"] = str(image)
    if target.startswith("/proc"):
        assert refused(wanted).reason in ("files", "mount")
    else:
        with pytest.raises(ContainerFailure, match="making /link in the image: File exists"), live(wanted):
            pass
        (image / "outside").mkdir()
        assert "tmpfs on /outside/deep type tmpfs" in run(wanted)[0]
    assert not list((tmp_path / "outside").iterdir())


def test_a_looping_symlink_as_target_is_refused(image):
    (image / "loop").symlink_to("loop")
    wanted = spec("true", mounts=[{"destination": "/loop/x", "type": "tmpfs", "source": "tmpfs"}])
    wanted["root"]["path"] = str(image)
    assert refused(wanted).reason == "files"


def test_masked_paths_are_masked_by_the_real_null_device(image):
    (image / "dev").mkdir(exist_ok=True)
    (image / "dev" / "null").write_text("not the device\n")
    wanted = spec("cat /proc/keys; stat -c %t:%T /proc/keys")
    wanted["root"]["path"] = str(image)
    assert run(wanted)[0] == "1:3\n"


def test_masks_and_read_only_paths_cannot_be_taken_off():
    for path in ("/proc/keys", "/proc/sys", "/sys", "/"):
        assert run(spec(call("umount2", f"@{path}", 2)))[0] == f"-1 {EPERM}\n"
    assert run(spec(call("mount", "@none", "@/proc/sys", 0, 32 | 4096, 0)))[0] == f"-1 {EPERM}\n"


@pytest.mark.parametrize("path", ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/irq/0/smp_affinity"])
def test_the_zones_kernel_cannot_be_set(path):
    out, _ = run(spec(f"echo x > {path}", {"capabilities": EVERYTHING if has_all() else None}))
    assert "Read-only file system" in out or "nonexistent" in out or "No such file" in out


def has_all():
    return Path("/proc/self/status").read_text().split("CapPrm:\t")[1].startswith("000001ffffffffff")


# Cgroups


def test_a_container_cannot_change_its_cgroup():
    for file in ("cgroup.procs", "cgroup.freeze", "cgroup.kill"):
        assert "Read-only file system" in run(spec(f"echo 1 > /sys/fs/cgroup/{file}"))[0]
    assert "Read-only" in run(spec("stat /sys/fs/cgroup >/dev/null && echo 0 > /sys/fs/cgroup/cgroup.max.depth"))[0]
    assert run(spec(call("mount", "@cgroup2", "@/tmp", "@cgroup2", 0, 0)))[0] == f"-1 {EPERM}\n"
    assert "release_agent" not in run(spec("ls /sys/fs/cgroup"))[0]


# Devices, the hypervisor and the consoles


@pytest.mark.parametrize("place", ["/", "/tmp", "/dev", "/dev/shm"])
@pytest.mark.parametrize(("kind", "major", "minor"), [("c", 1, 1), ("c", 229, 1), ("c", 10, 62), ("b", 254, 0)])
def test_a_device_made_inside_does_not_work(place, kind, major, minor, image):
    wanted = spec(f"mknod {place}/made {kind} {major} {minor} && cat {place}/made")
    wanted["root"]["path"] = str(image)
    assert run(wanted)[0] == f"cat: {place}/made: Permission denied\n"


def test_the_ways_to_the_hypervisor_are_masked_whatever_the_spec_says():
    plan = steps.plan(spec("true", masked_paths=[], default_mounts=True))
    masked = {step[1] for step in plan["inside"] if step[0] == "mask"}
    assert masked == {"/proc/xen", "/sys/hypervisor", "/sys/bus/xen", "/sys/bus/xen-backend"}
    out, _ = run(spec("ls /dev/xen /dev/hvc0 /dev/hvc1 /proc/xen /sys/hypervisor 2>/dev/null"))
    # On a machine without Xen there is nothing to tell of it.
    assert [line for line in out.splitlines() if not line.endswith(":") and line] in ([], ["type", "uuid"])


def test_the_ways_to_the_hypervisor_are_masked_wherever_they_are_mounted():
    mounts = [{"destination": "/x/p", "type": "proc"}, {"destination": "/s", "type": "sysfs"}]
    plan = steps.plan(spec("true", masked_paths=[], mounts=mounts))
    masked = {step[1] for step in plan["inside"] if step[0] == "mask"}
    assert {"/proc/xen", "/x/p/xen", "/s/hypervisor", "/s/bus/xen", "/s/bus/xen-backend"} <= masked
    assert not {"/s/xen", "/x/p/hypervisor"} & masked


def test_the_ways_to_the_hypervisor_cannot_be_bound():
    for path in (
        "/dev/xen",
        "/dev/xen/xenbus",
        "/dev",
        "/",
        "/proc",
        "/sys/hypervisor/type",
        "/dev/hvc1",
        "/dev/console",
    ):
        assert mountspec.closed(path), path
    for path in ("/dev/shm", "/devices", "/srv", "/dev/xvda", "/proc2"):
        assert not mountspec.closed(path), path
    bind = {"destination": "/x", "type": "bind", "options": ["rbind"]}
    for source in ("/dev", "/", "/proc", "/dev/console"):
        failure = refused(spec("true", mounts=[bind | {"source": source}]))
        assert failure.sentence == f"binding {source}: expected no way to the hypervisor, got one"


def test_a_symlink_does_not_hide_what_is_bound(tmp_path):
    (tmp_path / "way").symlink_to("/dev")
    bind = {"destination": "/x", "type": "bind", "source": str(tmp_path / "way"), "options": ["bind"]}
    assert "no way to the hypervisor" in refused(spec("true", mounts=[bind])).sentence


@pytest.mark.parametrize(
    "device",
    [
        {"path": "/dev/xen/xenbus", "type": "c", "major": 10, "minor": 62},
        {"path": "/dev/other", "type": "c", "major": 229, "minor": 1},
        {"path": "/dev/mem", "type": "c", "major": 1, "minor": 1},
        {"path": "/dev/../etc/x", "type": "c", "major": 1, "minor": 3},
    ],
)
def test_devices_that_lead_out_are_refused(device):
    assert refused(spec("true", devices=[device])).reason == "spec"


def test_a_device_of_the_hypervisor_is_refused_by_its_number(tmp_path, monkeypatch):
    """All but a few of these numbers are the kernel's choice (include/linux/miscdevice.h, MISC_DYNAMIC_MINOR)."""
    monkeypatch.setattr(hypervisor, "DIRECTORY", str(tmp_path))
    os.mknod(tmp_path / "privcmd", 0o20600, os.makedev(10, 121))
    failure = refused(spec("true", devices=[{"path": "/dev/other", "type": "c", "major": 10, "minor": 121}]))
    assert (failure.reason, failure.sentence) == ("device", "/dev/other: expected no way to the hypervisor, got one")
    other = {"path": "/dev/other", "type": "c", "major": 10, "minor": 122}
    assert run(spec("[ -c /dev/other ] && echo there", devices=[other]))[0] == "there\n"


def test_a_bound_directory_gives_no_devices_unless_asked(tmp_path):
    bind = {"destination": "/data", "type": "bind", "source": str(tmp_path), "options": ["rbind"]}
    script = "mknod /data/z c 1 5; dd if=/data/z bs=1 count=1 of=/tmp/one"
    assert "Permission denied" in run(spec(script, mounts=[bind]))[0]
    os.unlink(tmp_path / "z")
    assert "1+0 records out" in run(spec(script, mounts=[bind | {"options": ["rbind", "dev"]}]))[0]


# Other processes, keys, namespaces


def test_processes_outside_cannot_be_signalled_or_traced():
    outside = os.getpid()
    assert run(spec(call("kill", outside, 9)))[0] == f"-1 {ESRCH}\n"
    assert run(spec(call("ptrace", 16, outside, 0, 0)))[0] == f"-1 {ESRCH}\n"
    assert run(spec(call("ptrace", 16, 1, 0, 0)))[0] == f"-1 {EPERM}\n"  # itself


def test_the_zones_keys_are_out_of_reach():
    keyctl = syscalls.NUMBERS["keyctl"]
    ours = containers.zsys().syscall(keyctl, 0, -3, 1)  # KEYCTL_GET_KEYRING_ID of the session keyring
    theirs = int(run(spec(["call", str(keyctl), "0", "-3", "1"]))[0].split()[0])
    assert theirs > 0 and theirs != ours
    assert run(spec(["call", str(keyctl), "0", "-3", "1"], {"seccomp": default_filter()}))[0] == f"-1 {EPERM}\n"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("unshare", 0x10000000), EPERM),
        (("clone", 0x10000000 | 17, 0, 0, 0, 0), EPERM),
        (("clone3", 0, 0), ENOSYS),
        (("keyctl", 0, -3, 1), EPERM),
        (("add_key", "@user", "@x", "@y", 1, -3), EPERM),
        (("mount", "@none", "@/tmp", "@tmpfs", 0, 0), EPERM),
        (("bpf", 0, 0, 0), EPERM),
        (("userfaultfd", 0), EPERM),
        (("io_uring_setup", 1, 0), EPERM),
        (("socket", 40, 1, 0), EPERM),
        (("socket", 38, 5, 0), EPERM),
        (("open_by_handle_at", 0, 0, 0), EPERM),
        (("init_module", 0, 0, "@"), EPERM),
        (("kexec_load", 0, 0, 0, 0), EPERM),
        (("personality", 0x40000), EPERM),
        ((2000,), ENOSYS),
    ],
)
def test_the_default_filter_refuses(words, error):
    assert run(spec(call(*words), {"seccomp": default_filter()}))[0] == f"-1 {error}\n"


def test_the_default_filter_lets_a_shell_run():
    out, end = run(spec("id; ls / | cat; (exit 3); echo $?", {"seccomp": default_filter(), "uid": 1000, "init": True}))
    assert out.startswith("uid=1000") and out.endswith("3\n") and end["code"] == 0


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_filter_is_installed_with_and_without_new_privileges(no_new_privileges):
    process = {"seccomp": default_filter(), "no_new_privileges": no_new_privileges, "uid": 1000}
    with live(spec("cat /proc/self/status; echo up; sleep 100", process)) as box:
        first = "".join(iter(box.line, "up\n"))
        for out in (first, box.run("cat /proc/self/status")[0]):
            assert "Seccomp:\t2\n" in out and f"NoNewPrivs:\t{int(no_new_privileges)}" in out


def test_a_filter_may_kill_and_that_is_told():
    rules = [{"names": ["getppid"], "action": "SCMP_ACT_KILL_PROCESS"}]
    program = filters.compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}).hex()
    assert run(spec(call("getppid"), {"seccomp": program}))[1] == {"signal": 31, "oom": False}


def test_a_filter_the_kernel_refuses_fails_the_start():
    failure = refused(spec("true", {"seccomp": "0500000000000010"}))  # a jump beyond the end
    assert failure.reason == "seccomp" and failure.sentence == "installing the seccomp filter: Invalid argument"


def test_a_filter_without_execve_is_no_started_command():
    rules = [{"names": ["execve"], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}]
    program = filters.compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}).hex()
    assert refused(spec(["call", "39"], {"seccomp": program})).reason == "command-126"


def test_set_user_id_programs_give_nothing(image):
    (image / "bin" / "id").chmod(0o4755)
    wanted = spec("id", {"uid": 1000})
    wanted["root"]["path"] = str(image)
    assert run(wanted)[0].startswith("uid=1000 gid=0(root) groups=0(root)")


@pytest.mark.parametrize("user", ["joe", "1234:55"])
def test_what_is_closed_to_its_group_stays_closed_to_a_program_of_another_group(user, image):
    """CVE-2023-25173: who becomes another group is still in the first one, if that is a supplementary one, too."""
    (image / "secret").write_text("of all but the staff\n")
    os.chown(image / "secret", 0, 55)
    (image / "secret").chmod(0o604)
    shutil.copy(image / "bin" / "cat", image / "bin" / "reader")
    os.chown(image / "bin" / "reader", 0, 99)
    (image / "bin" / "reader").chmod(0o2755)
    wanted = spec(["reader", "/secret", "/proc/self/status"], {"user": user, "no_new_privileges": False})
    wanted["root"]["path"] = str(image)
    out, _ = run(wanted)
    assert "Gid:\t55\t99\t99\t99\n" in out and "/secret: Permission denied" in out


# What belongs to the container is read with care


@pytest.mark.parametrize("kind", ["fifo", "device", "symlink", "huge", "directory"])
def test_an_awkward_passwd_neither_blocks_nor_leads_out(kind, image):
    passwd = image / "etc" / "passwd"
    passwd.unlink()
    if kind == "fifo":
        os.mkfifo(passwd)
    elif kind == "device":
        os.mknod(passwd, 0o20666, os.makedev(1, 5))
    elif kind == "symlink":
        passwd.symlink_to("../../../../../../etc/passwd")
    elif kind == "huge":
        passwd.write_bytes(b"x" * (2 << 20))
    else:
        passwd.mkdir()
    wanted = spec("id", {"user": "nobody"})  # this machine has one, the image none
    wanted["root"]["path"] = str(image)
    assert refused(wanted).reason == "user"


def test_a_replaced_ptmx_gives_no_terminal(image):
    with live(spec("echo up; sleep 100", mounts=[{"destination": "/dev/pts", "type": "tmpfs", "source": "t"}])) as box:
        box.line()
        box.run("echo fake > /dev/pts/ptmx")
        with pytest.raises(ContainerFailure, match="expected that of devpts, got another file"):
            box.container.enter({"argv": ["id"], "tty": True})


def test_what_is_written_to_proc_goes_to_procfs_only(tmp_path):
    from runtime.init.container import procfs

    (tmp_path / "oom_score_adj").write_text("")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="expected a file of procfs"):
            procfs.write(fd, "oom_score_adj", b"1")
    finally:
        os.close(fd)
    assert not (tmp_path / "oom_score_adj").read_text()
