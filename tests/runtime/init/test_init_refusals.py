"""Whatever the kernel refuses init ends the boot with the reason of its step; what is passed over is listed here.

The steps run in a process with namespaces of its own, up to the fork of the agent.
"""

import os
import posix
import re
import subprocess
from pathlib import Path

import pytest
from support import cgroups, containers, zoneparts
from support.refusals import REFUSED, Refusals
from support.tools import require
from support.zonebox import loop_device

import runtime.init.layers  # noqa: F401  (what the steps import late is not there in the root they make)
from runtime.host import scratchdisk
from runtime.init import boot, kernel
from runtime.init.container import abi
from runtime.init.failure import BootFailure
from runtime.init.report import Reporter

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts"),
]
OWN = ("NEWNS", "NEWUTS", "NEWIPC", "NEWNET", "NEWCGROUP")
NETWORK = {"interface": "vif0", "mtu": 1400, "addresses": ["10.75.1.2/24"], "gateways": ["10.75.1.1"]}
PASSED_OVER = (
    r"open \('/(dev|proc)/xen/xenbus'",  # a zone without xenstore
    r"write \(2, b'zone: ",  # a console that takes nothing
)


class AgentForked(BaseException):
    """The boot has come to its end."""


@pytest.fixture
def boots(tmp_path, monkeypatch):
    """Boots a zone to which one thing is refused: what that was, and what came of it."""
    require("ip", "mksquashfs", "losetup", "mke2fs")
    containers.zsys()
    image = zoneparts.squashfs(zoneparts.small_root(tmp_path / "root", ("sh",)), tmp_path / "root.sqfs")
    (tmp_path / "addons" / "modules").mkdir(parents=True)
    addons = zoneparts.squashfs(tmp_path / "addons", tmp_path / "addons.sqfs")
    scratchdisk.make(tmp_path / "scratch", 64, "zone")
    group = Path(containers.cgroup_root(), cgroups.own("zonebox"))
    group.mkdir()
    refusals, parent = Refusals(monkeypatch), os.getpid()

    def fork():
        assert os.getpid() != parent
        raise AgentForked

    monkeypatch.setattr(posix, "fork", fork)
    with (
        loop_device(image) as root,
        loop_device(addons) as more,
        loop_device(tmp_path / "scratch", writable=True) as scratch,
    ):
        names = [path.removeprefix("/dev/") for path in (root, more, scratch)]
        launch = zoneparts.launch_json(
            root=names[0],
            addons=names[1],
            scratch=[names[2], scratchdisk.FILESYSTEM],
            disks=[names[0]],
            sysctls={"kernel.shmmax": "123456"},
            network=NETWORK | {"nameservers": [], "search": []},
            process={"argv": ["sh"]},
        )

        def boots(number):
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                said = ""
                try:
                    initrd(tmp_path / "initrd", launch, group)
                    with refusals.of(number):
                        said = outcome()
                finally:
                    os.write(writer, said.encode())
                    os._exit(0)
            os.close(writer)
            said = containers.drain(reader)
            os.close(reader)
            os.waitpid(pid, 0)
            return refusals.refused, said

        yield boots
    group.rmdir()


def initrd(place, launch, group):
    """Become a process that finds what pid 1 does: namespaces of its own, an interface, the launch data in a tmpfs."""
    (group / "cgroup.procs").write_text("0")
    kernel.unshare(sum(getattr(abi, f"CLONE_{name}") for name in OWN))
    kernel.mount("none", "/", None, abi.MS_REC | abi.MS_PRIVATE)
    subprocess.run(["ip", "link", "add", "vif0", "type", "veth", "peer", "name", "peer0"], check=True)
    place.mkdir(exist_ok=True)
    kernel.mount("tmpfs", str(place), "tmpfs", 0)
    os.chdir(place)
    os.mkdir("zone")
    Path("zone/launch.json").write_bytes(launch)
    Path("init").touch()
    kernel.move_mount(".", "/")
    os.chroot(".")
    assert sorted(os.listdir("/")) == ["init", "zone"], "what is here is going to be deleted"
    mount = kernel.mount
    # The interpreter's own program is on a disk of the machine.
    kernel.mount = lambda source, *rest: mount("/init" if source == "/proc/self/exe" else source, *rest)


def outcome():
    """Of a boot."""
    try:
        return boot.boot(Reporter(), boot.Channel())
    except BootFailure as failure:
        return f"failed {failure.reason} {failure.sentence}"
    except AgentForked:
        return "the agent is forked"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def test_whatever_is_refused_ends_the_boot_with_the_reason_of_its_step(boots):
    reasons, passed_over, number = {}, [], 0
    while True:
        number += 1
        refused, said = boots(number)
        if not refused:
            break
        if said == "the agent is forked":
            passed_over.append(refused)
            continue
        found = re.fullmatch(rf"failed ([a-z]+) (\S.*): {REFUSED}( \(.*\))?", said)
        assert found, (refused, said)
        reasons.setdefault(found[1], set()).add(refused)
    assert said == "the agent is forked" and number > 100
    assert [one for one in passed_over if not re.match("|".join(PASSED_OVER), one)] == []
    assert reasons.keys() == {
        *("mount", "launch", "internal", "files", "root", "addons", "sysctl", "volume", "network", "cgroup", "agent")
    }
    assert [one for one in reasons["internal"] if "'/dev/hvc1'" not in one] == []
