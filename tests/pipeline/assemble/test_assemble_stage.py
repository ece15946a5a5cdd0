"""A zone's parts put together: segments, clashes, modules in load order, the one addons disk."""

import lzma
import subprocess

import pytest
from support.extensions import RELEASE, VERMAGIC, converted, extension_image, module
from support.tars import Member, image_of, tar_of, write_layout
from support.tools import needs

from pipeline import fetch, newc, unpack
from pipeline.addons import Addons
from pipeline.assemble import AssembleParams, run
from pipeline.assemble.errors import Clash, Misfit, NoSuchModule
from pipeline.assemble.model import Wanted
from pipeline.bundle.model import ADDONS_SQUASHFS, INITRD_SEGMENT, ExtensionChoice, Module, ModuleWish
from pipeline.env import Env
from pipeline.errors import StoreDamaged
from pipeline.initrd.model import InitrdResult
from pipeline.initrd.stage import base_segment, modules_segment
from pipeline.kmodule import BadModule
from pipeline.squashfs import squash_entries
from pipeline.store import Store
from pipeline.tree import Entry, Kind

pytestmark = needs("cpio")

ROOT = {"usr/": None, "usr/bin/": None, "usr/bin/sh": b"sh", "usr/lib64": "-> lib", "etc/": None}
KERNEL_ADDONS = {
    "modules/kernel/helper.ko": module("helper"),
    "modules/kernel/loop.ko": module("loop", depends="helper"),
    "modules/kernel/packed.ko.xz": lzma.compress(module("packed"), check=lzma.CHECK_CRC32),
    "modules/modules.builtin": b"kernel/fs/ext4.ko\n",
    "firmware/own.bin": b"own",
}
LIB = f"lib/modules/{RELEASE}/"


@pytest.fixture
def env(tmp_path):
    return Env(Store(tmp_path / "store"))


class Zone:
    """A zone of a made-up kernel and image, to which a test adds extensions."""

    def __init__(self, env, directory, addons=KERNEL_ADDONS):
        self.env, self.directory = env, directory
        (directory / "init").write_bytes(b"\x7fELF")
        blobs = [base_segment(directory / "init"), modules_segment({"overlay": module("overlay")})]
        base, modules = (env.store.put(data, INITRD_SEGMENT) for data in blobs)
        elf = env.store.put(b"elf")
        squashed = self._squashed(addons) if addons else None
        boot = (Module("/modules/overlay.ko"),)
        self.kernel = InitrdResult(elf, RELEASE, base, modules, boot, squashed, VERMAGIC.strip())
        self.choices, self.results, self.wishes = [], [], ()
        layout = write_layout(directory / "root", {"x": image_of(tar_of(ROOT))})
        fetched = fetch.run(fetch.FetchParams(f"oci:{layout}:x"), env)
        self.image = unpack.run(unpack.UnpackParams(fetched), env)

    def _squashed(self, tree):
        paths = dict(tree)
        parents = {path.rsplit("/", depth)[0] for path in paths for depth in range(1, path.count("/") + 1)}
        names = sorted([*paths, *parents, ""], key=lambda path: path.split("/") if path else [])
        entries = (
            (Entry(name.encode(), Kind.FILE, size_bytes=len(paths[name])), [paths[name]])
            if name in paths
            else (Entry(name.encode(), Kind.DIRECTORY, 0o755), ())
            for name in names
        )
        return squash_entries(self.env.store, entries, media_type=ADDONS_SQUASHFS)

    def add(self, name, tree, *, override=False, image=None, **facts):
        result = converted(self.env, self.directory, name, image or extension_image(tree, **facts))
        self.choices.append(ExtensionChoice(result.reference, override))
        self.results.append(result)
        return self

    def wish(self, *wishes):
        self.wishes = tuple(wishes)
        return self

    def params(self):
        wanted = Wanted("web", "recipe:root", "recipe:k", tuple(self.choices), self.wishes)
        return AssembleParams.of(wanted, self.kernel, self.image, *self.results)

    def made(self):
        return run(self.params(), self.env)

    def disk(self):
        """The addons disk: path -> bytes of a file, None for a directory, "-> target" for a symlink."""
        made = self.made().addons
        with Addons(self.env.store.path(made.digest), subject="disk") as disk:
            return {
                entry.path.decode(): b"".join(disk.content(entry.path.decode()))
                if entry.kind is Kind.FILE
                else None
                if entry.kind is Kind.DIRECTORY
                else f"-> {entry.target.decode()}"
                for entry in disk.entries()
            }


