"""The real program as pid 1 of namespaces: an initrd unpacked on a tmpfs, a squashfs behind a loop device, no Xen."""

import json
import os
import shutil
import subprocess

import pytest
from support import zonebox, zoneparts
from support.tools import require
from support.zonebox import loop_device

from runtime.host import scratchdisk

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts"),
]

NETWORK = {
    "interface": "vif0",
    "mtu": 1400,
    "addresses": ["10.75.1.2/24", "fd5a:6f6e:6577:1::2/64"],
    "gateways": ["10.75.1.1", "fd5a:6f6e:6577:1::1"],
    "nameservers": ["10.75.1.1"],
    "search": [],
}


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    directory = tmp_path_factory.mktemp("image")
    root = zoneparts.small_root(directory / "root", zonebox.PROGRAMS)
    (root / "bin" / "text").write_text("not a program\n")
    (root / "bin" / "text").chmod(0o755)
    (root / "bin" / "orphan").write_text("#!/opt/none/sh\n")
    (root / "bin" / "orphan").chmod(0o755)
    (root / "bin" / "plain").write_text("no x bit\n")
    (root / "victim").write_text("untouched\n")
    # What the image puts where init writes and mounts must not choose where that happens.
    (root / "etc" / "resolv.conf").symlink_to("../victim")
    (root / "proc").symlink_to("/etc")
    (root / "dev").write_text("a file\n")
    return zoneparts.squashfs(root, directory / "root.sqfs")


@pytest.fixture
def box(initrd, image, tmp_path):
    def run(process: dict, *, image=image, meanwhile=lambda zone: None, **keys) -> tuple[str, str]:
        """Runs a zone; returns what it printed and init's last word on how it ended."""
        with loop_device(image) as device:
            launch = {"process": process, "root": device.removeprefix("/dev/"), "overlay_size_mib": 8} | keys
            with zonebox.zone(tmp_path, initrd, **launch) as zone:
                meanwhile(zone)
                return zone.wait()

    return run


def sh(text: str, **keys) -> dict:
    return {"argv": ["sh", "-c", text]} | keys


@pytest.mark.parametrize("code", [0, 3, 127, 255])
def test_exit_codes_arrive_exactly(box, code):
    assert box(sh(f"exit {code}"))[1] == f"zone: the workload exited with code {code}"


@pytest.mark.parametrize("number", [9, 15, 11])
def test_death_by_signal_is_reported_as_such(box, number):
    assert box(sh(f"kill -{number} $$", init=True))[1] == f"zone: the workload was killed by signal {number}"


@pytest.mark.parametrize(
    ("process", "words"),
    [
        (
            {"argv": ["nothere"], "env": ["PATH=/bin:/x"]},
            "failed (command-127): command 'nothere' was not found in PATH /bin:/x",
        ),
        ({"argv": ["/bin/nothere"]}, "failed (command-127): command '/bin/nothere' does not exist"),
        (
            {"argv": ["orphan"]},
            "failed (command-127): command '/bin/orphan' is there, but its interpreter /opt/none/sh is not",
        ),
        (
            {"argv": ["text"]},
            "failed (command-126): command '/bin/text' is neither a program for this machine nor a #! script",
        ),
        ({"argv": ["plain"]}, "failed (command-126): command '/bin/plain' cannot be executed: Permission denied"),
        ({"argv": ["/tmp"]}, "failed (command-126): command '/tmp' is a directory"),
        ({"argv": []}, "failed (command-127): neither the image nor the zone names a command"),
        (sh("true", cwd="/nowhere"), "failed (cwd): working directory '/nowhere': No such file or directory"),
        (sh("true", uid=-5), "failed (user): container spec: key process.uid: expected 0 to 4294967294, got -5"),
        (sh("true", gid=1 << 40), "failed (user): container spec: key process.gid: expected 0 to 4294967294"),
    ],
)
def test_a_workload_that_cannot_start_is_explained(box, process, words):
    assert words in box(process)[1]


@pytest.mark.parametrize("fd", range(3, 12))
def test_no_descriptor_of_init_serves_as_working_directory(box, fd):
    assert "failed (cwd)" in box(sh("true", cwd=f"/proc/self/fd/{fd}"))[1]


