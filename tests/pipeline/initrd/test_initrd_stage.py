"""The initrd stage on a made-up kernel image: what is in the segments, which modules, when addons are kept."""

import gzip
import io
import lzma
import subprocess
import tarfile

import pytest
from support.modules import module_of
from support.tools import needs
from test_initrd_kernel import KERNEL

from pipeline import newc
from pipeline.addons import BadAddons
from pipeline.build.model import InitResult
from pipeline.env import Env
from pipeline.fetch.model import FetchResult
from pipeline.initrd import InitrdParams, modules, run
from pipeline.initrd.errors import BadKernel
from pipeline.kmodule import BadModule, load_order
from pipeline.oci import CONFIG, LAYER_GZIP, MANIFEST, Digest
from pipeline.rootfs import NoSuchFile
from pipeline.store import Store
from pipeline.unpack import UnpackParams
from pipeline.unpack import run as unpack

pytestmark = needs("mksquashfs")


def module(depends: str = "", name: str = "m") -> bytes:
    return module_of("license=GPL", f"depends={depends}", f"name={name}")


NET, BLK = module("", "xen_netfront"), module("helper", "xen_blkfront")
TREE = {
    "modules/kernel/drivers/xen-netfront.ko": NET,
    "modules/kernel/drivers/xen-blkfront.ko.xz": lzma.compress(BLK, check=lzma.CHECK_CRC32),
    "modules/kernel/lib/helper.ko.gz": gzip.compress(module("", "helper"), mtime=0),
    "modules/modules.dep": b"",
}


@pytest.fixture
def env(tmp_path):
    return Env(Store(tmp_path / "store"))


def addons(tmp_path, tree: dict[str, bytes]) -> bytes:
    for path, data in tree.items():
        (tmp_path / "addons" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "addons" / path).write_bytes(data)
    subprocess.run(
        ["mksquashfs", tmp_path / "addons", tmp_path / "a.sqfs", "-quiet", "-all-root"], check=True, capture_output=True
    )
    return (tmp_path / "a.sqfs").read_bytes()


def made(env, files: dict[str, bytes]):
    """Run the stage on an image of these files."""
    layers, diff_ids = [], []
    for path, data in files.items():
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        layers.append(env.store.put(gzip.compress(out.getvalue(), mtime=0), LAYER_GZIP))
        diff_ids.append(Digest.of(out.getvalue()))
    fetched = FetchResult(
        "k", env.store.put(b"m", MANIFEST), env.store.put(b"c", CONFIG), tuple(layers), tuple(diff_ids)
    )
    elf = env.store.put(b"\x7fELF init")
    return run(InitrdParams(unpack(UnpackParams(fetched), env), InitResult(elf, elf)), env, subject="k")


def metadata(**keys: str) -> bytes:
    return "".join(f"{key}={value}\n" for key, value in keys.items()).encode()


def test_the_base_segment_has_init_under_three_names_and_the_first_nodes(env):
    result = made(env, {"kernel/image": KERNEL})
    entries = {entry.path: entry for entry in newc.read(env.store.read(result.base.digest))}
    assert entries["init"].data == b"\x7fELF init" and entries["init"].mode == 0o100755
    assert [entries[f"bin/{name}"].data for name in ("zone", "styrolite")] == [b"/init", b"/init"]
    assert {path: entry.rdev for path, entry in entries.items() if entry.rdev != (0, 0)} == {
        "dev/console": (5, 1),
        "dev/kmsg": (1, 11),
        "dev/null": (1, 3),
        "dev/urandom": (1, 9),
    }
    assert {"proc", "sys", "dev", "zone", "modules"} <= set(entries)


def test_a_kernel_with_everything_built_in_needs_no_modules(env):
    result = made(env, {"kernel/image": KERNEL})
    assert (result.modules, result.addons, result.release) == ((), None, "")
    assert env.store.read(result.kernel_elf.digest) == KERNEL


def test_file_systems_that_are_built_in_are_known_where_the_image_has_its_configuration(env):
    config = gzip.compress(b"CONFIG_EXT4_FS=y\nCONFIG_SQUASHFS=m\n")
    assert made(env, {"kernel/image": KERNEL, "kernel/config.gz": config}).filesystems == ("ext4",)
    assert made(env, {"kernel/image": KERNEL}).filesystems == ()


