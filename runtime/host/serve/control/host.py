"""The host: what it is, its CPUs, what Xen has said."""

from __future__ import annotations

import asyncio

from runtime.boot.doors import Hypervisor
from runtime.boot.machine import CpuClass, console_text, cpu_topology
from runtime.host.api import common_pb2
from runtime.host.api import control_pb2 as pb
from runtime.host.serve.answers import NotServed
from runtime.host.serve.control.context import Context
from runtime.host.serve.control.methods import refused, unary
from runtime.host.serve.control.uplink import uplink

DOM0 = 0  # zoned runs in the control domain alone
_CLASSES = {
    CpuClass.STANDARD: common_pb2.HOST_CPU_TOPOLOGY_CLASS_STANDARD,
    CpuClass.PERFORMANCE: common_pb2.HOST_CPU_TOPOLOGY_CLASS_PERFORMANCE,
    CpuClass.EFFICIENCY: common_pb2.HOST_CPU_TOPOLOGY_CLASS_EFFICIENCY,
}


class HostMethods:
    """Of ControlService."""

    _context: Context

    @unary
    async def GetHostStatus(self, request: pb.GetHostStatusRequest) -> pb.GetHostStatusReply:
        status = await self._context.manager.status()
        link = await asyncio.to_thread(uplink)
        reply = pb.GetHostStatusReply(
            host_uuid=status.host_id,
            host_domid=DOM0,
            protect_version=status.version,
            host_ipv4=link.ipv4,
            host_ipv6=link.ipv6,
            host_mac=link.mac,
        )
        if status.total_memory_kib:
            reply.hyp_free_mem = status.free_memory_kib
        return reply

    @unary
    async def GetHostCpuTopology(self, request: pb.GetHostCpuTopologyRequest) -> pb.GetHostCpuTopologyReply:
        cpus = await asyncio.to_thread(cpu_topology, self._hypervisor("GetHostCpuTopology"))
        rows = [
            common_pb2.HostCpuTopologyInfo(
                core=cpu.core, socket=cpu.socket, node=cpu.node, thread=cpu.thread, **{"class": _CLASSES[cpu.cpu_class]}
            )
            for cpu in cpus
        ]
        return pb.GetHostCpuTopologyReply(cpus=rows)

    @unary
    async def ReadHypervisorConsole(self, request: pb.ReadHypervisorConsoleRequest) -> pb.ReadHypervisorConsoleReply:
        return pb.ReadHypervisorConsoleReply(
            data=await asyncio.to_thread(console_text, self._hypervisor("ReadHypervisorConsole"))
        )

    @unary
    async def ListDevices(self, request: pb.ListDevicesRequest) -> pb.ListDevicesReply:
        return pb.ListDevicesReply()

    SetHostPowerManagementPolicy = refused(
        "a scheduler that Xen chooses when it starts", "give Xen sched= and smt= on its command line"
    )
    HypervisorDebugInfo = refused(
        "no agreement on what its JSON would hold",
        "GetHostStatus, GetHostCpuTopology, ReadHypervisorConsole",
    )

    def _hypervisor(self, method: str) -> Hypervisor:
        if (hypervisor := self._context.hypervisor) is None:
            raise NotServed(f"method {method}", got="no hypervisor under this zoned")
        return hypervisor
