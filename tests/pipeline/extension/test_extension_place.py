"""Where an extension's files go, by kind and phase, and what may not be in an image of that kind."""

import pytest

from pipeline.extension.errors import BadExtension
from pipeline.extension.model import ExtensionKind, Facts, Phase
from pipeline.extension.place import place
from pipeline.tree import Entry, Kind

RELEASE = "6.1.0-test"


def facts(kind: str, phase: str) -> Facts:
    return Facts(ExtensionKind(kind), Phase(phase), 1, "amd64", RELEASE)


def entries(*paths: str) -> list[Entry]:
    """`name/` a directory, `name -> target` a symlink, `name => target` a hard link, `name` a file."""
    found = [Entry(b"", Kind.DIRECTORY, 0o755)]
    for path in paths:
        name, arrow, target = path.partition(" -> ")
        name, double, first = name.partition(" => ")
        kind = Kind.SYMLINK if arrow else Kind.HARDLINK if double else Kind.FILE
        kind = Kind.DIRECTORY if name.endswith("/") else kind
        found.append(Entry(name.rstrip("/").encode(), kind, target=(target or first).encode(), mtime_ns=5))
    return found


def placed(kind: str, phase: str, *paths: str) -> list[str]:
    result = place(facts(kind, phase), entries(*paths), subject="docker://r/x:1")
    assert all(entry.mtime_ns == 0 for entry in result)
    return [entry.path.decode() for entry in result]


def refusal(kind: str, phase: str, *paths: str) -> str:
    with pytest.raises(BadExtension) as caught:
        placed(kind, phase, *paths)
    return str(caught.value)


def test_utils_of_the_initrd_stay_where_they_are_and_the_bases_directories_are_left_to_the_base():
    assert placed("utils", "initrd", "bin/", "bin/tool", "lib/", "usr/", "usr/share/", "usr/share/x -> ../y") == [
        "bin/tool",
        "usr",
        "usr/share",
        "usr/share/x",
    ]


@pytest.mark.parametrize("path", ["init", "bin/zone", "bin/styrolite", "zone/launch.json", "dev/null", "run/x"])
def test_what_belongs_to_init_is_refused(path):
    assert f"docker://r/x:1: /{path}: expected nothing where the zone's own init has its files" in refusal(
        "utils", "initrd", path
    )


@pytest.mark.parametrize("path", ["bin -> usr/bin", "lib -> usr/lib", "bin"])
def test_only_the_base_says_whether_bin_and_lib_are_directories(path):
    assert "expected a directory, as the base of every zone has it" in refusal("utils", "initrd", path)


def test_utils_of_the_addons_go_over_the_workloads_root():
    assert placed("utils", "addons", "usr/", "usr/bin/", "usr/bin/tool", "opt/", "opt/x") == [
        "overlays/workload/usr",
        "overlays/workload/usr/bin",
        "overlays/workload/usr/bin/tool",
        "overlays/workload/opt",
        "overlays/workload/opt/x",
    ]
    for path in ("bin/tool", "etc/passwd", "usr -> x", "opt"):
        assert "expected only what lies below /usr and /opt" in refusal("utils", "addons", path)


def test_links_follow_their_targets_to_the_new_place():
    result = place(facts("utils", "addons"), entries("usr/bin/a", "usr/bin/b => usr/bin/a"), subject="s")
    assert result[1].target == b"overlays/workload/usr/bin/a"


def test_firmware_goes_where_the_kernel_is_told_to_look():
    paths = ("usr/", "usr/lib/", "usr/lib/firmware/", "usr/lib/firmware/card/", "usr/lib/firmware/card/a.bin")
    assert placed("firmware", "addons", *paths) == ["firmware/card", "firmware/card/a.bin"]
    assert placed("firmware", "initrd", *paths) == ["lib/firmware", "lib/firmware/card", "lib/firmware/card/a.bin"]
    assert "expected only what lies below /lib/firmware" in refusal("firmware", "addons", "usr/share/doc")


def test_modules_go_to_the_initrd_by_name_and_to_the_disk_as_they_lie():
    base = f"lib/modules/{RELEASE}/"
    paths = ("lib/", "lib/modules/", base, base + "extra/", base + "extra/a-b.ko.xz", base + "modules.dep")
    assert placed("modules", "initrd", *paths) == ["modules/a-b.ko.xz"]
    assert placed("modules", "addons", *paths, base + "build -> /src") == ["modules/extra", "modules/extra/a-b.ko.xz"]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("lib/modules/5.10.0/a.ko", f"expected modules of the release {RELEASE}, got 5.10.0"),
        ("lib/modules/5.10.0/", f"expected modules of the release {RELEASE}, got 5.10.0"),
        (f"lib/modules/{RELEASE}/readme.txt", "expected files NAME.ko"),
        (f"lib/modules/{RELEASE}/a.ko -> b.ko", "expected files NAME.ko"),
        ("etc/", f"expected only what lies below /lib/modules/{RELEASE}"),
    ],
)
def test_modules_of_another_release_and_other_files_are_refused(path, sentence):
    assert sentence in refusal("modules", "addons", path)


@pytest.mark.parametrize("kind", [Kind.CHAR, Kind.BLOCK, Kind.FIFO])
def test_nodes_are_refused_as_a_device_0_0_would_hide_what_lies_below(kind):
    with pytest.raises(BadExtension, match="expected files, directories and symlinks only, got a"):
        place(facts("utils", "addons"), [Entry(b"usr/x", kind)], subject="s")


def test_attributes_that_hide_what_lies_below_are_refused():
    entry = Entry(b"usr", Kind.DIRECTORY, xattrs={b"trusted.overlay.opaque": b"y"})
    with pytest.raises(BadExtension, match=r"no attributes of overlay file systems, got trusted\.overlay\.opaque"):
        place(facts("utils", "addons"), [entry], subject="s")


def test_one_place_from_two_places_of_the_image_is_refused():
    assert "expected one file for it, got two" in refusal(
        "firmware", "addons", "lib/firmware/a.bin", "usr/lib/firmware/a.bin"
    )


def test_an_empty_image_is_refused():
    assert "expected utils in the image, got no file" in refusal("utils", "addons", "usr/", "usr/bin/")


def test_module_linked_to_a_file_that_is_left_out_is_refused():
    below = f"lib/modules/{RELEASE}"
    paths = ("lib/", "lib/modules/", f"{below}/", f"{below}/modules.dep", f"{below}/z.ko => {below}/modules.dep")
    said = refusal("modules", "initrd", *paths)
    assert f"/{below}/z.ko: expected a hardlink to a file that is placed too, got {below}/modules.dep" in said
