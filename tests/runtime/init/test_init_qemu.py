"""The real initrd under the real zone kernel, emulated and without Xen: init starts and says what it misses."""

import subprocess

import pytest
from support import zoneparts

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

CMDLINE = "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests random.trust_cpu=on"
MAX_INITRD_BYTES = 7_000_000


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """(kernel image, initrd without launch data, its modules) as files and models."""
    zoneparts.require("qemu-system-x86_64")
    env, image = zoneparts.env(), zoneparts.zone_kernel().image
    fetched = FetchResult("recipe:debian-cloud", image.manifest, image.config, image.layers, image.diff_ids)
    unpacked = unpack(UnpackParams(fetched), env)
    made = make_initrd(InitrdParams(unpacked, zoneparts.zone_init()), env)
    directory = tmp_path_factory.mktemp("qemu")
    with Spools(env.store) as spools:
        (directory / "kernel").write_bytes(open_rootfs(env.store, unpacked, spools).read("kernel/image"))
    segments = [env.store.read(part.digest) for part in (made.base, made.modules_segment)]
    return directory, b"".join(segments), made.modules


def console(parts, launch: bytes | None) -> str:
    directory, initrd, _ = parts
    if launch is not None:
        initrd += newc.archive([newc.file("zone/launch.json", launch, mode=0o600)])
    (directory / "initrd").write_bytes(initrd)
    argv = ["qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-nodefaults", "-display", "none", "-serial", "stdio"]
    argv += ["-no-reboot", "-kernel", directory / "kernel", "-initrd", directory / "initrd", "-append", CMDLINE]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    return done.stdout.decode(errors="replace").replace("\r", "")


def test_init_loads_its_modules_and_names_the_missing_root(parts):
    launch = Launch("box", "ab" * 32, parts[2], Process(("true",), ()), extra={"device_timeout_s": 1})
    said = console(parts, canonical_json(to_json(launch)))
    phases = [line.split()[2] for line in said.splitlines() if line.startswith("zone: phase")]
    assert phases == ["init", "modules", "exited"], said
    assert "zone: failed (root): root device xvda did not appear within 1 s\n" in said
    assert "Kernel panic" not in said and "reboot: Power down" in said


def test_without_launch_data_init_says_so_and_powers_off(parts):
    said = console(parts, None)
    assert "failed (launch): reading the launch data /zone/launch.json: No such file or directory" in said
    assert "reboot: Power down" in said


def test_the_raw_initrd_stays_small(parts):
    assert len(parts[1]) <= MAX_INITRD_BYTES
