"""A zone with an extension image of every kind: in the initrd, on the addons disk, over the image's root."""

from __future__ import annotations

import dataclasses

import pytest
from support import zoneparts
from support.extensions import converted, extension_image, program
from support.labzones import boot, log_with, wait_for
from support.tars import Member

from pipeline import task
from pipeline.assemble import stage as assemble
from pipeline.assemble.model import AssembleParams, Wanted
from pipeline.build.kernel import read_package
from pipeline.bundle import stage as bundle
from pipeline.bundle.model import ExtensionChoice, Module, ModuleWish
from pipeline.bundle.spec import load_spec
from pipeline.fetch import debian
from pipeline.fetch.model import FetchResult
from pipeline.initrd.model import InitrdResult
from pipeline.squash.model import SquashResult
from pipeline.unpack.model import UnpackResult

pytestmark = pytest.mark.xen

EARLY, LATE = "drivers/net/dummy.ko", "drivers/block/loop.ko"
SCRIPT = """
cat /proc/modules
echo "max_loop $(cat /sys/module/loop/parameters/max_loop)"
say-hello
path=$(cat /sys/module/firmware_class/parameters/path) && echo "$path: $(cat $path/card/a.bin)"
ls /lib/modules/$(uname -r)/kernel/drivers/block
touch /run/zone/ext/x
echo the end
sleep 1000
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory, nginx):
    """Two modules of Debian's kernel that its recipe leaves out: path below kernel/ -> bytes."""
    lock = debian.load(zoneparts.LOCKS / "debian-cloud.json")
    assert lock is not None
    package = next(item for item in lock.packages if item.name.startswith("linux-image-6"))
    directory = tmp_path_factory.mktemp("modules")
    deb = debian.download(task.env(), lock, [package.name])[package.name]
    read_package(task.env().store.path(deb.digest), directory, subject=package.name)
    found = {path: (directory / "kernel" / path).read_bytes() for path in (EARLY, LATE)}
    assert not {"dummy", "loop"} & {item.path.rpartition("/")[2].removesuffix(".ko") for item in nginx.modules}
    return found


def test_extensions_of_every_kind_reach_the_zone(host, store, nginx, modules, tmp_path):
    env, base = task.env(), f"lib/modules/{nginx.kernel_release}/kernel/"
    mods = {"kind": "modules", "kernel_release": nginx.kernel_release}
    tool = Member("", b"#!/bin/sh\necho a utility says hello\n", mode=0o755)
    early = Member("", program("an early utility says hello", "/init"), mode=0o755)
    own = Member("", env.store.read(zoneparts.zone_init().elf.digest), mode=0o755)
    images = {
        "init": extension_image({"init": own}, kind="init", phase="initrd"),
        "early": extension_image({"opt/early": early}, kind="utils", phase="initrd"),
        "dummy": extension_image({base + EARLY: modules[EARLY]}, phase="initrd", **mods),
        "loop": extension_image({base + LATE: modules[LATE]}, phase="addons", labels=True, provides="loop", **mods),
        "card": extension_image({"lib/firmware/card/a.bin": b"the firmware"}, kind="firmware", phase="addons"),
        "tools": extension_image({"usr/bin/say-hello": tool}, kind="utils", phase="addons", requires="loop"),
    }
    made = [converted(env, tmp_path, name, image) for name, image in images.items()]
    spec = dataclasses.replace(
        load_spec("nginx"),
        name="extended",
        ports=(),
        command=("/bin/sh", "-c", SCRIPT),
        extensions=tuple(ExtensionChoice(item.reference) for item in made),
        modules=(ModuleWish("loop", "max_loop=3"),),
        cmdline_append="rdinit=/opt/early",
    )
    kernel = task.read_result(InitrdResult, "initrd", task.slug(spec.kernel))
    unpacked = task.read_result(UnpackResult, "unpack", "nginx")
    wanted = Wanted("extended", spec.image, spec.kernel, spec.extensions, spec.modules)
    assembled = assemble.run(AssembleParams.of(wanted, kernel, unpacked, *made), env)
    assert assembled.late_modules == (Module(f"/run/zone/ext/modules/kernel/{LATE}", "max_loop=3"),)
    assert assembled.initrd[0] == made[0].segment, "the init of the extension is the one that boots"
    fetched = task.read_result(FetchResult, "fetch", "nginx")
    squashed = task.read_result(SquashResult, "squash", "nginx")
    bundle.run(bundle.BundleParams(spec, fetched, unpacked, squashed, kernel, assembled), env)
    try:
        boot(host, "extended")
        text = wait_for(lambda: log_with(host, "extended", "the end"), "output")
        early_text = log_with(host, "extended", "an early utility says hello", console=True)
    finally:
        store.untag("zones/extended")
    lines = text.splitlines()
    loaded = {line.split()[0] for line in lines if " Live " in line}
    assert {"dummy", "loop", "overlay", "squashfs"} <= loaded
    assert early_text, "the kernel started a program of the extension's segment"
    assert "a utility says hello" in lines, "it lies over the image's /usr"
    assert "max_loop 3" in lines and "loop.ko" in lines
    assert "/run/zone/ext/firmware: the firmware" in lines
    assert any("/run/zone/ext/x" in line and "Read-only file system" in line for line in lines)
