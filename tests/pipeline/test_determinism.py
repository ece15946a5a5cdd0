"""The same content gives the same bytes, whatever differs around it. Each pack runs in a process of its own.

Case 91 of the layer corpus, and more: users, time zones, umasks, locales, hash seeds, processors, days, orders of
directories, compressions of layers, ways to split them, Pythons.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from support import debtree, pythons
from support.tars import Member, image_of, tar_of, write_layout

PROJECT = Path(__file__).resolve().parents[2]
CAPABILITY = ("SCHILY.xattr.security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
NOISE = hashlib.shake_256(b"noise").digest(400_000)
TREE = {
    "./": Member("", kind=b"5", mode=0o755, mtime=1_600_000_000),
    "etc/": None,
    "etc/passwd": b"root:x:0:0::/:/bin/sh\n",
    "bin": "-> usr/bin",
    "usr/": None,
    "usr/bin/": None,
    "usr/bin/tool": Member("", NOISE, mode=0o4755, mtime=1_600_000_001),
    "usr/bin/same": Member("", NOISE, mtime=5),
    "text": b"a line of text\n" * 60_000,
    "zeros": bytes(500_000),
    "é" * 100: b"1",
    b"latin-\xe9": b"2",
    "cap": Member("", b"c", uid=70_000, pax=[CAPABILITY, ("SCHILY.xattr.user.e", b""), ("mtime", "-1.5")]),
    "c": Member("", kind=b"3", device=(1, 3), mode=0o666),
}
LINKS = {"usr/bin/alias": "=> usr/bin/tool", "z": "=> usr/bin/tool"}

# Prints the digests of the merged tree, of the squashfs and of the tar; the files themselves are hashed here.
PACK = """
import os, sys
sys.path[:0] = [sys.argv[1], *filter(None, [os.environ.get("LIBRARIES")])]
if os.environ.get("AS_USER"):
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.umask(int(os.environ.get("UMASK", "022"), 8))
if cores := os.environ.get("CORES"):
    os.sched_getaffinity = lambda pid: set(range(int(cores)))
if os.environ.get("BACKWARDS"):
    real_listdir = os.listdir
    os.listdir = lambda *where: sorted(real_listdir(*where), reverse=True)
from pathlib import Path
from pipeline import fetch, unpack
from pipeline.env import Env
from pipeline.pack import pack_image
from pipeline.store import Store
work, reference = Path(sys.argv[2]), sys.argv[3]
env = Env(Store(work / "store"))
print(unpack.run(unpack.UnpackParams(fetch.run(fetch.FetchParams(reference), env)), env).tree.digest)
for form in ("squashfs", "tar"):
    print(pack_image(reference, work / form, env=env, format=form))