@pytest.fixture
def zone(env, tmp_path):
    return Zone(env, tmp_path)


UTILS = {"kind": "utils", "phase": "initrd"}
OVER = {"kind": "utils", "phase": "addons"}
EARLY = {"kind": "modules", "phase": "initrd", "kernel_release": RELEASE}
LATE = {"kind": "modules", "phase": "addons", "kernel_release": RELEASE}


# -- segments ----------------------------------------------------------------------------------------------------------


def test_a_zone_without_extensions_takes_the_kernels_parts_as_they_are(zone):
    made = zone.made()
    assert made.initrd == (zone.kernel.base, zone.kernel.modules_segment)
    assert (made.modules, made.addons, made.late_modules) == (zone.kernel.modules, zone.kernel.addons, ())


def test_segments_follow_base_and_modules_in_order_and_nothing_is_packed_again(zone):
    zone.add("late", {"bin/a": b"a"}, **UTILS, order="9").add("first", {"bin/b": b"b"}, **UTILS)
    made = zone.made()
    late, first = zone.results
    assert made.initrd == (zone.kernel.base, zone.kernel.modules_segment, first.segment, late.segment)
    assert [item.reference for item in made.extensions] == [first.reference, late.reference]
    assert all(part.size_bytes % 4 == 0 for part in made.initrd)
    assert made.addons == zone.kernel.addons


def test_the_kernels_way_of_reading_finds_every_file_of_every_segment(zone, tmp_path):
    zone.add("a", {"bin/a": Member("", b"a", mode=0o755)}, **UTILS).add("b", {"lib/b": "-> ../bin/a"}, **UTILS)
    root = tmp_path / "root-of-zone"
    root.mkdir()
    for part in zone.made().initrd:  # cpio stops at a trailer, which the kernel does not
        data = zone.env.store.read(part.digest)
        subprocess.run(["cpio", "-idmu", "--quiet", "--no-absolute-filenames"], input=data, cwd=root, check=True)
    assert (root / "bin" / "a").read_bytes() == b"a" and (root / "lib" / "b").readlink().name == "a"
    assert (root / "init").read_bytes() == b"\x7fELF" and (root / "modules" / "overlay.ko").exists()


def test_an_init_extension_replaces_the_base(zone):
    zone.add("own", {"init": Member("", b"\x7fELF own", mode=0o755)}, kind="init", phase="initrd")
    made = zone.made()
    assert made.initrd == (zone.results[0].segment, zone.kernel.modules_segment)
    assert {entry.path: entry.data for entry in newc.read(zone.env.store.read(made.initrd[0].digest))}["init"] == (
        b"\x7fELF own"
    )


# -- clashes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("facts", [UTILS, OVER])
def test_a_path_twice_is_refused_with_both_images_unless_the_later_may_override(zone, facts):
    zone.add("one", {"usr/bin/t": b"1"}, **facts).add("two", {"usr/bin/t": b"2"}, **facts)
    one, two = (result.reference for result in zone.results)
    with pytest.raises(Clash) as caught:
        zone.made()
    assert str(caught.value).startswith(f"zone web: /usr/bin/t: expected one image that has it, got {one} and {two} (")
    zone.choices[1] = ExtensionChoice(two, override=True)
    zone.made()
    zone.choices = [ExtensionChoice(one, override=True), ExtensionChoice(two)]
    with pytest.raises(Clash):
        zone.made()


@pytest.mark.parametrize("facts", [UTILS, OVER])
def test_a_directory_against_a_symlink_is_refused_even_with_override(zone, facts):
    zone.add("one", {"opt/x/": None, "opt/x/f": b"1"}, **facts).add("two", {"opt/x": "-> y"}, override=True, **facts)
    with pytest.raises(Clash, match=r"opt/x: expected the same type .*, got a directory in .*one:x and a symlink in"):
        zone.made()


def test_a_hard_link_of_another_image_is_never_overridden(zone):
    zone.add("one", {"opt/a": b"1", "opt/b": "=> opt/a"}, **UTILS).add("two", {"opt/a": b"2"}, override=True, **UTILS)
    with pytest.raises(Clash, match=r"/opt/a: expected no hard link .* got a hard link in .*one:x, to be replaced by"):
        zone.made()