def test_the_workload_has_three_descriptors(box):
    out, _ = box(sh("ls /proc/$$/fd; readlink /proc/$$/fd/0"))
    assert out.split() == ["0", "1", "2", "/dev/null"]


def test_user_groups_directory_and_environment(box):
    out, end = box(
        sh(
            "id; pwd; echo $GREETING; echo out > /dev/stdout",
            uid=1234,
            gid=55,
            groups=[7, 8],
            cwd="/tmp",
            env=["GREETING=a=b c"],
        )
    )
    assert out.splitlines() == ["uid=1234 gid=55 groups=55,7,8", "/tmp", "a=b c", "out"]
    assert end.endswith("code 0")


def test_no_new_privileges_are_to_be_had(box):
    assert "NoNewPrivs:\t1" in box({"argv": ["cat", "/proc/self/status"]})[0]


def test_signals_are_neither_blocked_nor_ignored(box):
    out, _ = box({"argv": ["cat", "/proc/self/status"]})
    fields = dict(line.split(":\t") for line in out.splitlines() if ":\t" in line)
    assert {fields[key].strip("0") for key in ("SigBlk", "SigIgn", "SigCgt")} == {""}


def test_files_are_written_beside_the_images_symlinks(box):
    out, _ = box(sh("cat /victim /etc/resolv.conf /etc/hostname /etc/hosts; hostname"), network=NETWORK)
    assert out.startswith("untouched\nnameserver 10.75.1.1\nbox\n127.0.0.1 localhost\n")
    assert "10.75.1.2 box\n" in out and out.endswith("box\n")


ZONES_OWN = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.75.1.2 box\nfd5a:6f6e:6577:1::2 box\n"
READ = "cat /etc/hosts; cat /etc/resolv.conf; stat -c %F /etc/resolv.conf /dev/pts; ls /outside"


def etc_elsewhere(root, target):
    (root / "etc").rename(root / "other")
    (root / "etc").symlink_to(target)


def a_fifo(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda root: shutil.rmtree(root / "etc"), id="no etc"),
        pytest.param(lambda root: etc_elsewhere(root, "/other"), id="etc an absolute symlink"),
        pytest.param(lambda root: etc_elsewhere(root, "../../../other"), id="etc a symlink that goes up"),
        pytest.param(lambda root: (root / "etc/resolv.conf").symlink_to("/outside/x"), id="resolv.conf a symlink"),
        pytest.param(lambda root: (root / "etc/resolv.conf").symlink_to("resolv.conf"), id="resolv.conf a loop"),
        pytest.param(lambda root: a_fifo(root / "etc/resolv.conf"), id="resolv.conf a fifo"),
        pytest.param(lambda root: os.mknod(root / "etc/resolv.conf", 0o20666, 0x103), id="resolv.conf a device"),
        pytest.param(lambda root: (root / "dev").mkdir() or (root / "dev/pts").touch(), id="pts a file"),
        pytest.param(lambda root: (root / "dev").mkdir() or a_fifo(root / "dev/pts"), id="pts a fifo"),
        pytest.param(
            lambda root: (root / "dev").mkdir() or os.mknod(root / "dev/pts", 0o20666, 0x103), id="pts a device"
        ),
        pytest.param(lambda root: (root / "dev").symlink_to("/outside"), id="dev a symlink"),
    ],
)
def test_what_an_image_has_at_the_places_of_the_zone_is_replaced(box, tmp_path, change):
    root = zoneparts.small_root(tmp_path / "root", zonebox.PROGRAMS)
    (root / "outside").mkdir()
    try:
        change(root)
    except PermissionError as error:
        pytest.skip(f"no device node can be made here: {error}")
    image = zoneparts.squashfs(root, tmp_path / "root.sqfs")
    out, end = box(sh(READ), image=image, network=NETWORK)
    assert (out, end) == (
        f"{ZONES_OWN}nameserver 10.75.1.1\nregular file\ndirectory\n",
        "zone: the workload exited with code 0",
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: (root / "etc").rmdir() or (root / "etc").touch(), "opening /etc of the image: Not a directory"),
        (
            lambda root: (root / "etc").rmdir() or (root / "etc").symlink_to("etc"),
            "opening /etc of the image: Too many levels of symbolic links",
        ),
    ],
    ids=["etc a file", "etc a loop"],
)
def test_an_image_that_leaves_no_place_for_the_zones_files_is_named(box, tmp_path, change, words):
    root = zoneparts.small_root(tmp_path / "root", ("sh",))
    change(root)
    _, end = box(sh("true"), image=zoneparts.squashfs(root, tmp_path / "root.sqfs"), network=NETWORK)
    assert end == f"zone: failed (files): {words}"


