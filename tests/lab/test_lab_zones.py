"""Zones in real Xen: what a user's boot does, and what is said when it cannot."""

from __future__ import annotations

import http.client
import platform
import threading

import pytest
from support.labzones import boot, get, host_status, live, log_with, wait_for, zone_of
from support.ports import free_port

from pipeline.bundle.model import Port, Resources
from pipeline.progress import Progress
from runtime.errors import RuntimeFault
from runtime.host import actions

pytestmark = pytest.mark.xen

FACTS = "cd /tmp && uname -r >release && cat /sys/hypervisor/uuid >uuid && cat /proc/cmdline >cmdline"


def test_page_is_served_inside_a_xen_domain_with_the_zone_kernel_until_it_is_stopped(host, make, nginx):
    port = free_port()
    serve = f"{FACTS} && exec nginx -g 'daemon off;' -c /tmp/nginx.conf"
    conf = "events {} http { server { listen 80; root /tmp; location / {} } }"
    script = f"echo '{conf}' >/tmp/nginx.conf; {serve}"
    cmdline = f"{nginx.cmdline} loglevel=7"
    name = make("facts", "/bin/sh", "-c", script, ports=(Port("127.0.0.1", port, 80),), cmdline=cmdline)
    booted = boot(host, name)
    assert booted.urls == [f"http://127.0.0.1:{port}/"]
    zone = booted.zone
    assert get(f"http://127.0.0.1:{port}/release").strip() == nginx.kernel_release
    assert get(f"http://127.0.0.1:{port}/uuid").strip() == zone.domain_uuid
    assert get(f"http://127.0.0.1:{port}/cmdline").strip() == cmdline
    assert nginx.kernel_release not in (platform.release(), host_status(host).kernel)

    stopped = actions.stop(host, name, progress=Progress())
    assert stopped.HasField("exit") and stopped.exit.code == 0, (
        "nginx ends with 0 when it gets its own stop signal, SIGQUIT"
    )
    with pytest.raises((OSError, http.client.HTTPException)):
        get(f"http://127.0.0.1:{port}/")
    assert host.is_up() and live(host) == []
    said = log_with(host, name, "reboot: System halted", console=True)
    assert said and "timeout closing device" not in said, "its kernel has not waited 5 s for a back end of ours"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("/bin/sh", "-c", "echo the last words; exit 3"), "exit code 3"),
        pytest.param(("/no/such/command",), "/no/such/command", marks=pytest.mark.soak),
        pytest.param(("/bin/sh", "-c", "sh -c 'kill -9 $$'; exit $?"), "exit code 137", marks=pytest.mark.soak),
        pytest.param(("/etc/passwd",), "/etc/passwd", marks=pytest.mark.soak),
    ],
    ids=["exits", "missing", "killed", "not executable"],
)
def test_workload_that_ends_at_once_is_said_with_how_and_the_last_console_lines(host, make, argv, said):
    name = make("short", *argv, ports=(Port("127.0.0.1", free_port(), 80),))
    with pytest.raises(RuntimeFault, match="zone short: ended before") as caught:
        boot(host, name)
    assert said in str(caught.value)
    if "the last words" in argv[-1]:
        assert "the last words" in str(caught.value)
    assert live(host) == []


def test_port_in_use_on_this_machine_is_refused_before_anything_is_taken(host, make):
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        name = make("taken", ports=(Port("127.0.0.1", port, 80),))
        with pytest.raises(RuntimeFault, match=str(port)):
            boot(host, name)
    assert actions.zones(host) == []


def test_more_memory_than_xen_has_is_refused_with_the_number(host, make):
    name = make("huge", resources=Resources(65536, 65536, 1, 1))
    with pytest.raises(RuntimeFault, match=r"zone huge: expected 655\d\d MiB of free memory in Xen, got \d+ MiB"):
        boot(host, name)


def test_too_little_memory_for_kernel_and_initrd_is_refused_with_the_number(host, make):
    name = make("tiny", resources=Resources(64, 64, 1, 1))
    with pytest.raises(RuntimeFault, match=r"zone tiny: expected at least \d+ MiB of memory for this kernel"):
        boot(host, name)


