"""The lab's agent in dom0: the state disk, the keys, and how it brings zoned to them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ports import free_port
from support.servedmanager import ScriptedManager, zoned
from support.tools import require

from pipeline.recipe import PROJECT
from runtime.host import ledger, sources
from runtime.host.api import host_pb2 as pb
from runtime.host.client import connect
from runtime.host.dom0 import agent, configure, daemonstate, statedisk
from runtime.host.dom0.daemonstate import ZonedAbsent
from runtime.host.dom0.statedisk import StateDiskUnfit
from runtime.host.faults import HostDown
from runtime.host.lab import keys, reach
from runtime.host.lab.errors import LabDown
from runtime.host.wire import Client, Server

# A zoned as far as the agent sees it: it says what it does, and takes its configuration at SIGHUP.
ZONED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {project!r})
from runtime.host.dom0 import daemonstate
run = Path({run!r})
Path("/proc/self/comm").write_text(daemonstate.PROCESS)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGTERM])
configured = run / daemonstate.CONFIGURED
while True:
    daemonstate.say("serving" if configured.exists() else "waiting", run=run)
    if signal.sigwait([signal.SIGHUP, signal.SIGTERM]) == signal.SIGTERM:
        break
"""


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setattr(daemonstate, "RUN", run)
    for function in (daemonstate.heard, daemonstate.wait_for, daemonstate.tell, daemonstate.say):
        monkeypatch.setitem(function.__kwdefaults__, "run", run)
    monkeypatch.setattr(configure, "RUN_TLS", run / "tls")
    monkeypatch.setattr(configure.write_credentials, "__defaults__", (run / "tls",))
    return run


