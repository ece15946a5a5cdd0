"""What a container has mounted: devices, file systems, masks, its root from a disk."""

import os
import shutil
import subprocess

import pytest
from support import containers, zoneparts
from support.containers import live, refused, run, spec

from runtime.init.failure import lacking

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("zsys")]


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


def test_a_fifo_among_the_devices_carries_bytes_and_has_its_mode_and_owner():
    fifo = {"path": "/dev/pipes/one", "type": "p", "mode": 0o640, "uid": 1234, "gid": 55}
    script = "stat -c '%n %F %a %U %G' /dev/pipes/one; echo through > /dev/pipes/one & cat /dev/pipes/one"
    out, end = run(spec(script, devices=[fifo]))
    assert out.splitlines() == ["/dev/pipes/one fifo 640 joe staff", "through"] and end["code"] == 0


@pytest.mark.usefixtures("user_namespaces")
def test_a_device_belongs_to_an_id_of_the_user_namespace():
    maps = {"uid_maps": [[0, 100000, 65536]], "gid_maps": [[0, 100000, 65536]]}
    fifo = {"path": "/dev/one", "type": "p", "uid": 1234, "gid": 55}
    assert run(spec(["stat", "-c", "%U %G", "/dev/one"], devices=[fifo], namespaces={"user": maps}))[0] == "joe staff\n"


@pytest.mark.usefixtures("user_namespaces")
def test_a_mount_in_another_one_needs_no_place_for_it_in_the_image_of_a_user_namespace(tmp_path):
    maps = {"uid_maps": [[0, 100000, 65536]], "gid_maps": [[0, 100000, 65536]]}
    image, outer = tmp_path / "image", tmp_path / "outer"
    shutil.copytree(containers.root(), image, symlinks=True)
    (image / "srv").mkdir()
    (image / "srv" / "data").write_text("a file, below which nothing can be made\n")
    (outer / "data" / "inner").mkdir(parents=True)
    wanted = spec("echo x > /srv/data/inner/x && ls /srv/data/inner", namespaces={"user": maps})
    wanted["root"]["path"] = str(image)
    wanted["mounts"] = [
        {"destination": "/srv", "type": "bind", "source": str(outer)},
        {"destination": "/srv/data/inner", "type": "tmpfs", "source": "tmpfs"},
    ]
    assert run(wanted) == ("x\n", {"code": 0, "oom": False})
    assert not list((outer / "data" / "inner").iterdir())


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


def info_of(out, place):
    """(flags, propagation) of a mount, from /proc/self/mountinfo."""
    (line,) = [line.split() for line in out.splitlines() if line.split()[4] == place]
    return set(line[5].split(",")), line[6 : line.index("-")]


def test_a_bind_mount_has_its_flags_and_those_below_have_the_recursive_ones(tmp_path):
    (tmp_path / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "below", tmp_path / "below"], check=True)
    bind = {"destination": "/data", "source": str(tmp_path), "type": "bind"}
    try:
        for options, top, below in (
            (["rbind", "ro", "nosuid", "nodev", "noexec"], {"ro", "nosuid", "nodev", "noexec"}, {"rw", "nodev"}),
            (["rbind", "rro", "rnosuid", "rnoexec"], {"ro", "nosuid", "noexec"}, {"ro", "nosuid", "noexec"}),
            (["rbind", "noatime"], {"noatime"}, {"relatime"}),
            (["rbind", "rnoatime"], {"noatime"}, {"noatime"}),
            (["rbind", "rnoatime", "rrelatime", "ro", "rrw"], {"rw", "relatime"}, {"rw", "relatime"}),
        ):
            out, _ = run(spec(["cat", "/proc/self/mountinfo"], mounts=[bind | {"options": options}]))
            assert top <= info_of(out, "/data")[0] and below <= info_of(out, "/data/below")[0], (options, out)
            assert "noexec" not in info_of(out, "/data/below")[0] or "rnoexec" in options
    finally:
        subprocess.run(["umount", tmp_path / "below"], check=True)


