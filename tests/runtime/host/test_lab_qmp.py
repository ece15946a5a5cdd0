"""The QMP client against a scripted QEMU."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.oci import Descriptor, Digest
from pipeline.store import Store
from runtime.host.lab import disks, ports, statefile
from runtime.host.lab.errors import LabFailed, NoSlot, PortTaken, QmpError, StateDiskInUse
from runtime.host.lab.ports import HostPort
from runtime.host.lab.qmp import Qmp

GREETING = {"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": []}}


class FakeQemu:
    """Greets, then answers every command with what the script says; keeps the commands."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.script: dict[str, list[list[dict[str, Any]]]] = {}
        self.always: dict[str, list[dict[str, Any]]] = {"qmp_capabilities": [{"return": {}}]}
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self._say(GREETING)
        for line in self.theirs.makefile("rb"):
            request = json.loads(line)
            command = request["execute"]
            self.commands.append((command, request["arguments"]))
            queue = self.script.get(command, [])
            for document in queue.pop(0) if queue else self.always.get(command, [{"return": {}}]):
                if document == {"close": True}:
                    self.theirs.shutdown(socket.SHUT_RDWR)
                    return
                self._say(document)

    def _say(self, document: dict[str, Any]) -> None:
        self.theirs.sendall(json.dumps(document).encode() + b"\r\n")

    def names(self) -> list[str]:
        return [name for name, _ in self.commands if name != "qmp_capabilities"]


@pytest.fixture
def fake() -> FakeQemu:
    return FakeQemu()


@pytest.fixture
def qmp(fake: FakeQemu) -> Iterator[Qmp]:
    with Qmp(fake.ours, timeout_s=120) as client:
        yield client


def error(text: str) -> list[dict[str, Any]]:
    return [{"error": {"class": "GenericError", "desc": text}}]


def deleted(**data: str) -> dict[str, Any]:
    return {"event": "DEVICE_DELETED", "data": data}


def test_values_come_back_and_events_in_between_are_kept(fake: FakeQemu, qmp: Qmp) -> None:
    fake.script["query-status"] = [[{"event": "STOP"}, {"return": {"status": "paused"}}]]
    assert qmp.execute("query-status") == {"status": "paused"}
    assert qmp.wait_event(lambda event: event["event"] == "STOP", timeout_s=120, what="stop") == {"event": "STOP"}


def test_an_error_is_a_sentence_with_the_command(fake: FakeQemu, qmp: Qmp) -> None:
    fake.script["device_add"] = [error("Duplicate device ID 'x'")]
    with pytest.raises(QmpError, match="QEMU, device_add: Duplicate device ID 'x'"):
        qmp.execute("device_add")


def test_a_qemu_that_ends_is_said_so(fake: FakeQemu, qmp: Qmp) -> None:
    fake.script["cont"] = [[{"close": True}]]
    with pytest.raises(LabFailed, match="it ended"):
        qmp.execute("cont")


def test_no_answer_within_the_deadline_is_said_so(fake: FakeQemu, qmp: Qmp) -> None:
    fake.script["stop"] = [[]]
    with pytest.raises(LabFailed, match="expected an answer to stop in time"):
        qmp.execute("stop", timeout_s=0.1)


def test_text_errors_of_the_human_monitor_are_errors(fake: FakeQemu, qmp: Qmp) -> None:
    fake.script["human-monitor-command"] = [[{"return": "Could not set up host forwarding rule 'tcp:x'\r\n"}]]
    with pytest.raises(QmpError, match="hostfwd_add: Could not set up"):
        qmp.human("hostfwd_add n0 tcp:x")


def test_a_greeting_that_is_none_is_refused() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b'{"hello": 1}\n')
    with pytest.raises(QmpError, match="expected a QMP greeting"):
        Qmp(ours, timeout_s=120)


# -- disks -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Any) -> Store:
    return Store(tmp_path / "store")


def plugged(store: Store, blob: Descriptor) -> list[dict[str, Any]]:
    name = disks.node_name(blob.digest.hex)
    nodes = [{"node-name": name, "file": str(store.path(blob.digest))}, {"node-name": "#block1", "file": "/x"}]
    return [{"return": nodes}]


