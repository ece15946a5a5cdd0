"""Several processes, users and hosts on one store: one build of one thing, and a clear word where one may not write."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.places import open_to_others
from support.said import Said
from support.stores import built, damage, image
from support.tars import image_of, tar_of, write_layout
from support.tools import needs

from pipeline import fetch, squash, unpack
from pipeline.env import Env, cached, healing
from pipeline.errors import SentenceError
from pipeline.oci import MANIFEST, Descriptor, Digest
from pipeline.pack import copy_out, pack_image
from pipeline.store import Store
from pipeline.store.collect import collect
from pipeline.store.form import StoreUnfit
from pipeline.store.fsck import fsck

PROJECT = Path(__file__).resolve().parents[3]
NOBODY = 65534
PACK = """
import os, sys, time
from pathlib import Path
from pipeline.env import Env
from pipeline.pack import pack_image
from pipeline.squash import formats
from pipeline.store import Store

reference, out, root, log, hang = sys.argv[1:]
write = formats.squash_rootfs

def counted(*arguments, **options):
    with open(log, "a") as file:
        file.write(f"{os.getpid()}\\n")
    if hang and not os.path.exists(hang):
        Path(hang).touch()
        time.sleep(600)
    time.sleep(0.3)
    return write(*arguments, **options)

formats.squash_rootfs = counted
pack_image(reference, Path(out), env=Env(Store(Path(root))))
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def reference(tmp_path: Path) -> str:
    layout = write_layout(tmp_path / "layout", {"1": image_of(tar_of({"etc/": None, "etc/motd": b"hi" * 30_000}))})
    return f"oci:{layout}:1"


