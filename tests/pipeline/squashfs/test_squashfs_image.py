"""The squashfs image: what is in it, by independent readers, and that its bytes depend on nothing but the content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.tars import Image, Member, image_of, tar_of, write_layout
from support.tools import require
from support.writers import WriterRuns

from pipeline import fetch, squash, tool, unpack
from pipeline.env import Env
from pipeline.errors import PipelineError
from pipeline.layers import Spools
from pipeline.oci import Descriptor, Digest
from pipeline.pack import CannotWrite, pack_image
from pipeline.rootfs import Rootfs
from pipeline.squashfs import (
    BadCompressionName,
    SquashFailed,
    squash_entries,
    squash_rootfs,
    writer_versions,
)
from pipeline.store import Store
from pipeline.tree import Entry, Kind

PROJECT = Path(__file__).resolve().parents[3]
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
XATTRS = {"security.capability": CAPABILITY, "user.e": b""}
DEEP = "/".join(["deep" * 20] * 15)
NAMES = ("usr/bin/tool", "usr/bin/alias", "z", "small", "empty", "zeros", "n" * 255, DEEP)
PRESETS = ("zstd-3", "zstd-9", "small", "gzip", "lz4")


def base_tar() -> bytes:
    noise = hashlib.shake_256(b"noise").digest(500_000)
    return tar_of(
        {
            "./": Member("", kind=b"5", mode=0o755, mtime=1_600_000_000),
            "etc/": None,
            "etc/passwd": b"root:x:0:0::/:/bin/sh\n",
            "bin": "-> usr/bin",
            "usr/bin/tool": Member("", noise, mode=0o4755, mtime=1_600_000_001),
            "usr/bin/alias": "=> usr/bin/tool",
            "small": b"small",
            "empty": b"",
            "zeros": bytes(700_000),
            "gone": b"1",
            "cap": Member(
                "", b"c", pax=[("SCHILY.xattr.security.capability", CAPABILITY), ("SCHILY.xattr.user.e", b"")]
            ),
            "owned": Member("", b"o", uid=3_000_000_000, gid=70_000, mtime=2**33),
            "old": Member("", b"o", mtime=-5),
            "c": Member("", kind=b"3", device=(1, 3), mode=0o666),
            "b": Member("", kind=b"4", device=(8, 1)),
            "large": Member("", kind=b"4", device=(4095, 300)),
            "p": Member("", kind=b"6"),
            "n" * 255: b"long name",
            DEEP: b"deep path",
            b"latin-\xe9": b"1",
            "new\nline": b"1",
            "absolute": "-> /" + "t" * 180,
            "a": None,
        }
    )


UPPER = tar_of({".wh.gone": b"", "usr/bin/other": b"2" * 70_000, "z": "=> usr/bin/tool"})


@pytest.fixture(scope="module")
def image() -> Image:
    return image_of(base_tar(), UPPER)


def prepared(image: Image, tmp_path: Path) -> tuple[unpack.UnpackResult, Env]:
    layout = write_layout(tmp_path / "layout", {"t": image})
    env = Env(Store(tmp_path / "store"))
    fetched = fetch.run(fetch.FetchParams(f"oci:{layout}:t"), env)
    return unpack.run(unpack.UnpackParams(fetched), env), env


def packed(image: Image, tmp_path: Path, compression: str = "zstd-3") -> Path:
    tree, env = prepared(image, tmp_path)
    return env.store.path(squash.run(squash.SquashParams(tree, compression), env).image.digest)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def needs(program: str) -> str:
    require(program)
    return tool.find(program)


def test_unsquashfs_lists_what_was_merged(image: Image, tmp_path: Path) -> None:
    path = packed(image, tmp_path)
    listing = subprocess.run([needs("unsquashfs"), "-lln", path], check=True, capture_output=True).stdout
    text = listing.decode("latin-1")
    for expected in (
        r"drwxr-xr-x 0/0 +\d+ 2020-09-13 12:26 squashfs-root\n",
        r"lrwxrwxrwx 0/0 +7 1970-01-01 00:00 squashfs-root/bin -> usr/bin\n",
        r"-rwsr-xr-x 0/0 +500000 2020-09-13 12:26 squashfs-root/usr/bin/tool\n",
        r"-rwsr-xr-x 0/0 +500000 2020-09-13 12:26 squashfs-root/usr/bin/alias\n",
        r"-rwsr-xr-x 0/0 +500000 2020-09-13 12:26 squashfs-root/z\n",
        r"-rw-r--r-- 3000000000/70000 +1 2106-02-07 06:28 squashfs-root/owned\n",
        r"-rw-r--r-- 0/0 +1 1970-01-01 00:00 squashfs-root/old\n",
        r"crw-rw-rw- 0/0 +1, +3 1970-01-01 00:00 squashfs-root/c\n",
        r"brw-r--r-- 0/0 +8, +1 1970-01-01 00:00 squashfs-root/b\n",
        r"prw-r--r-- 0/0 +0 1970-01-01 00:00 squashfs-root/p\n",
        r"squashfs-root/n{255}\n",
        r"squashfs-root/latin-\xe9\n",
        r"squashfs-root/absolute -> /t{180}\n",
    ):
        assert re.search(expected, text), expected
    assert "squashfs-root/gone" not in text


def test_rdsquashfs_finds_the_contents_and_the_hardlinks(image: Image, tmp_path: Path) -> None:
    path, program = packed(image, tmp_path), needs("rdsquashfs")

    def content(name: str) -> bytes:
        return subprocess.run([program, "-c", name, path], check=True, capture_output=True).stdout

    tree, env = prepared(image, tmp_path / "again")
    with Spools(env.store) as spools:
        rootfs = unpack.open_rootfs(env.store, tree, spools)
        for name in (
            "usr/bin/tool",
            "usr/bin/alias",
            "z",
            "small",
            "empty",
            "zeros",
            "n" * 255,
            "deep" * 20 + "/" + "/".join(["deep" * 20] * 14),
        ):
            assert content(name) == rootfs.read(name)
    stat = subprocess.run([program, "-s", "z", path], check=True, capture_output=True).stdout.decode()
    assert re.search(r"Hard link count: 3\n", stat)
    # unsquashfs 4.5.1 prints another number for this one; the kernel, below, agrees with rdsquashfs.
    stat = subprocess.run([program, "-s", "large", path], check=True, capture_output=True).stdout.decode()
    assert "Device number: 4095:300 " in stat


def test_xattrs_survive_byte_for_byte(image: Image, tmp_path: Path) -> None:
    path = packed(image, tmp_path)
    out = subprocess.run([needs("rdsquashfs"), "-x", "cap", path], check=True, capture_output=True).stdout.decode()
    assert "security.capability=0x" + CAPABILITY.hex() in out.lower().replace("0x0x", "0x")
    assert "user.e" in out


@pytest.mark.root
def test_kernel_mounts_it(image: Image, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    path, target = packed(image, tmp_path), tmp_path / "mnt"
    target.mkdir()
    done = subprocess.run(["mount", "-t", "squashfs", "-o", "ro,loop", path, target], capture_output=True)
    if done.returncode:
        pytest.skip(f"this kernel mounts no squashfs: {done.stderr.decode().strip()}")
    try:
        assert (target / "etc/passwd").read_bytes() == b"root:x:0:0::/:/bin/sh\n"
        assert os.getxattr(target / "cap", "security.capability") == CAPABILITY
        assert (target / "usr/bin/tool").stat().st_nlink == 3
        assert (target / "large").stat().st_rdev == os.makedev(4095, 300)
    finally:
        subprocess.run(["umount", target], check=True)


# -- the same bytes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_compression_of_layers_does_not_matter(image: Image, tmp_path: Path, compression: str) -> None:
    other = image_of(base_tar(), UPPER, compression=compression)
    assert sha256(packed(other, tmp_path / "b")) == sha256(packed(image, tmp_path / "a"))


def test_split_into_layers_and_order_of_entries_do_not_matter(tmp_path: Path) -> None:
    one = {"d/": None, "d/x": b"1" * 100_000, "d/y": b"2", "e": b"3"}
    backwards = tar_of(dict(reversed(one.items())))
    layers = [tar_of({"d/": None, "d/old": b"", "e": b"3"}), tar_of({"d/.wh.old": b"", "d/y": b"2"})]
    layers.append(tar_of({"d/x": b"1" * 100_000}))
    digests = {
        sha256(packed(image_of(tar_of(one)), tmp_path / "a")),
        sha256(packed(image_of(backwards), tmp_path / "b")),
        sha256(packed(image_of(*layers), tmp_path / "c")),
    }
    assert len(digests) == 1


@pytest.mark.parametrize("compression", ["zstd-3", "small", "gzip", "lz4"])
def test_number_of_threads_does_not_matter(image: Image, tmp_path: Path, compression: str) -> None:
    tree, env = prepared(image, tmp_path)
    with Spools(env.store) as spools:
        rootfs = Rootfs(env.store, tree.tree, tree.layers, spools)
        images = {squash_rootfs(env.store, rootfs, compression=compression, threads=n).digest for n in (1, 2, 5)}
    assert len(images) == 1


PACK = """
import os, sys
sys.path.insert(0, sys.argv[1])
if sys.argv[4] == "plain user":
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.umask(int(sys.argv[5], 8))
from pathlib import Path
from pipeline.env import Env
from pipeline.pack import pack_image
from pipeline.store import Store
work = Path(sys.argv[3])
print(pack_image(sys.argv[2], work / "out.sqfs", env=Env(Store(work / "store"))))
"""


def test_user_time_zone_umask_locale_and_epoch_do_not_matter(image: Image, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"t": image})
    for path in [tmp_path, *tmp_path.parents]:
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    variants = [("self", "022", {}), ("self", "077", {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "1"})]
    variants += [("self", "000", {"SOURCE_DATE_EPOCH": "1234567", "PYTHONHASHSEED": "2"})]
    if os.geteuid() == 0:
        variants.append(("plain user", "027", {"TZ": "America/Lima"}))
    digests = set()
    for number, (user, umask, variables) in enumerate(variants):
        work = tmp_path / str(number)
        work.mkdir()
        if user == "plain user":
            os.chown(work, 65534, 65534)
        argv = [sys.executable, "-c", PACK, str(PROJECT), f"oci:{layout}:t", str(work), user, umask]
        done = subprocess.run(argv, env=os.environ | variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout.strip())
        assert "sha256:" + sha256(work / "out.sqfs") == done.stdout.strip()
    assert len(digests) == 1


# -- the stage ---------------------------------------------------------------------------------------------------------


def test_second_run_runs_no_writer(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, env = prepared(image, tmp_path)
    first = squash.run(squash.SquashParams(tree), env)
    writers = WriterRuns(monkeypatch)
    assert squash.run(squash.SquashParams(tree), env) == first
    assert writers.count == 0


def test_presets_give_different_images_and_levels_different_keys(image: Image, tmp_path: Path) -> None:
    tree, env = prepared(image, tmp_path)
    images = [
        squash.run(squash.SquashParams(tree, name), env).image for name in ("zstd-3", "zstd-9", "small", "gzip", "lz4")
    ]
    assert len({image.digest for image in images}) == 5


@pytest.mark.parametrize("name", ["zstd", "zstd-0", "zstd-23", "xz"])
def test_unknown_compression_is_one_sentence(name: str, image: Image, tmp_path: Path) -> None:
    tree, env = prepared(image, tmp_path)
    with pytest.raises(BadCompressionName, match="expected zstd-1 to zstd-22, small, gzip or lz4"):
        squash.run(squash.SquashParams(tree, name), env)
    with pytest.raises(PipelineError, match="format 'ext4': expected one of squashfs"):
        squash.run(squash.SquashParams(tree, "zstd-3", "ext4"), env)


def test_key_names_the_writer_and_its_library() -> None:
    for name, library in (("zstd-3", "libzstd"), ("gzip", "libgzip"), ("lz4", "liblz4")):
        versions = writer_versions(name)
        assert set(versions) == {"writer", "libsquashfs", library}
        assert all(re.fullmatch(r"\d+(\.\d+)*", version) for version in versions.values())


def test_failing_compressor_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> bytes:
        raise MemoryError("no room for a block")

    monkeypatch.setattr("pipeline.squashfs.image._compressor", lambda how: broken)
    store = Store(tmp_path)
    for content in (b"", b"x" * 300_000):  # in a table's block, in a thread
        file = Entry(b"a", Kind.FILE, size_bytes=len(content))
        with pytest.raises(MemoryError, match="no room for a block"):
            squash_entries(store, [(Entry(b"", Kind.DIRECTORY), ()), (file, [content])])
    assert os.listdir(store.tmp) == []
    assert os.listdir(store.blobs) == []


def test_entry_given_twice_is_an_error(tmp_path: Path) -> None:
    entries = [(Entry(b"", Kind.DIRECTORY, mode=0o755), ()), (Entry(b"a", Kind.FILE), ()), (Entry(b"a", Kind.FILE), ())]
    with pytest.raises(PipelineError):
        squash_entries(Store(tmp_path), entries)


def test_entry_with_too_little_content_is_an_error(tmp_path: Path) -> None:
    root = Entry(b"", Kind.DIRECTORY)
    with pytest.raises(SquashFailed, match=r"expected 5 bytes of content, got 4"):
        squash_entries(Store(tmp_path), [(root, ()), (Entry(b"a", Kind.FILE, size_bytes=5), [b"1234"])])


def test_entry_without_its_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SquashFailed, match=r"^b/c: expected its directory before it"):
        squash_entries(Store(tmp_path), [(Entry(b"", Kind.DIRECTORY), ()), (Entry(b"b/c", Kind.FIFO), ())])


def test_order_of_entries_does_not_matter(tmp_path: Path) -> None:
    store = Store(tmp_path)
    directories = [(Entry(path, Kind.DIRECTORY, mode=0o755), ()) for path in (b"", b"a")]
    first = Entry(b"a/b", Kind.FILE, size_bytes=3, mtime_ns=5 * 10**9)
    files = [(first, [b"12", b"3"]), (Entry(b"a-b", Kind.HARDLINK, target=b"a/b"), ())]
    swapped = [
        (Entry(b"a/b", Kind.HARDLINK, target=b"a-b"), ()),
        (Entry(b"a-b", Kind.FILE, size_bytes=3, mtime_ns=5 * 10**9), [b"123"]),
    ]
    images = {
        squash_entries(store, order).digest
        for order in (directories + files, files + directories, swapped + directories)
    }
    assert len(images) == 1


# -- pack --------------------------------------------------------------------------------------------------------------


def test_pack_replaces_the_file_whole(image: Image, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"t": image})
    env, out = Env(Store(tmp_path / "store")), tmp_path / "out" / "x.sqfs"
    out.parent.mkdir()
    out.write_bytes(b"old")
    digest = pack_image(f"oci:{layout}:t", out, env=env)
    assert "sha256:" + sha256(out) == str(digest)
    assert os.listdir(out.parent) == ["x.sqfs"]


def test_failed_pack_leaves_no_file(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"t": image_of(tar_of({"a": "=> none"}))})
    env, out = Env(Store(tmp_path / "store")), tmp_path / "out" / "x.sqfs"
    out.parent.mkdir()
    with pytest.raises(PipelineError, match="a hardlink to an earlier entry"):
        pack_image(f"oci:{layout}:t", out, env=env)
    assert os.listdir(out.parent) == []


def test_pack_into_no_directory_does_no_work(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="a directory to write it in"):
        pack_image("recipe:none", tmp_path / "missing" / "x", env=Env(Store(tmp_path / "store")))


def test_result_descriptor_is_that_of_the_file(image: Image, tmp_path: Path) -> None:
    tree, env = prepared(image, tmp_path)
    result: Descriptor = squash.run(squash.SquashParams(tree), env).image
    path = env.store.path(result.digest)
    assert (path.stat().st_size, "sha256:" + sha256(path)) == (result.size_bytes, str(result.digest))


@pytest.mark.parametrize("largest_bytes", [1000, 20_000, 900_000])
def test_full_disk_is_one_sentence_and_leaves_no_file(image: Image, tmp_path: Path, largest_bytes: int) -> None:
    layout = write_layout(tmp_path / "layout", {"t": image})
    (tmp_path / "store").mkdir()
    limited = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({largest_bytes}, {largest_bytes}))
sys.path.insert(0, {str(PROJECT)!r})
from pathlib import Path
from pipeline.env import Env
from pipeline.errors import PipelineError
from pipeline.pack import pack_image
from pipeline.store import Store
work = Path({str(tmp_path)!r})
try:
    pack_image({f"oci:{layout}:t"!r}, work / "x.sqfs", env=Env(Store(work / "store")))
except PipelineError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "File too large" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["layout", "store"]
    assert os.listdir(tmp_path / "store" / "tmp") == []
    # With room again, the same call works, and gives what it always gives.
    again = pack_image(f"oci:{layout}:t", tmp_path / "x.sqfs", env=Env(Store(tmp_path / "store")))
    assert again == pack_image(f"oci:{layout}:t", tmp_path / "y.sqfs", env=Env(Store(tmp_path / "other")))


def test_killed_pack_leaves_no_file_and_the_next_one_is_right(image: Image, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"t": image})
    argv = [sys.executable, "-c", PACK, str(PROJECT), f"oci:{layout}:t", str(tmp_path), "self", "022"]
    wanted = str(pack_image(f"oci:{layout}:t", tmp_path / "y.sqfs", env=Env(Store(tmp_path / "other"))))
    for step in range(25):
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.05 + 0.04 * step)
        process.kill()
        out, _ = process.communicate()
        if process.returncode == 0:
            assert out.strip() == wanted
            break
        store = Store(tmp_path / "store")
        written = {"sha256:" + sha256(path) for path in tmp_path.glob("out.sqfs")}
        assert written <= {wanted}, f"a half file after {step}"
        assert all(store.verify(Digest("sha256", name)) for name in os.listdir(store.blobs))
    subprocess.run(argv, check=True, capture_output=True)
    assert "sha256:" + sha256(tmp_path / "out.sqfs") == wanted
