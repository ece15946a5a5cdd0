"""The real initrd under the real zone kernel, emulated and without Xen: init starts and says what it misses."""

import subprocess

import pytest
from support import guestzone, zoneparts
from support.tools import require

from pipeline import newc
from pipeline.bundle.model import Launch, Process
from pipeline.fetch.model import FetchResult
from pipeline.initrd import InitrdParams
from pipeline.initrd import run as make_initrd
from pipeline.jsonmodel import to_json
from pipeline.layers import Spools
from pipeline.oci import canonical_json
from pipeline.unpack import UnpackParams, open_rootfs
from pipeline.unpack import run as unpack

pytestmark = [pytest.mark.slow, pytest.mark.network]

MAX_INITRD_BYTES = 7_000_000


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """(kernel image, initrd without launch data, its modules) as files and models."""
    require("qemu-system-x86_64")
    env, image = zoneparts.env(), zoneparts.zone_kernel().image
    fetched = FetchResult("recipe:debian-cloud", image.manifest, image.config, image.layers, image.diff_ids)
    unpacked = unpack(UnpackParams(fetched), env)
    made = make_initrd(InitrdParams(unpacked, zoneparts.zone_init()), env)
    directory = tmp_path_factory.mktemp("qemu")
    with Spools(env.store) as spools:
        (directory / "kernel").write_bytes(open_rootfs(env.store, unpacked, spools).read("kernel/image"))
    segments = [env.store.read(part.digest) for part in (made.base, made.modules_segment)]
    return directory, b"".join(segments), made.modules


def console(parts, launch: bytes | None, *options: str) -> str:
    directory, initrd, _ = parts
    if launch is not None:
        initrd += newc.archive([newc.file("zone/launch.json", launch, mode=0o600)])
    (directory / "initrd").write_bytes(initrd)
    words = ["-kernel", directory / "kernel", "-initrd", directory / "initrd", "-append", guestzone.CMDLINE, *options]
    argv = ["qemu-system-x86_64", *guestzone.MACHINE, "-serial", "stdio", *words]
    return said_by(argv)


def said_by(argv) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    return done.stdout.decode(errors="replace").replace("\r", "")


def test_init_loads_its_modules_and_names_the_missing_root(parts):
    launch = Launch("box", "ab" * 32, parts[2], Process(("true",), ()), extra={"device_timeout_s": 1})
    said = console(parts, canonical_json(to_json(launch)))
    phases = [line.split()[2] for line in said.splitlines() if line.startswith("zone: phase")]
    assert phases == ["init", "modules", "exited"], said
    assert "zone: failed (root): root device xvda did not appear within 1 s\n" in said
    assert "Kernel panic" not in said and "reboot: Power down" in said


def test_case_93_a_booting_kernel_reads_what_follows_awkward_entries(parts):
    """A file called like the end of an archive, hard links, every alignment: what comes after them is still found."""
    links = [newc.Entry(name, 0o100644, b"D" * 1001, hardlink="one") for name in ("x/a", "x/b", "x/c")]
    odd = [newc.file("x/" + "n" * length, b"y" * length) for length in range(1, 9)]
    awkward = newc.archive([newc.directory("x"), newc.file("TRAILER!!!", b"not the end"), *links, *odd])
    launch = Launch("box", "ab" * 32, parts[2], Process(("true",), ()), extra={"device_timeout_s": 1})
    said = console((parts[0], parts[1] + awkward, parts[2]), canonical_json(to_json(launch)))
    assert "root device xvda did not appear" in said, said
    assert "unpacking failed" not in said and "Kernel panic" not in said


def test_without_launch_data_init_says_so_and_powers_off(parts):
    said = console(parts, None)
    assert "failed (launch): reading the launch data /zone/launch.json: No such file or directory" in said
    assert "reboot: Power down" in said


def test_a_mount_of_inits_own_that_fails_is_named(parts):
    blocked = newc.archive([newc.file("sys", b"no directory")])
    launch = Launch("box", "ab" * 32, parts[2], Process(("true",), ()))
    said = console((parts[0], parts[1] + blocked, parts[2]), canonical_json(to_json(launch)))
    assert "zone: failed (mount): mounting sysfs on /sys: Not a directory\n" in said, said
    assert "reboot: Power down" in said


def test_the_raw_initrd_stays_small(parts):
    assert len(parts[1]) <= MAX_INITRD_BYTES


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A zone whose root is a virtio disk."""
    directory = tmp_path_factory.mktemp("disk")
    root = zoneparts.small_root(directory / "root", ("sh", "cat", "id", "ls", "mount"))
    return guestzone.build(directory, root)


def workload_console(disk, script: str, container: dict | None = None, **process) -> str:
    extra = {"container": {"process": {"init": True}} | (container or {})}
    launch = Launch(
        "box", "ab" * 32, disk.modules, Process(("sh", "-c", script), (), **process), root="vda", extra=extra
    )
    return said_by(disk.argv(launch))


def test_a_workload_runs_as_its_user_and_can_open_its_standard_output(disk):
    said = workload_console(disk, "id; echo again > /dev/stdout; cat /proc/self/mounts; exit 3", uid=101, gid=102)
    assert "uid=101 gid=102" in said and "\nagain\n" in said, said
    assert "rootfs" not in said.partition("uid=101")[2] and "overlay / overlay rw,nodev" in said
    assert "zone: the workload exited with code 3\n" in said and "reboot: Power down" in said
    phases = [line.split()[2] for line in said.splitlines() if line.startswith("zone: phase")]
    assert phases == ["init", "modules", "root", "network", "workload", "exited"]


def test_a_long_output_is_whole_before_the_zone_is_off(disk):
    said = workload_console(disk, "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; kill -9 $$")
    lines = [line for line in said.splitlines() if line.startswith("line ")]
    assert lines == [f"line {number}" for number in range(3000)]
    assert "zone: the workload was killed by signal 9\n" in said


def test_memory_limits_hold_and_end_the_workload(disk):
    grow = "x=xxxxxxxx; while :; do x=$x$x; done"
    said = workload_console(disk, grow, {"limits": {"memory_max": 32 << 20, "memory_swap_max": 0}})
    assert "zone: the workload was killed by signal 9\n" in said and "Kernel panic" not in said, said
