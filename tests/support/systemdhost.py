"""A Debian with systemd as its first process, in the lab's dom0: Xen, the kernel and the network are dom0's.

Its root is an image of its own, in namespaces of mounts and processes; the lab's own zoned is silenced before. What it
runs sees no channel of the lab, and so is on a real Xen host as far as it can tell.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.build import image
from pipeline.build.model import ImageParams
from pipeline.env import Env
from pipeline.pack import pack_image
from pipeline.recipe import PROJECT
from pipeline.store import Store
from runtime.host.lab.lab import Lab
from support.dom0disk import disk_in_dom0, put_in_dom0, run_in_dom0
from support.labzones import wait_for

RECIPE: dict[str, Any] = {
    "description": "a Debian host with systemd, and with what zoned asks for",
    "suite": "bookworm",
    "exclude": ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"],
    "layers": [
        {"name": "base"},
        {
            "name": "host",
            "packages": [
                *("systemd", "python3", "python3-zstandard", "python3-cffi", "libstdc++6", "libsquashfs1"),
                *("iproute2", "nftables", "netbase", "e2fsprogs", "kmod", "procps"),
            ],
            "files": [
                {
                    "path": f"/usr/local/bin/{name}",
                    "mode": "0755",
                    "content": f'#!/bin/sh\nexport PYTHONPATH=/opt/zonewright\nexec python3 -m {module} "$@"\n',
                }
                for name, module in (("zoned", "runtime.host.zoned"), ("zone", "runtime.host.cli"))
            ],
        },
    ],
    "config": {},
}
ROOT = "/run/systemdhost"
_FIRST = "$(pidof systemd | tr ' ' '\\n' | sort -n | head -n 1)"  # its children have its name, too, for a moment
UNIT = PROJECT / "os" / "xen" / "zoned.service"
_QUIET = "touch /run/zonewright/stopping; kill $(sed 's/[^0-9]*\\([0-9]*\\).*/\\1/' /run/zonewright/zoned.json)"
_MOUNT = """
set -e
mkdir -p {root}/disk {root}/over {root}/merged
mount -t squashfs -o ro {disk} {root}/disk
mount -t tmpfs tmpfs {root}/over
mkdir {root}/over/up {root}/over/work
mount -t overlay -o lowerdir={root}/disk,upperdir={root}/over/up,workdir={root}/over/work overlay {root}/merged
cd {root}/merged
cp /tmp/begin begin
mkdir -p opt/zonewright root/.cache/zonewright var/xenstored
mount --rbind /dev dev
mount --bind /opt/zonewright opt/zonewright
mount --bind {store} root/.cache/zonewright
mount --bind /run/xenstored var/xenstored
ln -sf /dev/null etc/systemd/system/systemd-udevd.service
ln -sf /dev/null etc/systemd/system/systemd-udev-trigger.service
ln -sf /dev/null etc/systemd/system/systemd-firstboot.service
echo 0123456789abcdef0123456789abcdef >etc/machine-id
cp /tmp/zoned.service etc/systemd/system/zoned.service
mkdir before
# No chroot: a process in one may not make user namespaces (user_namespaces(7)), which networks are made with.
setsid busybox unshare -p -m -i -f sh -c 'mount --make-rprivate / && pivot_root . before && exec sh /begin' \
    </dev/null >{root}/said 2>&1 &
"""
_BEGIN = """
set -e
cd /
mount -t proc proc /proc
umount -l /before
mount -t xenfs xenfs /proc/xen
mount -t sysfs sysfs /sys
mount -t tmpfs none /sys/class/virtio-ports
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/host
echo $$ >/sys/fs/cgroup/host/cgroup.procs
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/xenstored
mount --bind /var/xenstored /run/xenstored
exec env -i container=other HOME=/root LC_ALL=C.UTF-8 PATH=/usr/local/bin:/usr/sbin:/usr/bin \
    /lib/systemd/systemd --unit=basic.target
"""


class SystemdHost:
    """Commands run in it as root."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def __call__(self, command: str, *, code: int = 0) -> str:
        """What a shell command says."""
        got, said = self._run(command)
        assert got == code, (command, got, said)
        return said

    def wait(self) -> None:
        """Until systemd has started what it starts."""
        states = ("running\n", "degraded\n")
        wait_for(lambda: self._run("systemctl is-system-running")[1] in states, f"systemd that runs ({ROOT}/said)", 120)

    def _run(self, command: str) -> tuple[int, str]:
        inside = f"env HOME=/root PATH=/usr/local/bin:/usr/sbin:/usr/bin LC_ALL=C.UTF-8 sh -c '{command}'"
        return self._lab.shell(f"nsenter -t {_FIRST} -m -p -i -r -w {inside} 2>&1", timeout_s=300)

    def show(self, prop: str) -> str:
        """A property of the unit."""
        return self(f"systemctl show --value -p {prop} zoned").strip()


def built(store: Store, directory: Path) -> Path:
    """The image, as a squashfs file."""
    params = ImageParams("systemd-host", RECIPE, str(directory / "lock.json"))
    env = Env(store)
    file = directory / "host.squashfs"
    pack_image(f"oci:{store.root}:{image.run(params, env).tag}", file, env=env)
    return file


def start(lab: Lab, store: Store, file: Path, dom0_store: str) -> SystemdHost:
    """One that runs, in a lab that goes with it. file: of `built`; dom0_store: in dom0, which is root's there."""
    lab.shell(_QUIET)
    disk = disk_in_dom0(lab, store.put_file(file))
    put_in_dom0(lab, "/tmp/zoned.service", UNIT.read_text())
    put_in_dom0(lab, "/tmp/begin", _BEGIN)
    run_in_dom0(lab, _MOUNT.format(root=ROOT, disk=disk, store=dom0_store))
    host = SystemdHost(lab)
    host.wait()
    return host