@pytest.mark.parametrize(
    ("option", "top", "below"),
    [
        ("private", [], []),
        ("rprivate", [], []),
        ("shared", ["shared:"], []),
        ("rshared", ["shared:"], ["shared:"]),
        ("unbindable", ["unbindable"], []),
        ("runbindable", ["unbindable"], ["unbindable"]),
        ("slave", [], []),
        ("rslave", [], []),
    ],
)
def test_each_propagation_is_what_it_says(tmp_path, option, top, below):
    (tmp_path / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "below", tmp_path / "below"], check=True)
    bind = {"destination": "/data", "source": str(tmp_path), "type": "bind", "options": ["rbind", option]}
    try:
        out, _ = run(spec(["cat", "/proc/self/mountinfo"], mounts=[bind]))
    finally:
        subprocess.run(["umount", tmp_path / "below"], check=True)
    for place, expected in (("/data", top), ("/data/below", below)):
        assert [word.rstrip("0123456789") for word in info_of(out, place)[1]] == expected, out


@pytest.mark.parametrize(("propagation", "seen"), [("slave", "later\n"), ("private", "")])
def test_what_the_zone_mounts_later_comes_into_a_slave_and_nothing_goes_out(tmp_path, propagation, seen):
    image, inner = tmp_path / "image", tmp_path / "image" / "root"
    image.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "image", image], check=True)
    try:
        subprocess.run(["mount", "--make-shared", image], check=True)
        shutil.copytree(containers.root(), inner, symlinks=True)
        (inner / "late").mkdir()
        may_mount = {key: ["CAP_SYS_ADMIN"] for key in ("bounding", "permitted", "effective")}
        wanted = spec("mount -t tmpfs own /tmp; echo up; exec sleep 1000", {"capabilities": may_mount})
        wanted |= {"root": {"path": str(inner)}, "propagation": propagation}
        with live(wanted) as box:
            assert box.line() == "up\n"
            subprocess.run(["mount", "-t", "tmpfs", "late", inner / "late"], check=True)
            (inner / "late" / "file").write_text("later\n")
            assert box.run("cat /late/file 2>/dev/null")[0] == seen
            assert box.run("mount")[0].count(" on /tmp type tmpfs ") == 1 and not os.path.ismount(inner / "tmp")
    finally:
        subprocess.run(["umount", "--recursive", image], check=True)


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


def test_a_file_system_the_kernel_does_not_have_is_refused_with_its_option():
    failure = refused(spec("true", mounts=[{"destination": "/x", "type": "nonefs", "source": "/dev/null"}]))
    assert (failure.reason, failure.sentence) == (
        "mount",
        "mounting nonefs for /x: No such device (the kernel has no nonefs, which is CONFIG_NONEFS_FS: as a module, "
        "it is loaded by kernel_options.modules)",
    )


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("xfs", "CONFIG_XFS_FS:"),
        ("ext4", "CONFIG_EXT4_FS:"),
        ("btrfs", "CONFIG_BTRFS_FS:"),
        ("squashfs", "CONFIG_SQUASHFS:"),
        ("tmpfs", "CONFIG_TMPFS:"),
        ("sysfs", "CONFIG_SYSFS:"),
        ("devpts", "CONFIG_UNIX98_PTYS:"),
        ("devtmpfs", "CONFIG_DEVTMPFS:"),
        ("9p", "CONFIG_9P_FS and CONFIG_NET_9P_XEN:"),
    ],
)
def test_the_option_of_a_file_system_is_that_of_the_kernels_kconfig(kind, option):
    assert option in lacking(kind)


def test_a_read_only_root_can_be_written_nowhere_but_in_its_mounts():
    wanted = spec("echo x > /new; echo x > /tmp/y && cat /tmp/y; echo s > /dev/shm/s && cat /dev/shm/s")
    wanted["root"]["readonly"] = True
    wanted["mounts"] = [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}]
    out, _ = run(wanted)
    assert "Read-only file system" in out and out.endswith("x\ns\n")


def test_what_was_mounted_in_a_read_only_root_is_read_only_too(tmp_path):
    image = tmp_path / "image"
    shutil.copytree(containers.root(), image, symlinks=True)
    for place in (image / "before", image / "before" / "deep"):
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "there", place], check=True)
    try:
        wanted = spec("echo x > /before/x; echo x > /before/deep/x; echo x > /dev/shm/x && cat /dev/shm/x")
        wanted["root"] = {"path": str(image), "readonly": True}
        *refusals, last = run(wanted)[0].splitlines()
    finally:
        subprocess.run(["umount", "--recursive", image / "before"], check=True)
    assert [line.endswith("Read-only file system") for line in refusals] == [True, True] and last == "x"


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