"""


def layout(tmp_path: Path, *layers: Mapping[object, object], compression: str = "gzip") -> str:
    image = image_of(*(tar_of(layer) for layer in layers), compression=compression)
    name = hashlib.sha256(image.manifest).hexdigest()[:10]
    return f"oci:{write_layout(tmp_path / f'layout-{name}', {'t': image})}:t"


def packed(
    tmp_path: Path, reference: str, *, python: Sequence[str] = (sys.executable,), **variables: str
) -> tuple[str, ...]:
    """The digests of one pack, in a process and a store of its own."""
    work = tmp_path / f"work-{len(list(tmp_path.glob('work-*')))}"
    work.mkdir()
    if variables.get("AS_USER"):
        os.chown(work, 65534, 65534)
    argv = [*python, "-c", PACK, str(PROJECT), str(work), reference]
    done = subprocess.run(argv, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    digests = tuple(done.stdout.split())
    for name, digest in zip(("squashfs", "tar"), digests[1:], strict=True):
        assert "sha256:" + hashlib.sha256((work / name).read_bytes()).hexdigest() == digest
    return digests


@pytest.fixture(scope="module")
def wanted() -> Iterator[tuple[Path, str, tuple[str, ...]]]:
    """(a directory any user may enter, which pytest's own are not, a reference, its digests packed plainly)."""
    with tempfile.TemporaryDirectory(prefix="zonewright-determinism-") as directory:
        tmp_path = Path(directory)
        tmp_path.chmod(0o755)
        reference = layout(tmp_path, TREE, LINKS)
        yield tmp_path, reference, packed(tmp_path, reference)


AROUND = {
    "another time zone": {"TZ": "Asia/Kathmandu"},
    "umask 077": {"UMASK": "077"},
    "umask 000": {"UMASK": "000"},
    "locale C": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "locale of another script": {"LC_ALL": "tr_TR.UTF-8", "LANG": "ja_JP.eucJP"},
    "hash seed 1": {"PYTHONHASHSEED": "1"},
    "hash seed 2": {"PYTHONHASHSEED": "2"},
    "SOURCE_DATE_EPOCH": {"SOURCE_DATE_EPOCH": "1234567"},
    "one processor": {"CORES": "1"},
    "two processors": {"CORES": "2"},
    "four processors": {"CORES": "4"},
    "directories read backwards": {"BACKWARDS": "1"},
}


@pytest.mark.parametrize("name", AROUND)
def test_bytes_do_not_depend_on(name: str, wanted: tuple[Path, str, tuple[str, ...]]) -> None:
    tmp_path, reference, digests = wanted
    assert packed(tmp_path, reference, **AROUND[name]) == digests


@pytest.mark.root
def test_bytes_do_not_depend_on_the_user(wanted: tuple[Path, str, tuple[str, ...]]) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    tmp_path, reference, digests = wanted
    assert packed(tmp_path, reference, AS_USER="1", UMASK="027") == digests


@pytest.mark.network
@pytest.mark.parametrize("day", [946_684_799, 2_147_483_648], ids=["1999", "2038"])
def test_bytes_do_not_depend_on_the_day(day: int, wanted: tuple[Path, str, tuple[str, ...]]) -> None:
    """By a library that gives the whole process another calendar, what is written in C included."""
    root = debtree.unpacked("faketime", "libfaketime", suite="bookworm")
    (library,) = root.glob("usr/lib/*/faketime/libfaketime.so.1")
    # The calendar alone: deadlines are kept by another clock, and waiting for them by the real one.
    clock = {"LD_PRELOAD": str(library), "FAKETIME": f"@{day}", "FAKETIME_FMT": "%s"}
    clock |= {"DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    year = [sys.executable, "-c", "import time; print(time.gmtime().tm_year)"]
    seen = subprocess.run(year, env=os.environ | clock, capture_output=True, text=True, check=True)
    assert int(seen.stdout) == time.gmtime(day).tm_year
    tmp_path, reference, digests = wanted
    assert packed(tmp_path, reference, **clock) == digests


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_bytes_do_not_depend_on_the_compression_of_layers(
    compression: str, wanted: tuple[Path, str, tuple[str, ...]]
) -> None:
    tmp_path, _, digests = wanted
    assert packed(tmp_path, layout(tmp_path, TREE, LINKS, compression=compression)) == digests


SPLITS: dict[str, Sequence[Mapping[object, object]]] = {
    "one layer": [TREE | LINKS],
    "a layer for each name": [*({name: TREE[name]} for name in TREE), *({name: LINKS[name]} for name in LINKS)],
    "backwards": [dict(reversed(TREE.items())), LINKS],
    "with a past": [
        {"text": b"older", "gone/": None, "gone/x": b"1", "usr/bin/old": b"2", "etc": b"a file"},
        {".wh.gone": b"", "etc/": None, "usr/bin/.wh.old": b""},
        {**TREE, "usr/bin/.wh..wh..opq": b""},
        LINKS,
    ],
    "linked the other way round": [
        {("z" if name == "usr/bin/tool" else name): TREE[name] for name in TREE},
        {"usr/bin/tool": "=> z", "usr/bin/alias": "=> z"},
    ],
}


@pytest.mark.parametrize("name", SPLITS)
def test_bytes_do_not_depend_on_how_layers_are_split(name: str, wanted: tuple[Path, str, tuple[str, ...]]) -> None:
    """The tree document names the layers its bytes lie in, so it differs; images do not."""
    tmp_path, _, digests = wanted
    assert packed(tmp_path, layout(tmp_path, *SPLITS[name]))[1:] == digests[1:]


@pytest.mark.network
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_bytes_do_not_depend_on_the_python(version: str, wanted: tuple[Path, str, tuple[str, ...]]) -> None:
    tmp_path, reference, digests = wanted
    command = pythons.command(version)
    libraries = "" if command == [sys.executable] else str(pythons.libraries(version))
    assert packed(tmp_path, reference, python=command, LIBRARIES=libraries) == digests


def test_nothing_of_the_clock_is_in_an_image(wanted: tuple[Path, str, tuple[str, ...]]) -> None:
    tmp_path, _, _ = wanted
    superblock = (tmp_path / "work-0" / "squashfs").read_bytes()[:96]
    assert superblock[8:12] == bytes(4), "the time of building"
