"""The way to the lab's zoned: keys of each start, a zoned that is killed, state that outlives the lab."""

from __future__ import annotations

import shutil
import socket
import ssl
import time
from pathlib import Path

import pytest
from support.labzones import wait_for

from pipeline.progress import PlainProgress
from runtime.host.api import host_pb2 as pb
from runtime.host.client import connect
from runtime.host.client.endpoint import Credentials, Endpoint
from runtime.host.faults import HostDown
from runtime.host.lab.lab import Lab

pytestmark = [pytest.mark.xen, pytest.mark.slow]

MARK = "/var/lib/zonewright/mark"


def status(endpoint: Endpoint) -> pb.HostStatus:
    with connect(endpoint) as client:
        return client.call(client.host.GetStatus, pb.GetStatusRequest(), timeout_s=300)


def zoned_pid(lab: Lab) -> int:
    return int(lab.call("ping")["zoned"]["pid"])


def test_zoned_answers_over_tls_and_says_where_it_runs(lab: Lab) -> None:
    found = status(lab.endpoint())
    assert found.pid == zoned_pid(lab)
    assert found.xen_version in ("4.17", "4.20") and not list(found.missing)


def test_nobody_without_the_labs_certificate_gets_a_word_from_zoned(lab: Lab, tmp_path: Path) -> None:
    endpoint, heard = lab.endpoint(), b""
    assert endpoint.credentials is not None
    context = ssl.create_default_context(cafile=endpoint.credentials.ca)
    try:
        with socket.create_connection((endpoint.host, endpoint.port), timeout=60) as raw:
            tls = context.wrap_socket(raw, server_hostname=endpoint.host)
            while data := tls.recv(4096):
                heard += data
    except OSError:
        pass
    assert heard == b""


def test_a_zoned_that_is_killed_comes_back_by_itself_and_the_agent_never_goes(lab: Lab) -> None:
    host_id = status(lab.endpoint()).host_id
    pid = zoned_pid(lab)
    agent = lab.call("ping")["pid"]
    assert lab.shell(f"kill -9 {pid}")[0] == 0
    assert lab.call("ping")["pid"] == agent
    wait_for(lambda: lab.call("ping")["zoned"] != {"pid": pid, "state": "serving"}, "end of zoned")
    assert lab.call("ready", {"timeout_s": 120}, timeout_s=180)["pid"] != pid
    wait_for(lambda: lab.call("ping")["zoned"]["state"] == "serving", "zoned", timeout_s=120)
    # The same keys, the same state: whoever has them notices no more than a pause.
    assert status(lab.endpoint()).host_id == host_id


def test_state_outlives_the_lab_and_keys_do_not(own: Lab, tmp_path: Path) -> None:
    record = own.up(PlainProgress())
    assert record.restored, "the session's snapshot, which holds neither keys nor a state disk"
    host_id = status(own.endpoint()).host_id
    assert own.shell(f"echo kept >{MARK}")[0] == 0
    old = tmp_path / "old"
    old.mkdir()
    for name in ("ca.pem", "client.pem", "client.key"):
        shutil.copy(own.state.path(name), old / name)
    assert own.down()
    assert [path.name for path in own.state.directory.iterdir()] == ["state.img"]
    assert own.state_disk.stat().st_blocks * 512 < 64 << 20, "it takes what is in it"
    own.up(PlainProgress())
    assert own.shell(f"cat {MARK}")[1] == "kept\n"
    assert status(own.endpoint()).host_id == host_id
    endpoint = own.endpoint()
    with pytest.raises(HostDown, match="a zoned this client may trust"):
        status(Endpoint("old", "tls", host=endpoint.host, port=endpoint.port, credentials=Credentials(old)))
    assert own.down(wipe=True)
    assert not own.state.directory.exists()
    own.up(PlainProgress())
    assert own.shell(f"cat {MARK}")[0] != 0
    assert status(own.endpoint()).host_id != host_id


def test_a_lab_that_is_killed_finds_its_state_again(own: Lab) -> None:
    import os
    import signal

    from runtime.host.lab import process

    record = own.up(PlainProgress())
    assert own.shell(f"echo kept >{MARK} && sync")[0] == 0
    os.kill(record.pid, signal.SIGKILL)
    assert process.wait_gone(record.pid, 120)
    own.up(PlainProgress())
    assert own.shell(f"cat {MARK}")[1] == "kept\n"
    assert "ext4" in own.shell("grep zonewright /proc/mounts")[1]


def test_the_clock_is_right_before_zoned_has_its_keys(own: Lab) -> None:
    own.up(PlainProgress())
    # A certificate made a moment ago would else not be valid yet, or an old one still be.
    assert abs(float(own.shell("stat -c %Y /run/zonewright/tls/server.pem")[1]) - time.time()) < 120
