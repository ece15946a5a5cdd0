"""The zone's agent, run by the real init in namespaces, with the host's end of the channel in the test."""

import contextlib

import pytest
from support import zonebox, zoneparts
from support.zonebox import IDLE


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    directory = tmp_path_factory.mktemp("image")
    programs = ("stty", "tty", "head", "wc", "env", "perl", "touch", "mkdir", "rm")
    root = zoneparts.small_root(directory / "root", (*zonebox.PROGRAMS, *programs))
    (root / "etc" / "passwd").write_text("root:x:0:0:r:/root:/bin/sh\nweb:x:33:44:w:/srv:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\nwww:x:44:\nlogs:x:55:web\n")
    (root / "bin" / "plain").write_text("no x bit\n")
    (root / "data").mkdir()
    (root / "data" / "up").symlink_to("../../..")
    (root / "data" / "absolute").symlink_to("/etc")
    return zoneparts.squashfs(root, directory / "root.sqfs")


@pytest.fixture
def start(initrd, image, tmp_path):
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(zonebox.loop_device(image)).removeprefix("/dev/")

        def run(process=None, *, hello=True, **launch):
            launch = {"process": process, "root": device, "overlay_size_mib": 64} | launch
            zone = stack.enter_context(zonebox.zone(tmp_path, initrd, channel=True, **launch))
            if hello:
                zone.host.hello()
            return zone

        yield run


@pytest.fixture(scope="module")
def zone(initrd, image, tmp_path_factory):
    """A zone whose workload idles; its session is begun anew by each test that wants one."""
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(zonebox.loop_device(image)).removeprefix("/dev/")
        directory = tmp_path_factory.mktemp("zone")
        yield stack.enter_context(
            zonebox.zone(directory, initrd, channel=True, process=IDLE, root=device, overlay_size_mib=64)
        )


@pytest.fixture
def host(zone):
    zone.host.hello()
    return zone.host
