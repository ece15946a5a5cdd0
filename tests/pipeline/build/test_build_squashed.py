"""A root's entries as a squashfs: what an independent reader finds in it."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

from pipeline import tree
from pipeline.build.roottree import Entry, Root, add, directory, file, in_order, symlink
from pipeline.build.squashed import tree_entry, write_squashfs
from pipeline.store import Store

EPOCH = 1_700_000_000
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def test_the_first_name_of_a_hardlinked_file_carries_its_bytes_and_attributes() -> None:
    group = ("a", "b")
    first = replace(file("a", b"hard", EPOCH), group=group, xattrs=(("security.capability", CAPABILITY),))
    carrier, link = tree_entry(first), tree_entry(replace(first, path="b"))
    assert (carrier.kind, carrier.size_bytes, carrier.xattrs) == (
        tree.Kind.FILE,
        4,
        {b"security.capability": CAPABILITY},
    )
    assert (link.kind, link.size_bytes, link.xattrs, link.target) == (tree.Kind.HARDLINK, 0, {}, b"a")


def test_every_kind_of_entry_is_in_the_image_with_its_owner_and_time(tmp_path: Path) -> None:
    from PySquashfsImage import SquashFsImage

    root: Root = {}
    add(root, [file("usr/tool", bytes(300_000), EPOCH, mode=0o4755, uid=7, gid=8), symlink("link", "usr/tool", 5)])
    add(root, [Entry("null", tarfile.CHRTYPE, 0o666, EPOCH, device=(1, 3))])
    group = ("hard", "usr/hard")
    root |= {name: replace(file(name, b"x", EPOCH), group=group) for name in group}
    store = Store(tmp_path)
    blob = write_squashfs(store, in_order(root), epoch=EPOCH, compression="zstd-3", media_type="application/x")
    with SquashFsImage.from_bytes(store.read(blob.digest)) as image:
        found = {item.path: (item.mode, item.uid, item.gid, item.time) for item in image}
        assert image.select("/usr/tool").read_bytes() == bytes(300_000)
        assert image.select("/link").readlink() == "usr/tool"
        assert image.select("/hard").inode.inode_number == image.select("/usr/hard").inode.inode_number
    assert found["/"] == (0o40755, 0, 0, EPOCH)
    assert found["/usr"] == (0o40755, 0, 0, EPOCH)
    assert found["/usr/tool"] == (0o104755, 7, 8, EPOCH)
    assert found["/link"] == (0o120777, 0, 0, 5)
    assert found["/null"][0] == 0o20666


def test_missing_parents_become_plain_directories_and_present_ones_stay() -> None:
    root: Root = {"usr": directory("usr", 1, mode=0o700)}
    add(root, [file("usr/share/doc", b"", EPOCH)])
    assert [(entry.path, entry.mode, entry.mtime) for entry in in_order(root)] == [
        ("usr", 0o700, 1),
        ("usr/share", 0o755, EPOCH),
        ("usr/share/doc", 0o644, EPOCH),
    ]
