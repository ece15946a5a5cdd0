"""A kernel's addons.squashfs: what is read of it, and what of it is refused."""

import pytest
from support.modules import module_of

from pipeline.addons import Addons, BadAddons
from pipeline.squashfs import squash_entries
from pipeline.store import Store
from pipeline.tree import Entry, Kind

NOISE = bytes(range(256)) * 2000


@pytest.fixture
def opened(tmp_path):
    store = Store(tmp_path / "store")

    def opened(*entries: tuple[Entry, bytes], damage: bool = False) -> Addons:
        root = (Entry(b"", Kind.DIRECTORY, 0o755), b"")
        contents = ((entry, [data] if data else ()) for entry, data in (root, *entries))
        path = tmp_path / "addons"
        path.write_bytes(store.read(squash_entries(store, contents).digest))
        if damage:
            data = bytearray(path.read_bytes())
            data[96:160] = bytes(64)  # behind the superblock: the first block of the first file
            path.write_bytes(data)
        return Addons(path, subject="recipe:k")

    return opened


def file(path: bytes, data: bytes) -> tuple[Entry, bytes]:
    return Entry(path, Kind.FILE, size_bytes=len(data)), data


def directory(path: bytes) -> tuple[Entry, bytes]:
    return Entry(path, Kind.DIRECTORY, 0o755), b""


def test_files_links_and_directories_come_with_their_bytes(opened):
    link = (Entry(b"firmware/b", Kind.SYMLINK, target=b"a"), b"")
    with opened(directory(b"firmware"), file(b"firmware/a", NOISE), link) as addons:
        found = [(entry.path, entry.kind, entry.target, entry.size_bytes) for entry in addons.entries()]
        assert b"".join(addons.content("firmware/a")) == NOISE
    assert sorted(found) == [
        (b"firmware", Kind.DIRECTORY, b"", 0),
        (b"firmware/a", Kind.FILE, b"", len(NOISE)),
        (b"firmware/b", Kind.SYMLINK, b"a", 0),
    ]


def test_modules_are_known_by_the_kernels_name_and_built_in_ones_by_the_list(opened):
    module = module_of("license=GPL")
    entries = [
        directory(b"modules"),
        file(b"modules/a-b.ko", module),
        file(b"modules/modules.builtin", b"kernel/fs/c-d.ko\n"),
    ]
    with opened(*entries) as addons:
        assert addons.modules == {"a_b": "modules/a-b.ko"} and addons.read("a_b") == module
        assert addons.builtin() == {"c_d"}


def test_device_nodes_are_refused(opened):
    addons = opened((Entry(b"null", Kind.CHAR, major=1, minor=3), b""))
    with addons, pytest.raises(BadAddons, match="recipe:k: null: expected files, directories and symlinks, got"):
        list(addons.entries())


def test_a_damaged_file_is_named(opened):
    addons = opened(file(b"a", NOISE), damage=True)
    with addons, pytest.raises(BadAddons, match="recipe:k: a: expected a readable file, got"):
        list(addons.content("a"))


def test_a_squashfs_cut_short_is_refused(tmp_path):
    (tmp_path / "addons").write_bytes(b"hsqs" + bytes(60))
    with pytest.raises(BadAddons, match="recipe:k: expected a readable squashfs"):
        Addons(tmp_path / "addons", subject="recipe:k")
