"""The lab itself, for real: disks, ports, death of QEMU, damaged snapshots, no trace after down."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import conftest
import pytest
from support.labzones import wait_for
from support.ports import free_port

from pipeline.oci import Descriptor
from pipeline.progress import PlainProgress
from runtime.host.lab import process
from runtime.host.lab.errors import LabDown, LabFailed, PortTaken
from runtime.host.lab.lab import Lab
from runtime.host.lab.snapshot import Snapshots

pytestmark = [pytest.mark.xen, pytest.mark.slow]

FIND_DISK = (
    "i=0; while [ $i -lt 300 ]; do for b in /sys/block/vd*; do"
    ' if [ "$(cat $b/serial 2>/dev/null)" = "%s" ]; then echo /dev/${b##*/}; exit 0; fi; done; usleep 100000;'
    " i=$((i+1)); done; exit 1"
)


def disk_of(lab: Lab, serial: str) -> str:
    """The device node of a plugged disk, once dom0 has it."""
    code, output = lab.shell(FIND_DISK % serial)
    assert code == 0, "dom0 saw no such disk"
    return output.strip()


def blob_of(lab: Lab, seed: int, size_bytes: int) -> tuple[Descriptor, bytes]:
    data = random.Random(seed).randbytes(size_bytes)
    return lab.store.put(data), data


@pytest.fixture
def own(lab: Lab, tmp_path: Path) -> Iterator[Lab]:
    """A second lab with its own directory and its own copy of the session's snapshot: one that tests may break."""
    other = Lab(lab.config, lab.store, directory=conftest.lab_directory(f"tests-own-{conftest.FLAVOUR}"))
    other.down(wipe=True)
    other.snapshots = Snapshots(tmp_path / "snapshots")
    shutil.copytree(lab.snapshots.directory, other.snapshots.directory)
    yield other
    other.down(wipe=True)


def test_dom0_is_the_control_domain_and_ready_for_zones(lab: Lab) -> None:
    code, output = lab.shell("cat /proc/xen/capabilities; ls /dev/xen; test -S /run/xenstored/socket")
    assert code == 0
    words = output.split()
    assert "control_d" in words
    assert {"evtchn", "gntdev", "hypercall", "privcmd"} <= set(words)


def test_everything_a_network_of_zones_needs_can_be_set_up(lab: Lab) -> None:
    rules = (
        "table inet t {\n chain p {\n  type filter hook prerouting priority mangle;\n"
        "  meta l4proto tcp socket transparent 1 meta mark set 1 accept\n"
        "  meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:5000 meta mark set 1 accept\n"
        "  meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:5000 meta mark set 1 accept\n }\n"
        " chain n {\n  type nat hook postrouting priority srcnat;\n  masquerade\n }\n}\n"
    )
    code, output = lab.shell(
        "set -e; ip netns add probe; ip netns exec probe nft -f -; ip netns exec probe ip link add br0 type bridge;"
        " ip netns exec probe ip tuntap add t0 mode tap; ip netns exec probe ip link add v0 type veth peer name v1;"
        " ip netns exec probe nft list ruleset; ip netns del probe",
        input=rules,
    )
    assert code == 0, output
    assert "masquerade" in output


def test_the_clock_is_this_machines_clock_after_a_restore(lab: Lab) -> None:
    assert abs(float(lab.shell("date +%s")[1]) - time.time()) < 60


