"""The agent's decisions that need no kernel: /proc, ports, parameters, the spec of the workload."""

import pytest

from runtime.init.agent import container, main, metrics, params, ports, stdio, system
from runtime.init.agent.errors import Refused


def test_listening_ports_are_read_with_their_addresses():
    tcp = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
"""
    tcp6 = """  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: B80D0120000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000
"""
    assert ports.parse(tcp, "tcp") == {("tcp", "127.0.0.1", 8080)}
    assert ports.parse(tcp6, "tcp") == {("tcp", "::1", 80), ("tcp", "2001:db8::1", 443)}
    assert ports.parse("", "tcp") == set()


def test_bound_udp_sockets_are_read_and_those_with_a_peer_are_not():
    udp = """   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref
  100: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 0
  101: 0100007F:0143 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 2 2 0 0
  102: 0200000A:9C40 08080808:0035 01 00000000:00000000 00:00000000 00000000     0        0 3 2 0 0
  103: 00000000:9C41 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4 2 0 0
"""
    found = ports.parse(udp, "udp")
    assert found == {("udp", "0.0.0.0", 53), ("udp", "127.0.0.1", 323), ("udp", "0.0.0.0", 40001)}
    assert ports.without(found, range(32768, 61000)) == {("udp", "0.0.0.0", 53), ("udp", "127.0.0.1", 323)}
    assert [ports.is_open(found, port) for port in (53, 323, 40000, 40001)] == [True, False, False, True]


def test_proc_files_are_read():
    stat = (
        "cpu  10 0 20 300 4 0 0 5 0 0\ncpu0 10 0 20 300 4 0 0 5 0 0\nprocesses 77\nprocs_running 2\nprocs_blocked 1\n"
    )
    assert metrics.cpu_times(stat)["cpu0"] == {
        "user": 0.1,
        "nice": 0.0,
        "system": 0.2,
        "idle": 3.0,
        "iowait": 0.04,
        "irq": 0.0,
        "softirq": 0.0,
        "steal": 0.05,
    }
    counts = metrics.process_counts(stat, "0.00 0.01 0.05 2/88 77\n")
    assert counts == {"forked": 77, "running": 2, "blocked": 1, "threads": 88}
    dev = "Inter-|\n face |\n  eth0: 1 2 3 4 0 0 0 0 9 10 11 12 0 0 0 0\n"
    assert metrics.network(dev)["eth0"]["tx_bytes"] == 9 and metrics.network(dev)["eth0"]["rx_dropped"] == 4
    disk = " 202 0 xvda 5 0 16 1 3 0 8 2 0 7 9 0 0 0 0 0 0\n 7 0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    found = {"reads": 5, "read_bytes": 8192, "writes": 3, "written_bytes": 4096, "busy_ms": 7}
    assert metrics.disks(disk) == {"xvda": found}
    assert metrics.pressure("some avg10=0.50 avg60=0.00 avg300=0.00 total=123\n")["some"]["total_us"] == 123
    assert metrics.io_stat("254:0 rbytes=1 wbytes=2\n254:1 \n") == {"254:0": {"rbytes": 1, "wbytes": 2}}


def test_a_process_may_be_called_anything():
    words = "S 1 2 3 0 -1 0 0 0 0 0 150 50 0 0 20 0 3 0 700 4096 25 0"
    one = metrics.parse_stat(f"42 (a) b (c) {words}")
    assert one is not None and (one["pid"], one["name"], one["ppid"]) == (42, "a) b (c", 1)
    assert (one["cpu_s"], one["threads"], one["started_s"], one["rss_kib"]) == (2.0, 3, 7.0, 100)
    assert metrics.parse_stat("") is None


@pytest.mark.parametrize(("text", "numbers"), [("0-2,5\n", [0, 1, 2, 5]), ("0", [0]), ("", []), ("1,3-4", [1, 3, 4])])
def test_cpu_lists_are_read(text, numbers):
    assert system.ranges(text) == numbers


@pytest.mark.parametrize(
    ("value", "size"),
    [([5, 6], (5, 6)), (None, (24, 80)), ([1], (24, 80)), (["a", 2], (24, 80)), ([-1, 1 << 20], (0, 65535))],
)
def test_terminal_sizes_are_taken_or_usual(value, size):
    assert stdio.size_of(value) == size


@pytest.mark.parametrize(
    ("take", "words"),
    [
        (lambda given: params.text(given, "none"), "none: expected str, got None"),
        (lambda given: params.text(given, "number"), "number: expected str, got 5"),
        (lambda given: params.number(given, "true"), "true: expected a number"),
        (lambda given: params.number(given, "number", least=6), "number: expected a number from 6"),
        (lambda given: params.seconds(given, "text", 1.0), "text: expected seconds"),
        (lambda given: params.flag(given, "number"), "number: expected bool"),
        (lambda given: params.mapping(given, "text"), "text: expected dict"),
    ],
)
def test_wrong_parameters_are_named(take, words):
    with pytest.raises(Refused, match=words) as caught:
        take({"text": "x", "number": 5, "true": True})
    assert caught.value.reason == "params"


def test_the_workloads_spec_is_the_launch_datas_with_what_extra_adds():
    process = {"argv": ["sh"], "tty": True, "uid": 5}
    data = {"readonly_root": True, "process": process}
    extra = {"tty_size": [7, 8], "container": {"limits": {"pids_max": 9}, "process": {"init": True, "uid": 6}}}
    assert main.main_spec(data, process, extra) == {
        "limits": {"pids_max": 9},
        "process": {"argv": ["sh"], "tty": True, "uid": 6, "init": True, "size": [7, 8]},
        "root": {"readonly": True},
    }
    plain = {"argv": ["sh"], "tty": False}
    assert main.main_spec(data | {"readonly_root": False}, plain, {}) == {
        "process": plain,
        "root": {"readonly": False},
    }


@pytest.mark.parametrize(
    ("caught", "blocked", "taken"),
    [
        ("0000000000004000", "0000000000000000", True),  # SIGTERM has a handler
        ("0000000000000000", "0000000000004000", True),  # it waits until it is unblocked
        ("ffffffffffffbfff", "ffffffffffffbfff", False),
        ("0000000000000000", "0000000000000000", False),
    ],
)
def test_signals_a_process_takes(caught, blocked, taken):
    status = f"Name:\tserve\nSigPnd:\t{'f' * 16}\nSigBlk:\t{blocked}\nSigIgn:\t{'f' * 16}\nSigCgt:\t{caught}\n"
    assert container.signal_taken(status, 15) is taken
