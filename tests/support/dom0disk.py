"""Things in the lab's dom0 for tests that work there: files, disks, a store of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.bundle import manifest
from pipeline.oci import Descriptor
from pipeline.store import Store
from runtime.host.lab.lab import Lab

STORE = "/tmp/store"
# A disk shows up in dom0 a moment after it was plugged in.
_FIND = """
for i in 1 2 3 4 5 6 7 8 9 10; do
  for d in /sys/block/vd*; do [ "$(cat $d/serial)" = {serial} ] && echo /dev/${{d##*/}} && exit 0; done
  sleep 1
done; exit 1
"""
_MOUNT = f"""
mkdir -p /tmp/disk {STORE} /tmp/over &&
mount -t squashfs -o ro {{disk}} /tmp/disk && mount -t tmpfs tmpfs /tmp/over && mkdir /tmp/over/up /tmp/over/work &&
mount -t overlay -o lowerdir=/tmp/disk,upperdir=/tmp/over/up,workdir=/tmp/over/work overlay {STORE}
"""
_UNMOUNT = f"umount {STORE}; umount /tmp/over; umount /tmp/disk"


def run_in_dom0(lab: Lab, command: str) -> str:
    """What a shell command says, which must not fail."""
    code, said = lab.shell(command, timeout_s=300)
    assert code == 0, (command, said)
    return said


def put_in_dom0(lab: Lab, path: str, text: str) -> None:
    """Write a file there."""
    code, said = lab.shell(f"cat >{path}", input=text)
    assert code == 0, said


def disk_in_dom0(lab: Lab, blob: Descriptor) -> str:
    """A blob's disk there: its device."""
    return run_in_dom0(lab, _FIND.format(serial=lab.attach(blob))).strip()


@contextmanager
def store_in_dom0(lab: Lab, store: Store, directory: Path) -> Iterator[str]:
    """A store with the nginx bundle in it: the path there. directory: of this machine, to work in."""
    descriptor, bundle = manifest.find(store, "nginx")
    small = Store(directory / "store")
    config = Descriptor.from_json(store.read_json(descriptor.digest)["config"])
    for blob in (*manifest.parts(bundle), config, descriptor):
        small.path(blob.digest).hardlink_to(store.path(blob.digest))
    small.tag("zones/nginx", descriptor)
    tar = subprocess.run(["tar", "-C", small.root, "-cf", "-", "."], check=True, capture_output=True).stdout
    image = directory / "store.squashfs"
    subprocess.run(["tar2sqfs", "-q", "-f", "-c", "lz4", image], input=tar, check=True)
    disk = store.put_file(image)
    try:
        run_in_dom0(lab, _MOUNT.format(disk=disk_in_dom0(lab, disk)))
        yield STORE
    finally:
        run_in_dom0(lab, _UNMOUNT)
        lab.detach(str(disk.digest))
        store.path(disk.digest).unlink()