def test_two_disks_come_with_their_bytes_read_only_and_leave(lab: Lab) -> None:
    before = set(lab.attached())  # idle disks of earlier zones
    blobs = [blob_of(lab, 1, 3_000_001), blob_of(lab, 2, 700_000)]
    serials = [lab.attach(blob) for blob, _ in blobs]
    assert lab.attach(blobs[0][0]) == serials[0], "the same blob is one disk"
    assert set(lab.attached()) - before == {str(blob.digest) for blob, _ in blobs}
    for serial, (_, data) in zip(serials, blobs, strict=True):
        device = disk_of(lab, serial)
        code, output = lab.shell(f"head -c {len(data)} {device} | sha256sum; cat /sys/block/{device[5:]}/ro")
        assert code == 0
        assert output.split() == [hashlib.sha256(data).hexdigest(), "-", "1"]
    for blob, _ in blobs:
        lab.detach(str(blob.digest))
        lab.detach(str(blob.digest))
    assert set(lab.attached()) == before
    again = lab.attach(blobs[0][0])
    disk_of(lab, again)
    lab.detach(str(blobs[0][0].digest))


def test_ports_are_forwarded_to_dom0_and_back_to_nobody(lab: Lab) -> None:
    port = free_port()
    lab.shell("mkdir -p /tmp/www && echo served-by-dom0 >/tmp/www/index.html && httpd -p 8090 -h /tmp/www")
    lab.forward("127.0.0.1", port, 8090)
    try:
        assert ("127.0.0.1", port, "tcp") in lab.forwards()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
            assert answer.read() == b"served-by-dom0\n"
        lab.forward("127.0.0.1", port, 8090)
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1"):
            lab.forward("127.0.0.1", port, 8091)
    finally:
        lab.unforward("127.0.0.1", port)
        lab.shell("kill $(pidof httpd)")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def test_a_port_another_program_has_is_named(lab: Lab) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1: expected it free, got in use"):
            lab.forward("127.0.0.1", port, 8090)
    assert lab.forwards() == {}


def test_calls_run_at_the_same_time_on_several_channel_ports(lab: Lab) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda name=name: found.append(lab.shell(f"sleep 1; echo {name}")[1].strip()))
        for name in "abcdef"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(found) == list("abcdef")


