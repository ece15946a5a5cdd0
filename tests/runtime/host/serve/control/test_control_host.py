"""ControlService by a plain gRPC client: what Xen says of the machine, by the calls it answers."""

from __future__ import annotations

import contextlib
from pathlib import Path

from support.controlserver import ControlServer
from support.hypervisor import FakeXen

from runtime.boot.doors import Hypervisor
from runtime.host.api import common_pb2 as common
from runtime.host.api import control_pb2 as pb
from runtime.host.serve.control.uplink import default_interface, global_ipv6

ROUTES = """Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth1	00000000	0202000A	0003	0	0	200	00000000	0	0	0
eth0	00000000	0202000A	0003	0	0	100	00000000	0	0	0
eth0	0002000A	00000000	0001	0	0	0	00FFFFFF	0	0	0
"""
ADDRESSES6 = """fe80000000000000505400fffe123456 02 40 20 80     eth0
fd000000000000000000000000000005 02 40 00 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
"""


def test_topology_and_console_come_from_xen(tmp_path: Path) -> None:
    xen = FakeXen()
    xen.cpus = [(0, 0, 0), (0, 0, 0), (1, 1, 1)]
    xen.console = b"(XEN) Xen version 4.17\n"
    with contextlib.closing(ControlServer(tmp_path, Hypervisor(xen))) as control:
        cpus = control.stub.GetHostCpuTopology(pb.GetHostCpuTopologyRequest()).cpus
        assert [(cpu.core, cpu.socket, cpu.node, cpu.thread) for cpu in cpus] == [
            (0, 0, 0, 0),
            (0, 0, 0, 1),
            (1, 1, 1, 0),
        ]
        assert {getattr(cpu, "class") for cpu in cpus} == {common.HOST_CPU_TOPOLOGY_CLASS_STANDARD}
        text = control.stub.ReadHypervisorConsole(pb.ReadHypervisorConsoleRequest()).data
        assert text == "(XEN) Xen version 4.17\n"


def test_the_uplink_is_that_of_the_default_route_with_the_least_metric() -> None:
    assert default_interface(ROUTES) == "eth0"
    assert default_interface(ROUTES.replace("00000000\t0202000A", "0000000A\t0202000A")) == ""
    assert global_ipv6("eth0", ADDRESSES6) == "fd00::5/64"
    assert global_ipv6("lo", ADDRESSES6) == ""
