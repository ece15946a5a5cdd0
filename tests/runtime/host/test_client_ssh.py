"""ssh:// through a real sshd on loopback, and what is said when it leads nowhere."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ports import free_port
from support.servedmanager import ScriptedManager, zoned

from pipeline.recipe import PROJECT
from runtime.host.api import host_pb2 as pb
from runtime.host.client import connect
from runtime.host.faults import HostDown, RemoteFault

SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


@pytest.fixture
def manager() -> ScriptedManager:
    return ScriptedManager()


@pytest.fixture
def far(tmp_path: Path, manager: ScriptedManager) -> Iterator[Path]:
    """A `zone` that knows one command, as the far host has it, and the zoned it leads to."""
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    code = "import sys; from pathlib import Path; from runtime.host.client.dialstdio import dial_stdio; "
    code += f'assert sys.argv[1:] == ["host", "dial-stdio"]; dial_stdio(Path("{tmp_path}/zoned"))'
    zone = bin_directory / "zone"
    zone.write_text(f"#!/bin/sh\nPYTHONPATH={PROJECT} exec {sys.executable} -c '{code}' \"$@\"\n")
    zone.chmod(0o755)
    with zoned(manager, tmp_path / "zoned"):
        yield bin_directory


def ssh_without_network(tmp_path: Path, far: Path) -> str:
    """An `ssh` that runs the far command here: our side of it, where there is no sshd."""
    script = tmp_path / "ssh"
    script.write_text(f'#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nPATH={far}:$PATH exec sh -c "$3"\n')
    script.chmod(0o755)
    return str(script)


@pytest.fixture
def sshd(tmp_path: Path, far: Path) -> Iterator[int]:
    """A real sshd for this user; the port. Skips where there is none to be had."""
    program = shutil.which("sshd", path=SBIN)
    if program is None or shutil.which("ssh-keygen") is None:
        pytest.skip("needs sshd (Debian package openssh-server)")
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    port = free_port()
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host_key\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {tmp_path}/user_key.pub\nPermitRootLogin yes\nSetEnv PATH={far}:/usr/bin:/bin\n"
    )
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {(tmp_path / 'host_key.pub').read_text()}")
    (tmp_path / "ssh_config").write_text(
        f"Host *\n  IdentityFile {tmp_path}/user_key\n  IdentitiesOnly yes\n  BatchMode yes\n"
        f"  UserKnownHostsFile {tmp_path}/known\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Debian's sshd wants it, its unit makes it
    log = tmp_path / "sshd.log"
    log.touch()
    process = subprocess.Popen([program, "-D", "-E", log, "-f", tmp_path / "sshd_config"])
    try:
        deadline = time.monotonic() + 120
        while True:
            if process.poll() is not None:
                pytest.skip(f"sshd does not start here: {log.read_text().strip()[-300:]}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


def test_calls_and_streams_through_sshd(
    sshd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manager: ScriptedManager
) -> None:
    monkeypatch.setenv("ZONE_SSH", f"ssh -F {tmp_path}/ssh_config")
    with connect(f"ssh://{getpass.getuser()}@127.0.0.1:{sshd}") as client:
        assert client.call(client.host.ListZones, pb.ListZonesRequest(all=True)).zones[0].name == "web"
        with pytest.raises(RemoteFault, match="no such zone"):
            client.call(client.host.GetZone, pb.GetZoneRequest(zone="x"))
        entries = client.stream(client.host.ReadLogs, pb.ReadLogsRequest(zone="web", follow=True))
        assert sum(len(next(entries).data) for _ in range(100)) == 100 << 16
    assert manager.cancelled.wait(120)


def test_an_sshd_that_refuses_is_quoted(sshd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZONE_SSH", f"ssh -F {tmp_path}/ssh_config -i /nonexistent -o PubkeyAuthentication=no")
    address = f"ssh://{getpass.getuser()}@127.0.0.1:{sshd}"
    with connect(address) as client, pytest.raises(HostDown, match="Permission denied"):
        client.call(client.host.ListZones, pb.ListZonesRequest())


def test_calls_through_the_far_command(
    tmp_path: Path, far: Path, monkeypatch: pytest.MonkeyPatch, manager: ScriptedManager
) -> None:
    monkeypatch.setenv("ZONE_SSH", ssh_without_network(tmp_path, far))
    with connect("ssh://me@web1") as client:
        assert client.call(client.host.ListZones, pb.ListZonesRequest(all=True)).zones[0].name == "web"
        entries = client.stream(client.host.ReadLogs, pb.ReadLogsRequest(zone="web", follow=True))
        assert sum(len(next(entries).data) for _ in range(100)) == 100 << 16
    assert manager.cancelled.wait(120)


def test_an_interrupt_is_not_sshs_to_hear(
    tmp_path: Path, far: Path, monkeypatch: pytest.MonkeyPatch, manager: ScriptedManager
) -> None:
    import signal

    monkeypatch.setenv("ZONE_SSH", ssh_without_network(tmp_path, far))

    def interrupt() -> None:
        manager.started.wait(120)
        # As a terminal does it: to the whole process group; this one's parents must not hear of it.
        for process in [os.getpid(), *children_of(os.getpid())]:
            os.kill(process, signal.SIGINT)

    with connect("ssh://web1") as client:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            client.call(client.host.WaitZone, pb.WaitZoneRequest(zone="web"))
        assert manager.cancelled.wait(120)
        assert client.call(client.host.ListZones, pb.ListZonesRequest(all=True)).zones


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'sh: 1: zone: not found' >&2; exit 127", "zone: not found"),
        ("exit 255", "the connection is lost"),
    ],
)
def test_a_way_that_ends_too_early_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    program = tmp_path / "ssh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("ZONE_SSH", str(program))
    with connect("ssh://web1") as client, pytest.raises(HostDown, match=words):
        client.call(client.host.ListZones, pb.ListZonesRequest())


def test_no_ssh_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZONE_SSH", "/nonexistent/ssh")
    with connect("ssh://web1") as client, pytest.raises(HostDown, match="install ssh"):
        client.call(client.host.ListZones, pb.ListZonesRequest())