def test_a_client_killed_in_a_call_leaves_the_channel_working(lab: Lab) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from runtime.host.lab import channel; from runtime.host.lab.state import State\n"
        "print('calling', flush=True); channel.call(State(Path(sys.argv[1])), 'sh', {'command': 'sleep 2; echo late'})"
    )
    client = subprocess.Popen([sys.executable, "-c", code, str(lab.state.directory)], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    assert client.stdout.readline() == "calling\n"
    time.sleep(0.5)
    client.kill()
    client.wait()
    for number in range(4):
        assert lab.shell(f"echo {number}")[1] == f"{number}\n"


def test_a_second_up_changes_nothing(lab: Lab) -> None:
    before = lab.state.read()
    assert lab.up() == before
    assert process.marked(lab.state.mark) == [before.pid] if before else False


def test_status_tells_what_runs(lab: Lab) -> None:
    status = lab.status()
    assert (status["state"], status["flavour"]) == ("up", conftest.FLAVOUR)
    assert {f"sha256:{digest}" for digest in status["disks"]} == set(lab.attached())


def test_the_console_shows_xen_and_dom0(lab: Lab) -> None:
    # A restored lab's console begins at the restore: have dom0 say something.
    lab.shell("echo hello-from-dom0 >/dev/hvc0")
    deadline = time.monotonic() + 300
    while "hello-from-dom0" not in lab.console_tail():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# -- a lab that tests may break ----------------------------------------------------------------------------------------


def test_a_restored_lab_takes_disks_and_leaves_nothing_behind(own: Lab) -> None:
    record = own.up(PlainProgress())
    assert record.restored
    blob, data = blob_of(own, 3, 100_000)
    device = disk_of(own, own.attach(blob))
    assert own.shell(f"head -c {len(data)} {device} | sha256sum")[1].split()[0] == hashlib.sha256(data).hexdigest()
    own.shell("echo kept >/srv/file; setsid sleep 1000 </srv/file >/dev/null 2>&1 &")
    assert own.down() is True
    about = subprocess.run(["dumpe2fs", "-h", own.state_disk], capture_output=True, text=True, check=True).stdout
    assert "has_journal" in about and "needs_recovery" not in about, "whole, although it was in use"
    kept = subprocess.run(["debugfs", "-R", "cat srv/file", own.state_disk], capture_output=True, check=True).stdout
    assert kept == b"kept\n"
    assert process.marked(own.state.mark) == []
    assert own.down(wipe=True) is False
    assert not own.state.directory.exists()
    with pytest.raises(LabDown, match="not up"):
        own.call("ping")


def test_a_killed_qemu_is_said_so_in_the_call_under_way_and_the_next_up_works(own: Lab) -> None:
    record = own.up(PlainProgress())

    def kill() -> None:
        wait_for(lambda: own.shell("test -e /tmp/under-way")[0] == 0, "call that is under way")
        os.kill(record.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(LabFailed, match="the lab: its QEMU ended while a call was under way"):
        own.shell("touch /tmp/under-way; sleep 600", timeout_s=600)
    killer.join()
    assert not own.is_up()
    with pytest.raises(LabFailed, match="its QEMU ended since it was last used"):
        own.call("ping")
    assert own.up(PlainProgress()).pid != record.pid
    assert own.shell("echo again")[1] == "again\n"


@pytest.mark.soak
def test_a_damaged_snapshot_is_said_so_and_a_cold_start_follows(own: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    for memory in own.snapshots.directory.glob("*/memory"):
        with open(memory, "rb+") as file:
            file.seek(memory.stat().st_size // 2)
            file.write(b"\xff" * 64)
    record = own.up(PlainProgress(sys.stdout))
    assert not record.restored
    assert "the lab's snapshot cannot be used" in capsys.readouterr().out
    assert own.snapshots.find(record.key) is not None, "the cold start saved a new one"


def test_a_starter_killed_at_any_moment_leaves_nothing_in_the_way(own: Lab) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from pipeline.store import Store; from runtime.host.lab.lab import Lab\n"
        "from runtime.host.lab.config import load_config; from runtime.host.lab.snapshot import Snapshots\n"
        "lab = Lab(load_config(Path('/nonexistent'), flavour=sys.argv[3]), Store(), directory=Path(sys.argv[1]))\n"
        "lab.snapshots = Snapshots(Path(sys.argv[2])); lab.up()"
    )
    argv = [sys.executable, "-c", code, str(own.state.directory), str(own.snapshots.directory), conftest.FLAVOUR]
    for delay_s in (0.2, 0.6, 0.9, 1.2, 1.8):
        starter = subprocess.Popen(argv, cwd=conftest.PROJECT)
        time.sleep(delay_s)
        starter.kill()
        starter.wait()
        assert len(process.marked(own.state.mark)) <= 1
    own.up(PlainProgress())
    assert own.shell("echo works")[1] == "works\n"
    assert len(process.marked(own.state.mark)) == 1


def test_an_interrupt_while_starting_leaves_no_qemu(own: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(own, "_await_dom0", interrupted)
    with pytest.raises(KeyboardInterrupt):
        own.up()
    assert process.marked(own.state.mark) == []


def test_ports_of_the_settings_are_forwarded_also_in_a_lab_that_runs(own: Lab) -> None:
    before = own.up(PlainProgress())
    own.config = replace(own.config, ports=("127.0.0.1:18999:8090",))
    assert own.up().pid == before.pid, "ports are no reason to"
    assert ("127.0.0.1", 18999, "tcp") in own.forwards()


def test_disk_whose_file_was_replaced_in_the_store_is_stale(lab, tmp_path):
    blob = lab.store.put(os.urandom(4096))
    lab.attach(blob)
    assert not lab.is_stale(blob)
    path = lab.store.path(blob.digest)
    data = path.read_bytes()
    path.unlink()
    lab.store.put(data)
    assert lab.is_stale(blob)
    lab.detach(str(blob.digest))
    assert not lab.is_stale(blob)
    path.unlink()