def test_a_directory_of_the_image_where_a_file_of_the_zones_belongs_is_replaced(box, tmp_path):
    root = zoneparts.small_root(tmp_path / "root", ("sh", "cat"))
    (root / "etc/resolv.conf/below").mkdir(parents=True)
    image = zoneparts.squashfs(root, tmp_path / "root.sqfs")
    out, end = box(sh("cat /etc/resolv.conf"), image=image, network=NETWORK)
    assert (out, end) == ("nameserver 10.75.1.1\n", "zone: the workload exited with code 0")


def test_proc_sys_and_dev_are_mounted_on_real_directories(box):
    out, _ = box(sh("mount; stat -c %F /proc /dev; ls /dev"))
    mounts = {line.split()[2]: line for line in out.splitlines() if " type " in line}
    assert set(mounts) >= {"/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm"}
    assert "(ro," in mounts["/sys"] and "nosuid" in mounts["/proc"]
    nodes = ["fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty"]
    assert out.split("directory\n")[-1].split() == [*nodes, "urandom", "zero"]


def test_writes_go_to_a_bounded_layer(box):
    out, _ = box(sh("echo x > /new && cat /new; dd if=/dev/zero of=/big bs=1M count=20"))
    assert out.startswith("x\n") and "No space left on device" in out


def test_a_read_only_root_is_read_only_and_still_has_its_files(box):
    out, _ = box(sh("cat /etc/hostname; echo s > /dev/shm/s && cat /dev/shm/s; echo x > /new"), readonly_root=True)
    assert out.startswith("box\ns\n") and "Read-only file system" in out


def test_network_of_the_launch_data_is_up(box):
    out, _ = box({"argv": ["ip", "-j", "addr", "show", "vif0"]}, network=NETWORK)
    (vif,) = json.loads(out)
    assert vif["mtu"] == 1400
    assert {item["local"] for item in vif["addr_info"] if item["scope"] == "global"} == {
        "10.75.1.2",
        "fd5a:6f6e:6577:1::2",
    }


def test_a_missing_interface_is_named(box):
    _, end = box(sh("true"), network=NETWORK | {"interface": "eth5"}, extra={"device_timeout_s": 0.2})
    assert end == "zone: failed (network): interface eth5 did not appear within 0 s"


def test_a_missing_root_device_is_named(box):
    _, end = box(sh("true"), root="xvdz", extra={"device_timeout_s": 0.2})
    assert "failed (root): root device xvdz did not appear" in end


def test_a_root_that_is_no_squashfs_is_named(box, tmp_path):
    (tmp_path / "noise").write_bytes(bytes(1 << 20))
    _, end = box(sh("true"), image=tmp_path / "noise")
    assert "failed (root): mounting /dev/loop" in end and "as squashfs" in end


def test_a_module_that_is_not_there_is_named(box):
    _, end = box(sh("true"), modules=[{"path": "/modules/none.ko"}])
    assert end == "zone: failed (modules): loading /modules/none.ko: No such file or directory"


def test_orphans_are_reaped_and_what_remains_is_ended(box):
    text = "i=0; while [ $i -lt 200 ]; do (sleep 0.01 &) ; i=$((i+1)); done; "
    text += "while set -- /proc/[0-9]*; [ $# -ge 19 ]; do sleep 0.1; done; ls /proc; sleep 100 & exit 4"
    out, end = box(sh(text, init=True))
    numbered = [name for name in out.split() if name.isdigit()]
    assert len(numbered) < 20  # init, the shell, ls: no zombie is left
    assert end.endswith("code 4")