def test_the_images_own_order_is_followed(env, tmp_path):
    facts = metadata(KERNEL_UNAME_R="6.1.0", KERNEL_BOOT_MODULES='"helper xen-netfront xen-blkfront"')
    result = made(
        env, {"kernel/image": KERNEL, "kernel/metadata": facts, "kernel/addons.squashfs": addons(tmp_path, TREE)}
    )
    assert [item.path for item in result.modules] == [
        "/modules/helper.ko",
        "/modules/xen_netfront.ko",
        "/modules/xen_blkfront.ko",
    ]
    entries = {entry.path: entry.data for entry in newc.read(env.store.read(result.modules_segment.digest))}
    assert entries["modules/xen_blkfront.ko"] == BLK and entries["modules/xen_netfront.ko"] == NET
    assert (result.release, result.addons) == ("6.1.0", None)


def test_without_an_order_boot_drivers_come_after_what_they_depend_on(env, tmp_path):
    result = made(env, {"kernel/image": KERNEL, "kernel/addons.squashfs": addons(tmp_path, TREE)})
    names = [item.path for item in result.modules]
    assert names == ["/modules/helper.ko", "/modules/xen_blkfront.ko", "/modules/xen_netfront.ko"]


def test_addons_are_kept_when_they_hold_more(env, tmp_path):
    more = TREE | {"firmware/card.bin": b"firmware"}
    data = addons(tmp_path, more)
    result = made(env, {"kernel/image": KERNEL, "kernel/addons.squashfs": data})
    assert result.addons is not None and env.store.read(result.addons.digest) == data


def test_a_named_module_that_is_missing_is_an_error(env, tmp_path):
    facts = metadata(KERNEL_BOOT_MODULES="nosuch")
    with pytest.raises(BadAddons, match=r"module nosuch: expected it in addons\.squashfs"):
        made(env, {"kernel/image": KERNEL, "kernel/metadata": facts, "kernel/addons.squashfs": addons(tmp_path, TREE)})


def test_an_image_without_a_kernel_says_so(env):
    with pytest.raises(NoSuchFile, match="expected a file kernel/image"):
        made(env, {"etc/passwd": b""})


def test_a_kernel_without_notes_leaves_no_result(env):
    with pytest.raises(BadKernel):
        made(env, {"kernel/image": KERNEL.replace(b"Xen\0", b"Zen\0")})
    assert not any(b"kernel_elf" in path.read_bytes() for path in env.store.results.iterdir())


@pytest.mark.parametrize("data", [b"", b"hsqs", b"hsqs" + bytes(200), b"\xff" * 5000])
def test_a_damaged_squashfs_is_refused(env, data):
    with pytest.raises(BadAddons):
        made(env, {"kernel/image": KERNEL, "kernel/addons.squashfs": data})


def test_addons_over_the_limit_are_refused_unread(env, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.initrd.stage.ADDONS_MAX_BYTES", 1 << 10)
    with pytest.raises(BadAddons, match=r"kernel/addons\.squashfs: expected at most"):
        made(env, {"kernel/image": KERNEL, "kernel/addons.squashfs": addons(tmp_path, TREE)})


def test_the_kernels_vermagic_is_that_of_any_of_its_modules(env, tmp_path):
    tree = {"modules/k/other.ko": module_of("license=GPL", "depends=", "vermagic=6.1.0 SMP mod_unload ")}
    result = made(env, {"kernel/image": KERNEL, "kernel/addons.squashfs": addons(tmp_path, tree)})
    assert (result.vermagic, result.modules) == ("6.1.0 SMP mod_unload", ())


def test_segments_are_the_same_bytes_in_another_store(tmp_path):
    results = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files = {
            "kernel/image": KERNEL,
            "kernel/addons.squashfs": addons(tmp_path / name, {"modules/k/squashfs.ko": NET}),
        }
        result = made(Env(Store(tmp_path / name / "store")), files)
        results.append((result.base, result.modules_segment, result.kernel_elf))
    assert results[0] == results[1]


def test_a_circle_of_dependencies_is_refused():
    with pytest.raises(BadModule, match="a > b > a"):
        load_order(["a"], lambda name, _: {"a": ["b"], "b": ["a"]}[name])


def test_metadata_values_may_be_quoted():
    text = "# comment\nA=1\nB=\"x y\"\nC='z'\nnonsense\nD=a=b\n"
    assert modules.parse_metadata(text) == {"A": "1", "B": "x y", "C": "z", "D": "a=b"}