def test_a_module_segment_is_kept_from_an_extension_of_utils(zone):
    zone.add("one", {LIB + "overlay.ko": module("overlay")}, **EARLY)
    with pytest.raises(Clash, match=r"module overlay: expected one image that has it, got recipe:k and oci:"):
        zone.made()
    zone.choices[0] = ExtensionChoice(zone.choices[0].image, override=True)
    assert zone.made().modules == (Module("/modules/overlay.ko"),)


def test_what_the_image_itself_has_is_not_replaced_unasked(zone):
    zone.add("one", {"usr/bin/sh": b"other"}, **OVER)
    with pytest.raises(Clash, match=r"/usr/bin/sh: expected one image that has it, got image recipe:root and oci:"):
        zone.made()
    zone.choices[0] = ExtensionChoice(zone.choices[0].image, override=True)
    assert zone.disk()["overlays/workload/usr/bin/sh"] == b"other"


def test_a_directory_over_a_symlink_of_the_image_is_refused(zone):
    zone.add("one", {"usr/lib64/x.so": b""}, override=True, **OVER)
    with pytest.raises(Clash, match=r"/usr/lib64: .* got a symlink in image recipe:root and a directory in oci:"):
        zone.made()


# -- the addons disk ---------------------------------------------------------------------------------------------------


def test_kernel_and_extensions_share_one_disk(zone):
    zone.add("fw", {"lib/firmware/card/a.bin": b"fw"}, kind="firmware", phase="addons")
    zone.add("tools", {"usr/bin/t": b"t", "usr/bin/u": "-> t"}, **OVER)
    zone.add("mods", {LIB + "extra/x.ko.xz": lzma.compress(module("x")), LIB + "y.ko": module("y")}, **LATE)
    assert zone.disk() == {
        **dict.fromkeys(("firmware", "firmware/card", "modules", "modules/kernel", "modules/extra")),
        **dict.fromkeys(("overlays", "overlays/workload", "overlays/workload/usr", "overlays/workload/usr/bin")),
        **KERNEL_ADDONS,
        "firmware/card/a.bin": b"fw",
        "modules/extra/x.ko": module("x"),
        "modules/y.ko": module("y"),
        "overlays/workload/usr/bin/t": b"t",
        "overlays/workload/usr/bin/u": "-> t",
    }


def test_a_kernel_without_addons_gets_a_disk_of_the_extensions(env, tmp_path):
    zone = Zone(env, tmp_path, addons=None).add("t", {"usr/bin/t": b"t"}, **OVER)
    assert zone.disk()["overlays/workload/usr/bin/t"] == b"t"


def test_the_disk_is_the_same_bytes_in_another_store_and_is_made_once(tmp_path, monkeypatch):
    digests = set()
    for name, split in (("one", False), ("two", True)):
        (tmp_path / name).mkdir()
        zone = Zone(Env(Store(tmp_path / name / "store")), tmp_path / name)
        tree = {"usr/": None, "usr/bin/": None, "usr/bin/t": b"t" * 5000, "usr/bin/u": "=> usr/bin/t"}
        zone.add("tools", tree, image=extension_image(tree, split=split, **OVER))
        digests.add(zone.made().addons)
    assert len(digests) == 1
    monkeypatch.setattr("pipeline.assemble.stage.write_addons", None)
    assert zone.made().addons in digests


def test_damaged_addons_of_the_kernel_are_named(zone):
    zone.env.store.path(zone.kernel.addons.digest).write_bytes(b"hsqs")
    with pytest.raises(StoreDamaged, match="addons sha256:"):
        zone.add("t", {"usr/bin/t": b"t"}, **OVER).made()


# -- modules -----------------------------------------------------------------------------------------------------------


def test_a_wished_module_of_the_kernel_is_loaded_late_after_what_it_needs(zone):
    made = zone.wish(ModuleWish("loop", "max_loop=8")).made()
    assert made.modules == zone.kernel.modules
    assert made.late_modules == (
        Module("/run/zone/ext/modules/kernel/helper.ko"),
        Module("/run/zone/ext/modules/kernel/loop.ko", "max_loop=8"),
    )
    assert made.addons == zone.kernel.addons, "nothing had to be added to the kernel's own disk"


