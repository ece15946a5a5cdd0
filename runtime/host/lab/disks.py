"""Blobs of the store as disks of the running dom0: read-only, hot-plugged, one each however many zones use it.

QEMU's own lists are the truth, so nothing has to be kept in step: a node is named after its digest and its file is the
blob. Who may be using a disk is for the caller to know: QEMU unplugs one under a running zone without a word.
"""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.errors import StoreDamaged
from pipeline.oci import Descriptor
from pipeline.store import Store
from runtime.host.lab.errors import LabFailed, NoSlot, QmpError
from runtime.host.lab.qmp import Qmp

# A virtio disk's serial number has 20 bytes. Source: Virtual I/O Device specification, VIRTIO_BLK_T_GET_ID.
SERIAL_DIGITS = 20
UNPLUG_TIMEOUT_S = 60.0
HEX = re.compile(r"[0-9a-f]{64}")


def serial_of(digest_hex: str) -> str:
    """The serial number dom0 sees."""
    return digest_hex[:SERIAL_DIGITS]


def attached(qmp: Qmp) -> list[str]:
    """The digests (hex) of all blobs that are plugged in."""
    found = set()
    for node in qmp.execute("query-named-block-nodes"):
        name = Path(str(node.get("file", ""))).name
        if node.get("node-name") == node_name(name) and HEX.fullmatch(name):
            found.add(name)
    return sorted(found)


def node_name(digest_hex: str) -> str:
    """The name of a blob's block node; QEMU takes 31 characters."""
    return f"blob-{serial_of(digest_hex)}"


def device_name(digest_hex: str) -> str:
    """The identifier of a blob's device."""
    return f"disk-{serial_of(digest_hex)}"


def devices(qmp: Qmp) -> set[str]:
    """The identifiers of all devices that were given one."""
    return {str(item["name"]) for item in qmp.execute("qom-list", {"path": "/machine/peripheral"})}


def plug(qmp: Qmp, store: Store, blob: Descriptor) -> str:
    """Plug a blob in, unless it is; returns its serial number.

    Raises:  StoreDamaged where the blob is missing or altered; NoSlot; QmpError.
    """
    digest = blob.digest.hex
    if digest not in attached(qmp):
        if not store.verify(blob.digest):
            raise StoreDamaged(
                f"store object {blob.digest}",
                expected="bytes of that digest",
                got="none",
                hint="build again to heal it",
            )
        source = {"driver": "file", "filename": str(store.path(blob.digest)), "read-only": True}
        qmp.execute(
            "blockdev-add", {"driver": "raw", "node-name": node_name(digest), "read-only": True, "file": source}
        )
    if device_name(digest) not in devices(qmp):
        device = {"driver": "virtio-blk-pci", "drive": node_name(digest), "id": device_name(digest)}
        try:
            qmp.execute("device_add", device | {"serial": serial_of(digest)})
        except QmpError as error:
            count = len(attached(qmp)) - 1
            qmp.execute("blockdev-del", {"node-name": node_name(digest)})
            if "no slot" in error.got:
                raise NoSlot(
                    "the lab", expected="a free slot for a disk", got=f"{count} disks plugged in", hint="stop a zone"
                ) from error
            raise
    return serial_of(digest)


def unplug(qmp: Qmp, digest_hex: str, *, timeout_s: float = UNPLUG_TIMEOUT_S) -> None:
    """Take a blob's disk out of dom0; returns when it is out. No error when it was not in.

    Two events come per disk, the first for its virtio half: only the one that names the device means that the block
    node is free. Raises LabFailed when dom0 does not let go in time.
    """
    name = device_name(digest_hex)
    if name in devices(qmp):
        try:
            qmp.execute("device_del", {"id": name})
        except QmpError as error:
            if "process of unplug" not in error.got:
                raise
        try:
            qmp.wait_event(
                lambda event: event["event"] == "DEVICE_DELETED" and event.get("data", {}).get("device") == name,
                timeout_s=timeout_s,
                what=f"the unplugging of {name}",
            )
        except LabFailed:
            if name in devices(qmp):
                raise
    if digest_hex in attached(qmp):
        qmp.execute("blockdev-del", {"node-name": node_name(digest_hex)})