def test_a_disk_is_plugged_in_read_only_with_the_serial_of_its_digest(fake: FakeQemu, qmp: Qmp, store: Store) -> None:
    blob = store.put(b"bytes")
    fake.always |= {"query-named-block-nodes": [{"return": []}], "qom-list": [{"return": []}]}
    assert disks.plug(qmp, store, blob) == blob.digest.hex[:20]
    arguments = dict(fake.commands)
    assert arguments["blockdev-add"]["read-only"] is True
    assert arguments["blockdev-add"]["file"]["filename"] == str(store.path(blob.digest))
    assert arguments["device_add"]["serial"] == blob.digest.hex[:20]


def test_a_disk_that_is_plugged_in_is_not_plugged_in_twice(fake: FakeQemu, qmp: Qmp, store: Store) -> None:
    blob = store.put(b"bytes")
    fake.always["query-named-block-nodes"] = plugged(store, blob)
    fake.always["qom-list"] = [{"return": [{"name": disks.device_name(blob.digest.hex)}]}]
    disks.plug(qmp, store, blob)
    assert not {"blockdev-add", "device_add"} & set(fake.names())
    assert disks.attached(qmp) == [blob.digest.hex]


def test_a_node_without_device_left_by_a_killed_client_is_completed(fake: FakeQemu, qmp: Qmp, store: Store) -> None:
    blob = store.put(b"bytes")
    fake.always |= {"query-named-block-nodes": plugged(store, blob), "qom-list": [{"return": []}]}
    disks.plug(qmp, store, blob)
    assert "device_add" in fake.names()
    assert "blockdev-add" not in fake.names()


def test_no_free_slot_is_a_sentence_and_leaves_no_node(fake: FakeQemu, qmp: Qmp, store: Store) -> None:
    blob = store.put(b"bytes")
    fake.always["qom-list"] = [{"return": []}]
    fake.script["query-named-block-nodes"] = [[{"return": []}], plugged(store, blob)]
    fake.script["device_add"] = [error("PCI: no slot/function available for virtio-blk-pci, all in use or reserved")]
    with pytest.raises(NoSlot, match="expected a free slot for a disk, got 0 disks plugged in"):
        disks.plug(qmp, store, blob)
    assert fake.names()[-1] == "blockdev-del"


def test_a_damaged_blob_is_never_shown_to_dom0(fake: FakeQemu, qmp: Qmp, store: Store) -> None:
    blob = store.put(b"bytes")
    store.path(blob.digest).chmod(0o644)
    store.path(blob.digest).write_bytes(b"other")
    fake.always |= {"query-named-block-nodes": [{"return": []}], "qom-list": [{"return": []}]}
    with pytest.raises(Exception, match="bytes of that digest"):
        disks.plug(qmp, store, blob)
    assert "blockdev-add" not in fake.names()


def test_unplugging_waits_for_the_event_of_the_device_not_of_its_virtio_half(
    fake: FakeQemu, qmp: Qmp, store: Store
) -> None:
    blob = store.put(b"bytes")
    device = disks.device_name(blob.digest.hex)
    fake.always["qom-list"] = [{"return": [{"name": device}]}]
    fake.always["query-named-block-nodes"] = plugged(store, blob)
    first = deleted(path=f"/machine/peripheral/{device}/virtio-backend")
    other = deleted(device="disk-other", path="/machine/peripheral/disk-other")
    fake.script["device_del"] = [[{"return": {}}, first, other, deleted(device=device)]]
    disks.unplug(qmp, blob.digest.hex, timeout_s=120)
    assert fake.names()[-2:] == ["query-named-block-nodes", "blockdev-del"]


def test_a_guest_that_does_not_let_go_keeps_its_disk(fake: FakeQemu, qmp: Qmp, store: Store) -> None:
    blob = store.put(b"bytes")
    device = disks.device_name(blob.digest.hex)
    fake.always["qom-list"] = [{"return": [{"name": device}]}]
    fake.script["device_del"] = [[{"return": {}}, deleted(path=f"/machine/peripheral/{device}/virtio-backend")]]
    with pytest.raises(LabFailed, match="expected an answer to the unplugging"):
        disks.unplug(qmp, blob.digest.hex, timeout_s=0.2)
    assert "blockdev-del" not in fake.names()


