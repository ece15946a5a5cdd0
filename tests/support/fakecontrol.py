"""The other service of the zoned without Xen: what the command asks of the control API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpclib.const import Status

from runtime.host.api import common_pb2 as common
from runtime.host.api import control_pb2 as control
from runtime.host.api.control_grpc import ControlServiceBase

if TYPE_CHECKING:
    from support.fakezoned import FakeZoned


async def _unimplemented(self: Any, stream: Any) -> None:
    await stream.send_trailing_metadata(status=Status.UNIMPLEMENTED, status_message="not in this script")


_Unimplemented: Any = type(
    "_Unimplemented", (ControlServiceBase,), dict.fromkeys(ControlServiceBase.__abstractmethods__, _unimplemented)
)


class Control(_Unimplemented):  # type: ignore[misc]
    """Answers from what the test has put into the zoned."""

    def __init__(self, zoned: FakeZoned) -> None:
        self._zoned = zoned

    async def SnoopIdm(self, stream: Any) -> None:
        await stream.recv_message()
        for reply in self._zoned.snooped:
            await stream.send_message(reply() if callable(reply) else reply)

    async def ReadHypervisorConsole(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(control.ReadHypervisorConsoleReply(data=self._zoned.xen_said))

    async def GetHostCpuTopology(self, stream: Any) -> None:
        await stream.recv_message()
        cpus = [common.HostCpuTopologyInfo(core=core, **{"class": kind}) for core, kind in ((0, 1), (1, 2))]
        await stream.send_message(control.GetHostCpuTopologyReply(cpus=cpus))