def test_user_workdir_env_hostname_and_descriptors_are_as_the_spec_says(host, make):
    """And while it runs, no other zone gets its name."""
    script = "id; pwd; echo $COLOUR; hostname; ls /proc/self/fd | wc -l; grep -i capeff /proc/self/status; sleep 1000"
    process = {"uid": 33, "gid": 33, "groups": (4,), "cwd": "/var", "env": ("PATH=/usr/bin:/bin", "COLOUR=green")}
    name = make("who", "sh", "-c", script, process=process)
    boot(host, name)
    text = wait_for(lambda: log_with(host, name, "CapEff"), "output")
    assert "uid=33(www-data) gid=33(www-data) groups=33(www-data),4(adm)" in text
    assert "\n/var\n" in text and "\ngreen\n" in text
    assert "\nwho\n4\n" in text, "three descriptors, and the one by which ls reads the directory"
    assert "CapEff:\t0000000000000000" in text
    with pytest.raises(RuntimeFault, match="zone who: expected a name that no zone has, got one that is ready"):
        boot(host, name)
    assert zone_of(host, name).state == "ready"


OUTSIDE = """
ip netns add outside && ip link add out0 type veth peer name out1 netns outside &&
ip addr add 198.51.100.1/24 dev out0 && ip link set out0 up &&
ip -n outside addr add 198.51.100.7/24 dev out1 && ip -n outside link set out1 up && ip -n outside link set lo up &&
mkdir -p /tmp/outside && echo from outside >/tmp/outside/index.html &&
(ip netns exec outside python3 -m http.server -d /tmp/outside -b 198.51.100.7 80 >/dev/null 2>&1 &
 echo $! >/tmp/outside.pid)
"""
OUTSIDE_GONE = (
    "kill $(cat /tmp/outside.pid); ip netns del outside; ip link del out0; rm -r /tmp/outside /tmp/outside.pid; true"
)


@pytest.mark.soak
def test_zone_reaches_tcp_outside_but_not_its_host_and_answers_ping_on_both_families(host, make, lab):
    fetch = "exec 3<>/dev/tcp/$1/$2 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
    script = f"get() {{ {fetch}; }}; (get 198.51.100.7 80); (get 10.0.2.2 22) || echo closed; echo the end; sleep 1000"
    assert lab.shell(OUTSIDE)[0] == 0
    try:
        boot(host, make("out", "/bin/bash", "-c", script))
        text = wait_for(lambda: log_with(host, "out", "the end"), "answer")
    finally:
        lab.shell(OUTSIDE_GONE)
    assert "from outside" in text
    assert "\nclosed\n" in text
    namespace = lab.shell("ls /run/netns")[1].split()[0]
    for address in zone_of(host, "out").addresses:
        code, said = lab.shell(f"ip netns exec {namespace} ping -c 2 -W 20 {address}", timeout_s=60)
        assert code == 0, said


def test_zones_at_once_serve_their_own_pages(host, make):
    ports = [free_port() for _ in range(2)]
    names = [make(f"many{index}", ports=(Port("127.0.0.1", port, 80),)) for index, port in enumerate(ports)]
    failures: list[BaseException] = []

    def one(name: str) -> None:
        try:
            boot(host, name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for name, port in zip(names, ports, strict=True):
        assert name in get(f"http://127.0.0.1:{port}/")
    assert len({zone.addresses[0] for zone in actions.zones(host)}) == 2


@pytest.mark.soak
def test_guest_with_four_vcpus_brings_them_all_up(host, make):
    name = make(
        "smp", "/bin/sh", "-c", "cat /sys/devices/system/cpu/online; sleep 1000", resources=Resources(192, 192, 4, 4)
    )
    boot(host, name)
    assert wait_for(lambda: log_with(host, name, "0-3"), "vCPUs")


def test_kernel_that_panics_is_told_as_a_crash_with_what_it_said(host, make, nginx):
    name = make("crash", cmdline=f"{nginx.cmdline} rdinit=/none")
    with pytest.raises(RuntimeFault, match="zone crash") as caught:
        boot(host, name)
    assert "Kernel panic" in str(caught.value)
    assert zone_of(host, name).exit.crashed


DESTROY = (
    "cd /opt/zonewright; python3 -c 'from runtime.boot.doors import open_doors; open_doors().destroy_domain({domid})'"
)


def test_zone_killed_from_outside_is_seen_and_cleared(host, make, lab):
    name = make("killed", "/bin/sleep", "1000")
    zone = boot(host, name).zone
    assert lab.shell(f"cd /opt/zonewright; {DESTROY.format(domid=zone.domid)}")[0] == 0
    wait_for(lambda: zone_of(host, name).state in ("exited", "failed"), "death")
    assert "destroyed" in zone_of(host, name).exit.text and not zone_of(host, name).exit.crashed
    assert live(host) == []