def test_unplugging_what_is_not_there_does_nothing(fake: FakeQemu, qmp: Qmp) -> None:
    fake.always |= {"query-named-block-nodes": [{"return": []}], "qom-list": [{"return": []}]}
    disks.unplug(qmp, Digest.of(b"x").hex)
    assert not {"device_del", "blockdev-del"} & set(fake.names())


# -- ports -------------------------------------------------------------------------------------------------------------

USERNET = (
    "Hub -1 (n0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
    "  TCP[HOST_FORWARD]  24       127.0.0.1 18090       10.0.2.15  8090     0     0\r\n"
    "  TCP[HOST_FORWARD]  25               * 18091       10.0.2.15  8091     0     0\r\n"
    "  TCP[ESTABLISHED]   26       127.0.0.1 18090       10.0.2.15  8090     0     0\r\n"
    "  UDP[HOST_FORWARD]  27       127.0.0.1 18090       10.0.2.15  8092     0     0\r\n"
    "  UDP[236 sec]       28       10.0.2.15 41000       10.0.2.3    53     0     0\r\n"
)


def test_forwards_are_read_from_qemus_list(fake: FakeQemu, qmp: Qmp) -> None:
    fake.always["human-monitor-command"] = [{"return": USERNET}]
    assert ports.forwards(qmp) == {
        HostPort("127.0.0.1", 18090): 8090,
        HostPort("0.0.0.0", 18091): 8091,
        HostPort("127.0.0.1", 18090, "udp"): 8092,
    }


def test_a_forward_that_is_there_is_not_added_again_but_another_target_is_refused(fake: FakeQemu, qmp: Qmp) -> None:
    fake.always["human-monitor-command"] = [{"return": USERNET}]
    for end, dom0_port in ((HostPort("127.0.0.1", 18090), 8090), (HostPort("127.0.0.1", 18090, "udp"), 8092)):
        fake.commands.clear()
        ports.add(qmp, end, dom0_port)
        assert len(fake.names()) == 1
        with pytest.raises(PortTaken, match=f"{end}: expected it free, got published by another zone"):
            ports.add(qmp, end, 9999)


@pytest.mark.parametrize(("protocol", "shown"), [("tcp", ""), ("udp", "/udp")])
def test_a_port_in_use_is_named_before_qemu_is_asked(fake: FakeQemu, qmp: Qmp, protocol: str, shown: str) -> None:
    fake.always["human-monitor-command"] = [{"return": ""}]
    with socket.socket(type=socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port}{shown} on 127.0.0.1: expected it free, got in use"):
            ports.add(qmp, HostPort("127.0.0.1", port, protocol), 80)
        assert len(fake.names()) == 1
        # The other protocol's port of this number is another port.
        other = "tcp" if protocol == "udp" else "udp"
        ports.add(qmp, HostPort("127.0.0.1", port, other), 80)
        fake.always["human-monitor-command"] = [{"return": "host forwarding rule for it removed\r\n"}]
        ports.remove(qmp, HostPort("127.0.0.1", port, other))
    lines = [arguments["command-line"] for _, arguments in fake.commands if arguments]
    assert lines[-2:] == [f"hostfwd_add n0 {other}:127.0.0.1:{port}-:80", f"hostfwd_remove n0 {other}:127.0.0.1:{port}"]


def test_addresses_qemu_cannot_forward_from_are_refused() -> None:
    with pytest.raises(ports.BadAddress, match="expected an IPv4 address"):
        ports.find_free([HostPort("::1", 8080)])
    with pytest.raises(ports.BadAddress, match="expected an address of this machine"):
        ports.find_free([HostPort("192.0.2.1", 8080)])


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_free_ports_are_other_ones_and_those_named_must_not_be_in_each_others_way(protocol: str) -> None:
    first, second = ports.find_free([HostPort("127.0.0.1", 0, protocol)] * 2)
    assert first and second and first != second
    named = HostPort("127.0.0.1", first, protocol)
    assert ports.find_free([named]) == [first]
    with pytest.raises(PortTaken, match="expected it free"):
        ports.find_free([named, HostPort("0.0.0.0", first, protocol)])