def test_modules_of_the_addons_appear_under_the_kernels_release(box, tmp_path):
    (tmp_path / "addons" / "modules" / "kernel").mkdir(parents=True)
    (tmp_path / "addons" / "modules" / "kernel" / "extra.ko").write_text("module\n")
    with loop_device(zoneparts.squashfs(tmp_path / "addons", tmp_path / "addons.sqfs")) as device:
        out, end = box(sh("cat /lib/modules/*/kernel/extra.ko; ls /lib/modules"), addons=device.removeprefix("/dev/"))
    assert out.splitlines() == ["module", os.uname().release] and end.endswith("code 0")


def test_utilities_of_the_addons_lie_over_the_image_and_below_what_the_zone_writes(box, tmp_path):
    tools = tmp_path / "addons" / "overlays" / "workload" / "opt"
    tools.mkdir(parents=True)
    (tools / "tool").write_text("#!/bin/sh\necho a tool\n")
    (tools / "tool").chmod(0o755)
    text = "/opt/tool; echo mine >/opt/tool; cat /opt/tool /run/zone/ext/overlays/workload/opt/tool; ls /; ls /victim"
    with loop_device(zoneparts.squashfs(tmp_path / "addons", tmp_path / "addons.sqfs")) as device:
        out, end = box(sh(text), addons=device.removeprefix("/dev/"))
    lines = out.splitlines()
    assert lines[:4] == ["a tool", "mine", "#!/bin/sh", "echo a tool"] and end.endswith("code 0")
    assert {"bin", "opt", "run"} <= set(lines) and "overlays" not in lines


def test_the_addons_cannot_be_written_and_give_no_privileges(box, tmp_path):
    (tmp_path / "addons" / "overlays").mkdir(parents=True)
    with loop_device(zoneparts.squashfs(tmp_path / "addons", tmp_path / "addons.sqfs")) as device:
        out, _ = box(sh("cat /proc/self/mounts"), addons=device.removeprefix("/dev/"), readonly_root=True)
    (line,) = [line for line in out.splitlines() if " /run/zone/ext " in line]
    assert set(line.split()[3].split(",")) >= {"ro", "nosuid", "nodev"}


def volume(device: str, target: str, kind: str, *options: str) -> dict:
    mount = {"destination": target, "type": kind, "source": device, "options": ["nosuid", "nodev", *options]}
    return {"disks": [device.removeprefix("/dev/")], "extra": {"container": {"mounts": [mount]}}}