def test_a_compressed_module_of_the_kernel_gets_a_plain_copy(zone):
    made = zone.wish(ModuleWish("packed")).made()
    assert made.late_modules == (Module("/run/zone/ext/modules/kernel/packed.ko"),)
    disk = zone.disk()
    assert disk["modules/kernel/packed.ko"] == module("packed") and "modules/kernel/packed.ko.xz" in disk


def test_boot_modules_take_parameters_and_stay_in_place(zone):
    made = zone.wish(ModuleWish("overlay", "metacopy=on")).made()
    assert (made.modules, made.late_modules) == ((Module("/modules/overlay.ko", "metacopy=on"),), ())


def test_initrd_modules_are_all_loaded_and_wait_for_the_disk_only_where_they_must(zone):
    tree = {LIB + "b.ko": module("b", depends="a"), LIB + "a.ko": module("a")}
    zone.add("early", tree | {LIB + "c.ko": module("c", depends="b,helper")}, **EARLY)
    made = zone.made()
    assert [item.path for item in made.modules] == ["/modules/overlay.ko", "/modules/a.ko", "/modules/b.ko"]
    assert [item.path for item in made.late_modules] == [
        "/run/zone/ext/modules/kernel/helper.ko",
        "/modules/c.ko",
    ]


def test_addons_modules_are_loaded_when_the_spec_names_them(zone):
    zone.add("late", {LIB + "x/m.ko": module("m", depends="loop"), LIB + "n.ko": module("n")}, **LATE)
    assert zone.made().late_modules == ()
    made = zone.wish(ModuleWish("m")).made()
    assert [item.path.removeprefix("/run/zone/ext/modules/") for item in made.late_modules] == [
        "kernel/helper.ko",
        "kernel/loop.ko",
        "x/m.ko",
    ]


def test_a_module_that_is_nowhere_is_named_with_who_needs_it(zone):
    with pytest.raises(NoSuchModule, match=r"zone web: module nope: expected it in kernel recipe:k or an extension"):
        zone.wish(ModuleWish("nope")).made()
    zone.add("late", {LIB + "m.ko": module("m", depends="gone")}, **LATE).wish(ModuleWish("m"))
    with pytest.raises(NoSuchModule, match=r"module gone: .* got none \(m of oci:.*late:x needs it\)"):
        zone.made()


def test_a_module_that_is_built_in_is_there_but_takes_no_parameters(zone):
    assert zone.wish(ModuleWish("ext4")).made().late_modules == ()
    with pytest.raises(NoSuchModule, match=r"got a part of the kernel \(put ext4\.x=1 into kernel_options\.cmdline"):
        zone.wish(ModuleWish("ext4", "x=1")).made()


def test_another_vermagic_is_refused(zone):
    zone.add("m", {LIB + "m.ko": module("m", vermagic=f"{RELEASE} SMP")}, **LATE)
    with pytest.raises(Misfit, match=rf"module m of oci:.* expected vermagic '{VERMAGIC.strip()}' as recipe:k"):
        zone.made()


def test_modules_of_another_release_are_refused_before_anything_else(zone):
    tree = {"lib/modules/5.10/m.ko": module("m")}
    zone.add("m", tree, kind="modules", phase="addons", kernel_release="5.10")
    with pytest.raises(Misfit, match=rf"expected modules for the zone's kernel {RELEASE}, got modules for 5\.10"):
        zone.made()


def test_one_module_from_two_images_is_refused(zone):
    zone.add("one", {LIB + "m.ko": module("m")}, **LATE).add("two", {LIB + "up/m.ko": module("m")}, **LATE)
    with pytest.raises(Clash, match=r"module m: expected one image that has it, got oci:.*one:x and oci:.*two:x"):
        zone.made()
    zone.choices[1] = ExtensionChoice(zone.choices[1].image, override=True)
    assert zone.wish(ModuleWish("m")).made().late_modules == (Module("/run/zone/ext/modules/up/m.ko"),)


def test_modules_that_need_each_other_are_refused(zone):
    zone.add("m", {LIB + "a.ko": module("a", depends="b"), LIB + "b.ko": module("b", depends="a")}, **EARLY)
    with pytest.raises(BadModule, match="a > b > a"):
        zone.made()


def test_a_boot_module_cannot_come_from_the_disk(zone):
    zone.add("m", {LIB + "overlay.ko": module("overlay")}, override=True, **LATE)
    with pytest.raises(Clash, match="expected phase initrd, as it is loaded before there is a disk"):
        zone.made()