# -- the state disk and the way to zoned -------------------------------------------------------------------------------


def test_a_state_disk_is_made_sparse_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "lab" / "state.img"
    assert statefile.make(path) is True
    with open(path, "r+b") as file:
        file.write(b"what zoned kept")
    assert statefile.make(path) is False
    with open(path, "rb") as file:
        assert file.read(15) == b"what zoned kept"
    assert path.stat().st_size == statefile.SIZE_BYTES
    assert path.stat().st_blocks * 512 < 1 << 20 and stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"")  # its maker was killed between two calls
    assert statefile.make(path) is True
    assert path.stat().st_size == statefile.SIZE_BYTES


def test_a_state_disk_is_plugged_in_writable_with_its_serial_number(fake: FakeQemu, qmp: Qmp, tmp_path: Path) -> None:
    fake.script["qom-list"] = [[{"return": []}], [{"return": [{"name": statefile.DEVICE}]}]]
    assert statefile.plug(qmp, tmp_path / "state.img") == statefile.SERIAL
    assert statefile.plug(qmp, tmp_path / "state.img") == statefile.SERIAL
    assert fake.names() == ["qom-list", "blockdev-add", "device_add", "qom-list"]
    commands = dict(fake.commands)
    assert commands["device_add"]["serial"] == statefile.SERIAL and len(statefile.SERIAL) <= disks.SERIAL_DIGITS
    assert "read-only" not in commands["blockdev-add"]
    assert commands["blockdev-add"]["file"]["filename"] == str(tmp_path / "state.img")


def test_a_state_disk_another_lab_has_is_said_so(fake: FakeQemu, qmp: Qmp, tmp_path: Path) -> None:
    path = tmp_path / "state.img"
    said = rf'state disk {path}: expected nobody else to use it, got Failed to get "write" lock \(.*zone host down'
    for command in ("blockdev-add", "device_add"):
        fake.script["qom-list"] = [[{"return": []}]]
        fake.script[command] = [error('Failed to get "write" lock')]
        with pytest.raises(StateDiskInUse, match=said):
            statefile.plug(qmp, path)
    fake.script["blockdev-add"] = [error("Permission denied")]
    with pytest.raises(LabFailed, match=r"state\.img: expected QEMU to plug it in, got Permission denied"):
        statefile.plug(qmp, path)


@pytest.mark.parametrize("byte", [100, 101, 203], ids=["reads", "writes", "denies"])
def test_a_state_disk_with_qemus_locks_on_it_is_seen_before_any_work(tmp_path: Path, byte: int) -> None:
    path = tmp_path / "state.img"
    statefile.check_unused(path)
    statefile.make(path)
    statefile.check_unused(path)
    with open(path, "rb") as other:
        fcntl.fcntl(other, fcntl.F_OFD_SETLK, statefile.FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
        with pytest.raises(
            StateDiskInUse, match=f"{path}: expected nobody else to use it, got a QEMU that has it open"
        ):
            statefile.check_unused(path)
    statefile.check_unused(path)


RULES = "  TCP[HOST_FORWARD]  12       127.0.0.1 {port}       10.0.2.15  4354     0     0\r\n"


def test_a_free_port_is_forwarded_once(fake: FakeQemu, qmp: Qmp) -> None:
    listed = [{"return": RULES.format(port=40123)}]
    fake.script["human-monitor-command"] = [[{"return": ""}], [{"return": ""}], listed, listed]
    assert ports.add_any(qmp, "127.0.0.1", 4354) == 40123
    assert ports.add_any(qmp, "127.0.0.1", 4354) == 40123
    lines = [arguments.get("command-line") for _, arguments in fake.commands if arguments]
    assert lines == ["info usernet", "hostfwd_add n0 tcp:127.0.0.1:0-:4354", "info usernet", "info usernet"]