@contextlib.contextmanager
def packer(
    tmp_path: Path, reference: str, name: str, *before: str, hang: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that packs into the shared store; each run of the squashfs writer notes itself in `runs`.

    hang:    a file; the first writer makes it and goes no further.
    """
    words = [sys.executable, "-c", PACK, reference, tmp_path / name, tmp_path / "store", tmp_path / "runs", hang]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    with subprocess.Popen([*before, *map(str, words)], env=environment, stderr=subprocess.PIPE) as process:
        yield process


def runs(tmp_path: Path) -> list[str]:
    """The processes whose writers ran."""
    log = tmp_path / "runs"
    return log.read_text().split() if log.exists() else []


@pytest.mark.parametrize("count", (2, 8))
def test_processes_that_pack_one_image_at_once_run_one_writer(tmp_path: Path, reference: str, count: int) -> None:
    with contextlib.ExitStack() as stack:
        packers = [stack.enter_context(packer(tmp_path, reference, f"{number}.out")) for number in range(count)]
    assert [process.returncode for process in packers] == [0] * count
    assert len(runs(tmp_path)) == 1
    outs = list(tmp_path.glob("*.out"))
    assert len(outs) == count and len({out.read_bytes() for out in outs}) == 1


def test_who_waits_takes_over_at_once_when_the_builder_is_killed(tmp_path: Path, reference: str) -> None:
    hang = str(tmp_path / "hangs")
    with packer(tmp_path, reference, "a", hang=hang) as first:
        _wait_for(lambda: os.path.exists(hang))
        with packer(tmp_path, reference, "b", hang=hang) as second:
            _wait_for(lambda: _waits_for_a_lock(second.pid))
            first.send_signal(signal.SIGKILL)
            began = time.monotonic()
            _wait_for(lambda: len(runs(tmp_path)) == 2)
            sys.stderr.write(f"\ntaken over after {time.monotonic() - began:.2f} s\n")
    assert second.returncode == 0 and (tmp_path / "b").exists() and not (tmp_path / "a").exists()


def _wait_for(condition: Callable[[], object], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _waits_for_a_lock(pid: int) -> bool:
    lines = Path("/proc/locks").read_text().splitlines()
    return any(" -> " in line and f" {pid} " in line for line in lines)


@needs_root
@needs("unshare")
def test_two_hosts_on_one_store_make_one_build(tmp_path: Path, reference: str) -> None:
    with contextlib.ExitStack() as stack:
        hosts = []
        for number in range(2):
            host = ["unshare", "--uts", "--pid", "--ipc", "--mount", "--propagation=unchanged", "--fork", "sh", "-ec"]
            # In a chroot the root is no mount whose propagation could be changed, but /proc is one.
            private = "{ mount --make-rprivate / || mount --make-private /proc; } 2>/dev/null; mount -t proc proc /proc"
            host += [f'{private}; hostname host{number}; exec "$@"', "sh"]
            hosts.append(stack.enter_context(packer(tmp_path, reference, f"{number}.out", *host)))
    assert [host.returncode for host in hosts] == [0, 0]
    assert len(runs(tmp_path)) == 1
    assert (tmp_path / "0.out").read_bytes() == (tmp_path / "1.out").read_bytes()


# -- damage, and who hears of it ---------------------------------------------------------------------------------------


def pack_in_stages(reference: str, out: Path, env: Env) -> Digest:
    """What pack does where it has no packed image to take: every stage asks for its own result."""

    def stages() -> Descriptor:
        tree = unpack.run(unpack.UnpackParams(fetch.run(fetch.FetchParams(reference), env)), env)
        image = squash.run(squash.SquashParams(tree), env).image
        copy_out(env.store, image, out)
        return image

    return healing(env, stages).digest


@pytest.mark.parametrize("how", ("flipped", "truncated", "deleted", "made a directory"))
def test_stages_heal_whatever_they_use_that_is_damaged_and_say_so(tmp_path: Path, reference: str, how: str) -> None:
    root, out = tmp_path / "store", tmp_path / "out"
    digest = pack_in_stages(reference, out, env=Env(Store(root)))
    healed = 0
    for path in sorted((root / "blobs" / "sha256").iterdir()):
        data = path.read_bytes()
        damage(path, how)
        said = Said()
        assert pack_in_stages(reference, out, env=Env(Store(root), said)) == digest
        assert Digest.of(out.read_bytes()) == digest
        if path.is_file() and path.read_bytes() == data:
            healed += 1
            assert [line for line in said.lines if f"sha256:{path.name} was" in line], (path, said.lines)
        else:  # nothing in what was done needed it
            assert [item.name for item in fsck(root, repair=True)] == [str(path.relative_to(root))]
            path.write_bytes(data)
            path.chmod(0o444)
        assert fsck(root) == []
    assert healed >= 4  # manifest, config, layer and squashfs at least


def test_large_damaged_object_is_found_by_its_reader_and_healed_in_the_same_run(tmp_path: Path) -> None:
    noise = os.urandom(400_000)  # more than is hashed on a hit
    layout = write_layout(tmp_path / "layout", {"1": image_of(tar_of({"noise": noise}))})
    root = tmp_path / "store"
    digest = pack_image(f"oci:{layout}:1", tmp_path / "a", env=Env(Store(root)))
    path = Store(root).path(digest)
    damage(path, "flipped")
    said = Said()
    assert pack_image(f"oci:{layout}:1", tmp_path / "b", env=Env(Store(root), said)) == digest
    assert f"store object {digest} was damaged; made again" in said.lines
    assert path.read_bytes() == (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_collected_object_is_made_again_with_a_word(tmp_path: Path) -> None:
    store, said = Store(tmp_path / "store"), Said()
    blob = built(store, "a")
    store.path(blob.digest).unlink()

    cached(
        Env(store, said), Descriptor, stage="a", version=1, params={}, inputs={}, build=lambda: store.put(b"a" * 100)
    )
    assert said.lines == [f"store object {blob.digest} was missing; made again"]


def test_name_is_never_given_to_what_is_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    manifest = image(store, "x", [])
    store.path(manifest.digest).unlink()
    with pytest.raises(SentenceError, match="no such object"):
        store.tag("y", Descriptor(MANIFEST, manifest.digest, manifest.size_bytes))


# -- stores one may only read, and full ones ---------------------------------------------------------------------------


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """A directory that other users can reach."""
    return open_to_others(tmp_path)


@needs_root
def test_store_of_another_user_can_be_read_and_says_whose_it_is_when_written(open_path: Path) -> None:
    mine = Store(open_path / "store")
    blob = built(mine, "a")
    image(mine, "zones/web", [blob])
    with as_nobody():
        theirs = Store(open_path / "store")
        assert theirs.read(blob.digest) == b"a" * 100
        assert built(theirs, "a") == blob  # a hit needs no writing
        assert list(theirs.tags()) == ["zones/web"]
        for write in (
            lambda: theirs.put(b"new"),
            lambda: built(theirs, "b"),
            lambda: theirs.tag("x", blob),
            lambda: theirs.put_result("ab" * 32, {}),
        ):
            with pytest.raises(StoreUnfit, match=r"got Permission denied \(it belongs to user root\)"):
                write()
    assert built(Store(open_path / "store"), "a") == blob


@needs_root
def test_store_of_another_user_that_nobody_may_read_is_one_sentence(open_path: Path) -> None:
    Store(open_path / "store").root.chmod(0o700)
    with as_nobody(), pytest.raises(StoreUnfit, match="belongs to user root"):
        Store(open_path / "store")


@needs_root
def test_place_for_a_store_where_one_may_not_write_is_one_sentence(open_path: Path) -> None:
    with as_nobody(), pytest.raises(StoreUnfit, match=r"Permission denied .*ZONEWRIGHT_STORE names another"):
        Store(open_path / "store")


@contextlib.contextmanager
def mounted(options: str, place: Path, kind: str = "tmpfs") -> Iterator[Path]:
    place.mkdir()
    done = subprocess.run(["mount", "-t", kind, "-o", options, "none", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount {kind} here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@needs_root
def test_store_on_a_read_only_file_system_serves_what_it_has(tmp_path: Path) -> None:
    with mounted("size=4m", tmp_path / "disk") as disk:
        blob = built(Store(disk / "store"), "a")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        store = Store(disk / "store")
        assert built(store, "a") == blob and store.read(blob.digest) == b"a" * 100
        with pytest.raises(StoreUnfit, match="Read-only file system"):
            store.put(b"new")


@needs_root
@pytest.mark.parametrize("options", ("size=1m", "size=64m,nr_inodes=40"))
def test_full_disk_is_one_sentence_and_with_room_again_the_same_call_works(tmp_path: Path, options: str) -> None:
    layers = [tar_of({f"{number}/": None, f"{number}/noise": os.urandom(200_000)}) for number in range(8)]
    layout = write_layout(tmp_path / "layout", {"1": image_of(*layers)})
    reference, out = f"oci:{layout}:1", tmp_path / "out"
    with mounted(options, tmp_path / "disk") as disk:
        with pytest.raises(SentenceError, match="No space left on device") as caught:
            pack_image(reference, out, env=Env(Store(disk / "store")))
        assert "\n" not in str(caught.value) and not out.exists()
        assert fsck(disk / "store") == []
        assert os.listdir(disk / "store" / "tmp") == []
        subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=1000", disk], check=True)
        digest = pack_image(reference, out, env=Env(Store(disk / "store")))
        assert digest == pack_image(reference, tmp_path / "other", env=Env(Store(tmp_path / "store")))


@needs_root
@pytest.mark.parametrize("options", ("size=1m", "size=64m,nr_inodes=100"))
def test_gc_makes_room_on_a_disk_that_is_full_to_the_last_byte(tmp_path: Path, options: str) -> None:
    with mounted(options, tmp_path / "disk") as disk:
        store = Store(disk / "store")
        kept = built(store, "kept")
        image(store, "zones/web", [kept])
        for number in range(12):
            built(store, f"old{number}", os.urandom(40_000))
        del store
        with contextlib.suppress(OSError):
            for number in range(1000):
                (disk / f"fill{number}").write_bytes(bytes(4096))
        done = collect(Store(disk / "store"), keep_days=0, keep_bytes=0)
        assert done.freed["blobs"].objects == 12
        assert built(Store(disk / "store"), "kept") == kept