def test_a_squashfs_volume_is_read_at_its_target_and_not_written(box, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("of the volume\n")
    text = "cat /made/for/it/file; echo x >/made/for/it/file || echo refused; cat /proc/self/mounts"
    with loop_device(zoneparts.squashfs(tmp_path / "tree", tmp_path / "data.sqfs")) as device:
        out, end = box(sh(text), **volume(device, "/made/for/it", "squashfs", "ro"))
    assert out.splitlines()[0] == "of the volume" and "refused" in out.splitlines() and end.endswith("code 0")
    (line,) = [line for line in out.splitlines() if " /made/for/it " in line]
    assert set(line.split()[3].split(",")) >= {"ro", "nosuid", "nodev"}


def test_what_is_written_to_a_block_device_volume_is_on_it_afterwards(box, tmp_path):
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.truncate(16 << 20)
    require("mkfs.ext4")
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    with loop_device(disk, writable=True) as device:
        _, end = box(sh("echo kept >/data/file"), **volume(device, "/data", "ext4"))
        assert end.endswith("code 0")
        out, end = box(
            sh("cat /data/file; echo x >/data/file || echo refused"), **volume(device, "/data", "ext4", "ro")
        )
    assert out.splitlines()[0] == "kept" and "refused" in out.splitlines()


def test_what_is_written_over_the_image_is_on_the_scratch_device_and_there_again(box, tmp_path):
    disk = tmp_path / "disk"
    require("mke2fs")
    scratchdisk.make(disk, 64, "zone")
    with loop_device(disk, writable=True) as device:
        scratch = {"scratch": [device.removeprefix("/dev/"), scratchdisk.FILESYSTEM], "overlay_size_mib": 0}
        out, end = box(sh("dd if=/dev/zero of=/big bs=1M count=20 && echo kept >/file; cat /etc/hostname"), **scratch)
        assert end.endswith("code 0")
        out, _ = box(sh("cat /file; stat -c %s /big; echo x >/new && echo written"), **scratch)
    assert out == "kept\n20971520\nwritten\n"


def test_a_scratch_device_that_does_not_come_or_does_not_mount_is_named(box, tmp_path):
    _, end = box(sh("true"), scratch=["xvdz", "ext4"], extra={"device_timeout_s": 0.2})
    assert end == "zone: failed (root): scratch device xvdz did not appear within 0 s"
    (tmp_path / "none").write_bytes(bytes(1 << 20))
    with loop_device(tmp_path / "none", writable=True) as device:
        _, end = box(sh("true"), scratch=[device.removeprefix("/dev/"), "nonefs"])
    assert "as nonefs: No such device (the kernel has no nonefs, which is CONFIG_NONEFS_FS: " in end


def test_a_volume_whose_target_is_a_symlink_of_the_image_stays_in_its_root(box, tmp_path):
    """What the links name is there in the zone's own root, too."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("of the volume\n")
    root = zoneparts.small_root(tmp_path / "root", zonebox.PROGRAMS)
    (root / "containers").mkdir()
    (root / "way").symlink_to("../../containers")
    (root / "out").symlink_to("/containers/main/root")
    image = zoneparts.squashfs(root, tmp_path / "root.sqfs")
    with loop_device(zoneparts.squashfs(tmp_path / "tree", tmp_path / "data.sqfs")) as device:
        out, end = box(sh("cat /containers/file"), image=image, **volume(device, "/way", "squashfs", "ro"))
        assert (out, end) == ("of the volume\n", "zone: the workload exited with code 0")
        _, end = box(sh("true"), image=image, **volume(device, "/out", "squashfs", "ro"))
        assert end == "zone: failed (files): making /out in the image: File exists"


def test_a_volume_that_does_not_come_or_does_not_mount_is_named(box, tmp_path):
    _, end = box(sh("true"), disks=["xvdz"], extra={"device_timeout_s": 0.2})
    assert "failed (volume): volume device xvdz did not appear within 0 s" in end
    (tmp_path / "none").write_bytes(bytes(8192))
    with loop_device(tmp_path / "none") as device:
        _, end = box(sh("true"), **volume(device, "/data", "squashfs", "ro"))
        assert end.startswith("zone: failed (mount): mounting squashfs for /data: ")
        _, end = box(sh("true"), **volume(device, "/data", "nonefs"))
    assert end.startswith("zone: failed (mount): mounting nonefs for /data: No such device (the kernel has no nonefs, ")
    assert "CONFIG_NONEFS_FS: as a module, it is loaded by kernel_options.modules" in end


def test_settings_of_the_kernel_are_made_before_the_workload_starts(box):
    values = {"kernel.shmmax": "123456", "net/ipv4/ip_default_ttl": "33"}
    out, _ = box(sh("cat /proc/sys/net/ipv4/ip_default_ttl"), sysctls=values)
    assert out == "33\n"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"vm.nothing": "1"}, "setting vm.nothing to '1': No such file or directory"),
        ({"net.ipv4.ip_default_ttl": "many"}, "setting net.ipv4.ip_default_ttl to 'many': Invalid argument"),
        ({"../../etc/passwd": "x"}, "setting ../../etc/passwd to 'x': No such file or directory"),
    ],
)
def test_a_setting_the_kernel_refuses_ends_the_boot(box, values, words):
    assert box(sh("true"), sysctls=values)[1] == f"zone: failed (sysctl): {words}"


def test_a_late_module_that_is_not_there_is_named(box):
    _, end = box(sh("true"), late_modules=[{"path": "/run/zone/ext/modules/none.ko"}])
    assert end == "zone: failed (modules): loading /run/zone/ext/modules/none.ko: No such file or directory"


def test_addons_that_do_not_come_are_named(box):
    _, end = box(sh("true"), addons="xvdz", extra={"device_timeout_s": 0.2})
    assert "failed (addons): addons device xvdz did not appear" in end


def test_launch_data_that_are_broken_are_named(box):
    assert "failed (launch): launch data: key process.uid" in box({"uid": "root"})[1]
