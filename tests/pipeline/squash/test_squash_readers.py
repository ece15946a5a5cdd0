"""Case 92: one squashfs, four readers, one tree; and the kernel's own merge of layers against ours."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import facts
from support.facts import Fact, Facts
from support.mounts import mounted
from support.tars import Member, image_of, tar_bytes, tar_of, write_layout
from support.tools import require

from pipeline import fetch, squash, unpack
from pipeline.env import Env
from pipeline.store import Store

CAPABILITY = ("SCHILY.xattr.security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
LOWER = {
    "./": Member("", kind=b"5", mode=0o755, mtime=1_600_000_000),
    "a/": None,
    "a/x": b"x" * 70_000,
    "a/gone": b"1",
    "bin": "-> usr/bin",
    "usr/bin/tool": Member("", os.urandom(200_000), mode=0o6755, mtime=1_600_000_001),
    "usr/bin/alias": "=> usr/bin/tool",
    "cap": Member("", b"c", pax=[CAPABILITY, ("SCHILY.xattr.user.e", b""), ("SCHILY.xattr.trusted.t", b"\0\xff")]),
    "owned": Member("", b"o", uid=3_000_000_000, gid=70_000, mtime=2**32 - 1),
    "sub": Member("", b"", pax=[("mtime", "1600000000.123456789")]),
    "old": Member("", b"o", mtime=-5),
    "empty": b"",
    "zeros": bytes(300_000),
    "é" * 127: b"255 bytes",
    "/".join(["deep" * 20] * 14): b"deep",
    "new\nline\\ :": b"1",
    "absolute": "-> /" + "t" * 180,
    "op/": None,
    "op/old/x": b"1",
}
NODES = {
    "c": Member("", kind=b"3", device=(1, 3), mode=0o666),
    "b": Member("", kind=b"4", device=(8, 1)),
    "p": Member("", kind=b"6", mode=0o600),
    "t/": Member("", kind=b"5", mode=0o1777),
}
UPPER = {"a/.wh.gone": b"", "z": "=> usr/bin/tool", "op/": None, "op/.wh..wh..opq": b"", "op/new": b"2"}
LATIN = {b"latin-\xe9": b"1", b"d\xff/\xfe": b"2"}


def built(tmp_path: Path, *layers: bytes) -> tuple[Facts, Path]:
    """Our tree, and the squashfs of it."""
    layout = write_layout(tmp_path / "layout", {"t": image_of(*layers)})
    env = Env(Store(tmp_path / "store"))
    result = unpack.run(unpack.UnpackParams(fetch.run(fetch.FetchParams(f"oci:{layout}:t"), env)), env)
    image = squash.run(squash.SquashParams(result), env).image
    return facts.as_squashfs_holds(facts.of_tree(result, env)), env.store.path(image.digest)


def by_kernel(image: Path, tmp_path: Path) -> Facts:
    with mounted(tmp_path / "mnt", "squashfs", image, "ro,loop") as root:
        return facts.of_directory(root)


def by_unsquashfs(image: Path, tmp_path: Path) -> Facts:
    require("unsquashfs")
    subprocess.run(["unsquashfs", "-q", "-n", "-d", tmp_path / "out", image], check=True, capture_output=True)
    return facts.of_directory(tmp_path / "out")


def by_rdsquashfs(image: Path, tmp_path: Path) -> Facts:
    require("rdsquashfs")
    out = tmp_path / "out"
    options = ["--chmod", "--chown", "--set-times", "--set-xattr", "--quiet"]
    argv = ["rdsquashfs", *options, "--unpack-root", out, "--unpack-path", "/", image]
    subprocess.run(argv, check=True, capture_output=True)
    found = facts.of_directory(out)
    # Its own order of calls undoes two things on the way to the disk; asked, it has read them.
    root = subprocess.run(["rdsquashfs", "-s", "/", image], check=True, capture_output=True, text=True).stdout
    asked = subprocess.run(["rdsquashfs", "-x", "cap", image], check=True, capture_output=True, text=True).stdout
    seconds = re.search(r"Last modified: .* \((\d+)\)", root)
    capability = re.search(r"security\.capability=0x(\w+)", asked)
    assert seconds and capability
    found[b""] = replace(found[b""], mtime_ns=int(seconds[1]) * 10**9)
    lost = (b"security.capability", bytes.fromhex(capability[1]))
    found[b"cap"] = replace(found[b"cap"], xattrs=(lost, *found[b"cap"].xattrs))
    return found


READERS: dict[str, Callable[[Path, Path], Facts]] = {
    "kernel": by_kernel,
    "unsquashfs": by_unsquashfs,
    "rdsquashfs": by_rdsquashfs,
}


@pytest.mark.root
@pytest.mark.parametrize("names", ["UTF-8", "any bytes"])
@pytest.mark.parametrize("reader", READERS)
def test_case_92_reader_sees_our_tree(reader: str, names: str, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("owners, devices and trusted xattrs of an extracted tree need root")
    lower = LOWER | NODES | (LATIN if names == "any bytes" else {})
    ours, image = built(tmp_path, tar_of(lower), tar_of(UPPER))
    theirs = READERS[reader](image, tmp_path)
    if reader == "rdsquashfs":  # it makes each name of a node a file of its own
        ours = {path: replace(fact, names=(path,)) for path, fact in ours.items()}
    assert theirs == ours


def test_case_92_our_reader_sees_our_tree(tmp_path: Path) -> None:
    """PySquashfsImage knows neither xattrs nor names that are no UTF-8."""
    from PySquashfsImage import SquashFsImage

    ours, path = built(tmp_path, tar_of(LOWER | NODES), tar_of(UPPER))
    ours = {name: replace(fact, xattrs=()) for name, fact in ours.items()}
    found: dict[bytes, tuple[object, Fact]] = {}
    with SquashFsImage.from_file(str(path)) as image:
        for node in image.root.riter():
            name = node.path.lstrip("/").encode()
            kind = next(
                letter
                for letter, test in {
                    "f": node.is_file,
                    "d": node.is_dir,
                    "l": node.is_symlink,
                    "p": node.is_fifo,
                    "c": node.is_char_device,
                    "b": node.is_block_device,
                }.items()
                if test
            )
            device = (node.major, node.minor) if kind in "cb" else (0, 0)
            content = facts.digest(node.read_bytes()) if kind == "f" else ""
            target = node.readlink().encode() if kind == "l" else b""
            fact = Fact(
                kind,
                node.mode & 0o7777,
                node.uid,
                node.gid,
                node.time * 10**9,
                target,
                (),
                (),
                content,
                device,
            )
            found[name] = (node.inode.inode_number, fact)
    assert facts.with_names(found) == ours


# -- the kernel's own merge --------------------------------------------------------------------------------------------


def as_layer(upper: Path) -> bytes:
    """What overlayfs left in an upper directory, as a layer: its whiteouts and opaque marks in OCI's words."""
    members: list[Member | bytes] = []
    seen: dict[int, str] = {}
    for top, directories, files in os.walk(upper):
        directories.sort()
        for name in [*directories, *sorted(files)]:
            path = Path(top) / name
            status, at = path.lstat(), str(path.relative_to(upper))
            kind = facts.KINDS[stat.S_IFMT(status.st_mode)]
            if kind == "c" and status.st_rdev == 0:
                members.append(Member(str(Path(at).parent / f".wh.{name}")))
                continue
            if status.st_ino in seen:
                members.append(Member(at, kind=b"1", link=seen[status.st_ino]))
                continue
            if kind != "d" and status.st_nlink > 1:
                seen[status.st_ino] = at
            device = (os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in "cb" else (0, 0)
            pax = [(b"SCHILY.xattr." + key, value) for key, value in facts.xattrs(os.fsencode(path))]
            pax.append((b"mtime", _seconds(status.st_mtime_ns)))
            members.append(
                Member(
                    at,
                    path.read_bytes() if kind == "f" else b"",
                    kind={"f": b"0", "l": b"2", "c": b"3", "b": b"4", "d": b"5", "p": b"6"}[kind],
                    mode=stat.S_IMODE(status.st_mode),
                    uid=status.st_uid,
                    gid=status.st_gid,
                    link=os.readlink(path) if kind == "l" else "",
                    device=device,
                    pax=pax,
                )
            )
            marks = os.listxattr(path, follow_symlinks=False)
            if kind == "d" and "trusted.overlay.opaque" in marks:
                members.append(Member(f"{at}/.wh..wh..opq"))
    return tar_bytes(members)


CHANGES = (
    "rm a/x; rm -r full; echo new > full",  # file gone; directory to file
    "rm -r op; mkdir op; echo 1 > op/new",  # opaque
    "rm file; mkdir file; echo 1 > file/in",  # file to directory
    "chmod 0750 kept; touch -d @5 kept",  # directory's metadata alone
    "ln tool tool3; rm tool",  # link to a lower file, whose first name goes
    "rm link; mkdir link; echo 1 > link/x",  # symlink to directory
    "mkdir -p deep/er; rm deep/old; mv ren amed",
    "chown 70000:4294967294 own; mknod c2 c 1 5; mkfifo p2; echo x >> grown",
)


@pytest.mark.root
def test_merge_is_that_of_the_kernels_overlayfs(tmp_path: Path) -> None:
    """Truth: a tree changed through overlayfs, its upper directory as a layer, merged by us and mounted."""
    base = {"./": Member("", kind=b"5", mode=0o755, mtime=1), "c": NODES["c"], "link": "-> a", "tool2": "=> tool"}
    directories = dict.fromkeys(("a/", "full/", "op/", "kept/", "deep/"))
    files = ("a/x", "a/y", "full/f/g", "op/old", "file", "kept/k", "tool", "deep/old", "ren", "own", "grown")
    contents = {name: name.encode() for name in files}
    lower_tar = tar_of(directories | contents | base)
    with mounted(tmp_path / "w", "tmpfs", "tmpfs", "size=16m") as work:
        for name in ("lower", "upper", "work"):
            (work / name).mkdir()
        subprocess.run(["tar", "-C", work / "lower", "--xattrs", "-xpf", "-"], input=lower_tar, check=True)
        options = f"lowerdir={work}/lower,upperdir={work}/upper,workdir={work}/work,redirect_dir=off,index=off"
        with mounted(tmp_path / "merged", "overlay", "overlay", options) as merged:
            for change in CHANGES:
                subprocess.run(["sh", "-ec", change], cwd=merged, check=True)
            os.setxattr(merged / "own", "security.capability", CAPABILITY[1])
            truth = facts.of_directory(merged)
            upper_tar = as_layer(work / "upper")
    root = tar_of({"./": Member("", kind=b"5", mode=0o755, pax=[("mtime", _seconds(truth[b""].mtime_ns))])})
    ours, image = built(tmp_path, lower_tar, upper_tar, root)
    assert by_kernel(image, tmp_path) == ours == facts.as_squashfs_holds(truth)


def _seconds(mtime_ns: int) -> bytes:
    return b"%d.%09d" % divmod(mtime_ns, 10**9)