@pytest.fixture
def far_zoned(run_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    code = ZONED.format(project=str(PROJECT), run=str(run_dir))
    process = subprocess.Popen([sys.executable, "-c", code])
    daemonstate.wait_for("waiting", timeout_s=120)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The state disks that were mounted and unmounted, none of them real."""
    done: list[str] = []
    monkeypatch.setattr(statedisk, "mount", lambda serial: done.append(serial) or "formatted")
    monkeypatch.setattr(statedisk, "unmount", lambda: done.append("unmounted") or True)
    return done


@pytest.fixture
def client(run_dir: Path) -> Iterator[Client]:
    listener = Server(agent.METHODS).listen(run_dir / "agent.sock")
    with Client.connect(run_dir / "agent.sock") as client:
        yield client
    listener.close()


TLS = {"ca": "a", "certificate": "c", "key": "k", "listen": "10.0.2.15:4354"}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root may credit entropy")
def test_a_seed_is_taken_by_the_kernel() -> None:
    configure.credit_entropy(os.urandom(32))


def test_a_zoned_that_waits_is_given_its_keys_and_serves(
    client: Client,
    far_zoned: subprocess.Popen[bytes],
    run_dir: Path,
    disks: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds: list[bytes] = []
    monkeypatch.setattr(configure, "credit_entropy", seeds.append)
    assert client.call("ready", {"timeout_s": 120}, timeout_s=180) == {"pid": far_zoned.pid, "state": "waiting"}
    assert client.call("ping")["zoned"] == {"pid": far_zoned.pid, "state": "waiting"}
    wanted = {"tls": TLS, "state_disk": "zonewright-state", "boot": "this-start", "seed": "ab" * 32}
    answer = client.call("configure", wanted)
    assert answer == {"disk": "formatted", "pid": far_zoned.pid}
    assert client.call("ping")["zoned"]["state"] == "serving"
    assert disks == ["zonewright-state"] and seeds == [b"\xab" * 32]
    assert (
        ledger.boot_id(run_dir) == "this-start"
        and ledger.boot_id(run_dir / "tls") == ledger.BOOT_ID.read_text().strip()
    )
    assert {path.name: path.read_text() for path in (run_dir / "tls").iterdir()} == {
        "ca.pem": "a",
        "server.pem": "c",
        "server.key": "k",
        "listen": "10.0.2.15:4354",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in (run_dir / "tls").iterdir()} == {0o600}
    assert stat.S_IMODE((run_dir / "tls").stat().st_mode) == 0o700


def test_new_keys_replace_the_old_ones_whole(run_dir: Path) -> None:
    configure.write_credentials(TLS)
    (run_dir / "tls" / "left").write_text("over")
    configure.write_credentials(TLS | {"key": "other"})
    assert (run_dir / "tls" / "server.key").read_text() == "other"
    assert not (run_dir / "tls" / "left").exists()


@pytest.mark.usefixtures("far_zoned")
def test_stop_ends_zoned_before_the_disk_is_unmounted(
    client: Client, far_zoned: subprocess.Popen[bytes], run_dir: Path, disks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statedisk, "unmount", lambda: disks.append(daemonstate.heard()[1]) or True)
    reaper = threading.Thread(target=far_zoned.wait)  # as busybox init does
    reaper.start()
    assert client.call("stop") == {"unmounted": True}
    reaper.join(120)
    assert disks == ["down"]
    assert (run_dir / daemonstate.STOPPING).exists()


def test_a_zoned_that_was_killed_is_down_whatever_it_said_last(
    far_zoned: subprocess.Popen[bytes], run_dir: Path
) -> None:
    assert daemonstate.heard() == (far_zoned.pid, "waiting")
    far_zoned.kill()
    far_zoned.wait()
    assert daemonstate.heard() == (0, "down")
    assert daemonstate.tell(signal.SIGHUP) == 0
    with pytest.raises(ZonedAbsent, match="got down"):
        daemonstate.wait_for("serving", timeout_s=0.1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1, "state": "serving"}'])
def test_a_state_of_nobody_is_down(run_dir: Path, text: str) -> None:
    (run_dir / daemonstate.STATE).write_text(text)
    assert daemonstate.heard() == (0, "down")


# -- the state disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    require("mke2fs", "e2fsck", "debugfs")
    path = tmp_path / "disk"
    with open(path, "wb") as file:
        file.truncate(64 << 20)
    return path


def test_an_empty_disk_is_formatted_once_and_then_checked(disk: Path) -> None:
    assert statedisk.prepare(disk) == "formatted"
    assert disk.stat().st_blocks * 512 < 24 << 20, "a sparse file stays one"
    assert statedisk.prepare(disk) == "checked"


def test_a_disk_with_other_bytes_is_left_alone(disk: Path) -> None:
    with open(disk, "r+b") as file:
        file.write(b"a partition table")
    before = disk.read_bytes()
    with pytest.raises(StateDiskUnfit, match="zone host down --wipe"):
        statedisk.prepare(disk)
    assert disk.read_bytes() == before


def test_damage_that_fsck_mends_is_mended_and_other_damage_is_told(disk: Path) -> None:
    statedisk.prepare(disk)
    subprocess.run(["debugfs", "-w", "-R", "ssv state 2", disk], check=True, capture_output=True)  # not unmounted
    assert statedisk.prepare(disk) == "checked"
    with open(disk, "r+b") as file:
        file.seek(1024 + 0x68)
        file.write(b"\xff" * 64)
        file.seek(4096)
        file.write(b"\xff" * (16 << 20))
    with pytest.raises(StateDiskUnfit, match="e2fsck to succeed"):
        statedisk.prepare(disk)


def test_a_tool_that_is_missing_is_named(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(StateDiskUnfit, match="mke2fs to run"):
        statedisk.prepare(disk)


def test_a_disk_that_does_not_come_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    block = tmp_path / "block"
    (block / "vdc").mkdir(parents=True)
    (block / "vdc" / "serial").write_text("zonewright-state\n")
    monkeypatch.setattr(sources, "SYS_BLOCK", block)
    assert statedisk.wait_disk("zonewright-state") == Path("/dev/vdc")
    with pytest.raises(StateDiskUnfit, match="no such disk"):
        statedisk.wait_disk("another", timeout_s=0.1)


# -- the lab's keys ----------------------------------------------------------------------------------------------------


def test_the_labs_keys_lead_to_its_zoned_and_those_of_the_next_start_shut_the_old_out(
    tmp_path: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    # Here dom0's address is this machine's, and no QEMU forwards.
    monkeypatch.setattr(keys, "DOM0_ADDRESS", "127.0.0.1")
    monkeypatch.setattr(keys, "TLS_PORT", port)
    lab = tmp_path / "lab"
    lab.mkdir()
    with pytest.raises(LabDown):
        reach.lab_endpoint(lab)
    configure.write_credentials(keys.make(lab))
    (lab / "record.json").write_text(json.dumps({"api_port": port}))
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in lab.glob("c*")} == {
        "ca.pem": 0o600,
        "client.pem": 0o600,
        "client.key": 0o600,
    }
    request = pb.ListZonesRequest(all=True)
    with zoned(ScriptedManager(), tmp_path / "s", run_dir / "tls") as server:
        with connect(reach.lab_endpoint(lab)) as client:
            assert client.call(client.host.ListZones, request).zones
        old = shutil.copytree(lab, tmp_path / "old")
        configure.write_credentials(keys.make(lab))
        assert server("reload")
        with connect(reach.lab_endpoint(lab)) as client:
            assert client.call(client.host.ListZones, request).zones
        with connect(reach.lab_endpoint(old)) as client, pytest.raises(HostDown):
            client.call(client.host.ListZones, request)
